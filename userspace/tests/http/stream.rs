//! What is shown as it happens: the stream, and the page that follows it.

use super::*;

/// Samples of a stream, from all its lines, until one is `last`.
fn samples_until(server: &Server, target: &str, play: impl FnOnce(), last: Value) -> Vec<Value> {
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream
        .write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("200"));
    // The head is there: what is applied from here on is sampled.
    assert!(lines.by_ref().any(|line| line.is_empty()));
    play();
    let mut samples: Vec<Value> = Vec::new();
    let (mut is_of_samples, started) = (false, Instant::now());
    for line in lines {
        assert!(started.elapsed() < WAIT_MAX, "no {last} in {samples:?}");
        if let Some(event) = line.strip_prefix("event: ") {
            is_of_samples = event == "samples";
        }
        let Some(data) = line.strip_prefix("data: ").filter(|_| is_of_samples) else { continue };
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["lost"], &data["left_out"]), (&json!(0), &json!(0)), "{data}");
        samples.extend(data["samples"].as_array().unwrap().iter().cloned());
        if samples.iter().any(|sample| sample["player"] == last) {
            return samples;
        }
    }
    panic!("the stream ended before {last}: {samples:?}");
}

#[test]
fn the_stream_shows_what_was_applied() {
    let server = Server::whole();
    server.play(42, &json!([spawn(3, json!({ "kind": "ticket", "reward": 50 }))]));
    let player = (1_u64 << 53) + 1;
    let mut epoch = 0;
    let play = || {
        let claim = json!({ "kind": "claim", "player": player, "subject": 3 });
        let rows = server.play(42, &json!([claim]));
        epoch = rows[0]["epoch"].as_u64().unwrap();
        let again =
            json!([{ "kind": "claim", "player": player, "subject": 3, "key": rows[0]["key"] }]);
        server.play(42, &again);
        server.play(7, &json!([{ "kind": "wallet-credit", "player": 1, "argument": 1 }]));
        server.play(42, &json!([{ "kind": "claim", "player": 9, "subject": 3 }]));
    };
    let samples = samples_until(&server, "/v1/stream", play, json!("9"));
    let seen: Vec<_> = samples
        .iter()
        .map(|s| {
            let words =
                ["hunt", "kind", "player", "subject", "outcome"].map(|name| s[name].as_str());
            (words.map(Option::unwrap), s["duplicate"].as_bool().unwrap())
        })
        .collect();
    let large = player.to_string();
    for wanted in [
        (["42", "claim", &large, "3", "applied"], false),
        (["42", "claim", &large, "3", "applied"], true),
        (["7", "wallet-credit", "1", "0", "applied"], false),
        (["42", "claim", "9", "3", "already-claimed"], false),
    ] {
        assert!(seen.contains(&wanted), "no {wanted:?} in {seen:?}");
    }
    // A retry may come late, and is a duplicate then.
    let new = seen.iter().filter(|(_, is_duplicate)| !is_duplicate).count();
    assert_eq!(new, 3, "what was applied before is not shown: {seen:?}");
    let of_claim = |is_duplicate: bool| {
        let is_it = |s: &&Value| s["player"] == large && s["duplicate"] == is_duplicate;
        samples.iter().find(is_it).unwrap()
    };
    let (first, again) = (of_claim(false), of_claim(true));
    assert_eq!(first["epoch"], epoch);
    assert_eq!(again["first_epoch"], epoch);
    assert!(again["epoch"].as_u64().unwrap() > epoch);
    let after = &first["after_sealed_ns"];
    let ages =
        ["submitted", "durable", "committed", "applied"].map(|name| after[name].as_u64().unwrap());
    assert!(ages.is_sorted() && ages[3] > 0 && first["age_ns"].is_u64(), "{first}");

    // One hunt alone.
    let play = || {
        server.play(7, &json!([{ "kind": "wallet-credit", "player": 1, "argument": 1 }]));
        server.play(42, &json!([{ "kind": "claim", "player": 10, "subject": 3 }]));
    };
    let samples = samples_until(&server, "/v1/stream?hunt=42", play, json!("10"));
    assert!(samples.iter().all(|s| s["hunt"] == "42"), "{samples:?}");
    server.is_refused("/v1/stream?hunt=x", 400, &["hunt is `x`"]);
    server.is_refused("/v1/stream?hunts=1", 400, &["`hunts`"]);
}

#[test]
fn browsers_get_the_page_and_others_the_routes() {
    let server = Server::whole();
    let html = [("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    let page = server.ask("GET", "/", &html, b"");
    assert_eq!(page.status, 200);
    for head in
        ["content-type: text/html", "vary: accept", "default-src 'none'", "script-src 'self'"]
    {
        assert!(page.head.contains(head), "{head}: {}", page.head);
    }
    let files: Vec<&str> = page.body.split('"').filter(|part| part.starts_with("/page/")).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let answer = server.get(file);
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{file}: {}", answer.head);
    }
    assert_eq!(server.get("/page/cities.csv").body, include_str!("../../data/cities.csv"));
    assert!(server.get("/page/page.js").head.contains("text/javascript"));
    server.is_refused("/page/none.js", 404, &["`none.js`"]);
    server.is_refused("/?hunt=1", 400, &["`hunt`"]);
    let any = server.ask("GET", "/", &[("Accept", "*/*")], b"");
    assert_eq!(any.json()["routes"].as_array().unwrap().len(), ROUTES.len());
}
