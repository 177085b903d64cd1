//! Whose hunts they are: quotas enforced, and shown where an operator looks.

use super::*;

/// Opens a hunt of a tenant, with a quota.
fn open(server: &Server, hunt: u64, setup: Value) {
    let rows = server.play(hunt, &json!([{ "kind": "hunt-open", "player": 0, "setup": setup }]));
    assert_eq!(rows[0]["outcome"], "applied", "{rows:?}");
}

/// Sends so many credits of one player; gives how many were over the quota.
fn flood(server: &Server, hunt: u64, events: usize) -> usize {
    let credit = json!({ "kind": "wallet-credit", "player": 1, "argument": 1 });
    let rows = server.play(hunt, &json!(vec![credit; events]));
    rows.iter().filter(|row| row["outcome"] == "over-quota").count()
}

/// The status once a walk has seen `done`.
fn status_when(server: &Server, done: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let status = server.page("/status");
        if done(&status["log"]["tenants"]) {
            return status;
        }
        assert!(started.elapsed() < WAIT_MAX, "{}", status["log"]["tenants"]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn row(tenants: &Value, tenant: &Value) -> Value {
    let rows = tenants["rows"].as_array().unwrap();
    rows.iter().find(|row| row["tenant"] == *tenant).cloned().unwrap_or_default()
}

#[test]
fn tenants_and_what_they_use_stand_in_the_status() {
    let server = Server::whole();
    let quota = json!({ "game": "free-roam", "tenant": 7, "events_per_s": 10, "cells_max": 100,
                        "players_max": 50 });
    // Hunts of tenant 7 lie in several partitions; tenant 9 keeps within no bound.
    for hunt in 1..=3 {
        open(&server, hunt, quota.clone());
    }
    open(&server, 4, json!({ "game": "free-roam", "tenant": 9 }));
    server.play(5, &json!([{ "kind": "wallet-credit", "player": 1, "argument": 1 }]));
    server.play(2, &json!([spawn(3, json!({ "kind": "ticket", "reward": 50 }))]));

    // However seconds of log time fall, 200 events are not 10 a second.
    let over = flood(&server, 1, 200);
    assert!(over > 0);
    assert_eq!(flood(&server, 4, 200), 0);
    // What is refused so is not remembered: whatever a client sends twice counts twice.
    let refused = || server.page("/v1/hunts/1")["over_quota"].as_u64().unwrap();
    let (seven, of_nine) = (json!(7), json!(9));
    let status = status_when(&server, |tenants| {
        row(tenants, &of_nine)["events"] == 201 && row(tenants, &seven)["over_quota"] == refused()
    });
    assert!(refused() >= over as u64);
    let tenants = &status["log"]["tenants"];
    let seven = row(tenants, &seven);
    assert_eq!(
        (&seven["hunts"], &seven["cells"], &seven["players"]),
        (&json!(3), &json!(1), &json!(1)),
        "{seven}"
    );
    assert_eq!(
        (&seven["cells_max"], &seven["players_max"], &seven["events_per_s_max"]),
        (&json!(300), &json!(150), &json!(30)),
        "{seven}"
    );
    let events = seven["events"].as_u64().unwrap();
    assert!(events >= 3 + 1 + 200 - over as u64, "opened, spawned, let in: {seven}");
    let nine = row(tenants, &of_nine);
    assert_eq!((&nine["over_quota"], &nine["cells_max"]), (&json!(0), &Value::Null), "{nine}");
    let nobody = row(tenants, &Value::Null);
    assert_eq!((&nobody["hunts"], &nobody["players"]), (&json!(1), &json!(1)), "{nobody}");
    assert!(tenants["age_ms"].is_u64() && tenants["others"] == 0, "{tenants}");
    assert_eq!(server.page("/v1/hunts/1")["tenant"], 7);

    // People read the same.
    let output = Command::new(env!("CARGO_BIN_EXE_veltrix"))
        .args(["status", "--control-socket", &server.folder.path("control.sock")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let of = |name: &str| {
        let mut lines = text.lines().skip_while(|line| !line.starts_with("tenant"));
        lines.find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"))
    };
    let line = of("7 ").replace(',', "");
    assert!(line.contains("1 of 300") && line.contains("1 of 150"), "{line}");
    assert!(line.trim_end().ends_with(&format!(" {}", refused())), "{line}");
    assert!(of("9 ").trim_end().ends_with(" 0") && of("nobody").contains(" 1 "), "{text}");
}

#[test]
fn the_events_a_second_of_a_tenant_are_those_of_now() {
    let server = Server::whole();
    open(&server, 1, json!({ "game": "free-roam", "tenant": 3 }));
    let three = json!(3);
    let is_seen = |tenants: &Value| row(tenants, &three)["events"] == 1;
    status_when(&server, is_seen);
    flood(&server, 1, 300);
    status_when(&server, |tenants| {
        let row = row(tenants, &three);
        row["events"] == 301 && row["events_per_s"].as_u64() > Some(0)
    });
    // Nothing more comes: the rate falls to nothing, the count stays.
    status_when(&server, |tenants| {
        let row = row(tenants, &three);
        row["events"] == 301 && row["events_per_s"] == 0
    });
}
