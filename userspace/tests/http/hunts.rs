//! The list of hunts.

use super::*;

/// All rows of the list, page by page; and how many pages there were.
fn list(server: &Server, query: &str) -> (Vec<Value>, usize) {
    let (mut rows, mut from, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = server.page(&format!("/v1/hunts?from={from}&{query}"));
        rows.extend(page["hunts"].as_array().unwrap().iter().cloned());
        pages += 1;
        match page["next"].as_u64() {
            Some(next) => assert!(std::mem::replace(&mut from, next) < next, "{page}"),
            None => return (rows, pages),
        }
    }
}

fn sorted(rows: &[Value], name: &str) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.iter().map(|row| row[name].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn every_hunt_is_listed_once_whatever_the_pages() {
    let server = Server::whole();
    let empty = server.page("/v1/hunts");
    assert_eq!((&empty["hunts"], &empty["next"]), (&json!([]), &Value::Null), "{empty}");
    has_answer_of(&empty, 0);

    let mut epoch = 0;
    for hunt in 1..=30 {
        let setup = json!({ "game": "timed-race", "length_s": 600, "tenant": hunt % 3,
                            "settings": 60 | 3 << 16 | 2 << 24 });
        let mut events = vec![json!({ "kind": "wallet-credit", "player": 1, "argument": 1 })];
        if hunt != 30 {
            events.push(json!({ "kind": "hunt-open", "player": 0, "setup": setup }));
        }
        let rows = server.play(hunt, &json!(events));
        epoch = epoch.max(rows[0]["epoch"].as_u64().unwrap());
    }
    let all: Vec<u64> = (1..=30).collect();
    for limit in [1, 7, 30, 100] {
        let (rows, pages) = list(&server, &format!("limit={limit}&min_epoch={epoch}"));
        assert_eq!(sorted(&rows, "hunt"), all, "{limit}");
        assert!(pages >= 30_usize.div_ceil(limit) && pages <= 31, "{limit}: {pages}");
    }
    let (of_two, _) = list(&server, "tenant=2&limit=4");
    assert_eq!(sorted(&of_two, "hunt"), (2..=29).step_by(3).collect::<Vec<_>>());
    let (of_nobody, _) = list(&server, "tenant=0");
    assert_eq!(sorted(&of_nobody, "hunt"), (3..=30).step_by(3).collect::<Vec<_>>());
    assert!(list(&server, "tenant=9").0.is_empty());

    let row = of_two.iter().find(|row| row["hunt"] == 29).unwrap();
    assert_eq!((&row["tenant"], &row["game"]), (&json!(2), &json!("timed-race")), "{row}");
    assert_eq!((&row["phase"], &row["events"]), (&json!("playing"), &json!(2)), "{row}");
    assert_eq!((&row["cells"], &row["players"]), (&json!(0), &json!(1)), "{row}");
    let ends_s = row["opened_s"].as_u64().unwrap() + 600;
    assert_eq!((&row["ends_s"], &row["over_quota"]), (&json!(ends_s), &json!(0)), "{row}");
    let row = of_nobody.iter().find(|row| row["hunt"] == 30).unwrap();
    assert_eq!((&row["tenant"], &row["game"]), (&Value::Null, &Value::Null), "{row}");

    server.play(29, &json!([{ "kind": "hunt-close", "player": 0 }]));
    let (of_two, _) = list(&server, "tenant=2");
    let row = of_two.iter().find(|row| row["hunt"] == 29).unwrap();
    assert_eq!(row["phase"], "closed", "{row}");
}

#[test]
fn a_game_has_a_latency_class_by_which_its_answers_are_counted() {
    let server = Server::whole();
    let credit = json!({ "kind": "wallet-credit", "player": 1, "argument": 1 });
    for (hunt, game) in [(1, "quest-chain"), (2, "team-hunt")] {
        let open = json!({ "kind": "hunt-open", "player": 0, "setup": { "game": game } });
        server.play(hunt, &json!([open]));
        server.play(hunt, &json!([credit, credit]));
    }
    // Nobody has opened it: free-roam. A duplicate counts once.
    let rows = server.play(3, &json!([credit]));
    let again =
        json!({ "kind": "wallet-credit", "player": 1, "argument": 1, "key": rows[0]["key"] });
    server.play(3, &json!([again]));
    let class = |target: &str| server.page(target)["latency"].clone();
    assert_eq!(class("/v1/hunts/1"), "relaxed");
    assert_eq!(class("/v1/hunts/2"), "interactive");
    assert_eq!(class("/v1/hunts/3"), "interactive");

    let started = Instant::now();
    loop {
        let status = server.page("/status");
        let classes = status["log"]["latency"].as_array().unwrap();
        let events = |at: usize| classes[at]["events"].as_u64().unwrap();
        if events(0) + events(1) == 7 {
            assert_eq!((events(0), events(1)), (4, 3), "{classes:?}");
            assert_eq!(classes[0]["class"], "interactive");
            assert!(classes[1]["late"].as_u64().unwrap() <= 3, "{classes:?}");
            break;
        }
        assert!(started.elapsed() < WAIT_MAX, "{classes:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("veltrix_class_events_total{class=\"relaxed\"} 3\n"), "{metrics}");
}
