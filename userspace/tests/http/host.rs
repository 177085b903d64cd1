//! By which names a server on loopback may be asked: a web page from elsewhere can have
//! its own name lead here.

use super::*;

#[test]
fn names_of_others_are_refused_on_every_route() {
    let server = Server::whole();
    let bearer = format!("Bearer {TOKEN}");
    let with_token = [("Authorization", bearer.as_str())];
    let credit =
        json!({ "hunt": 1, "events": [{ "kind": "wallet-credit", "player": 1, "argument": 1 }] });
    let credit = credit.to_string();
    for (method, path, _) in ROUTES {
        let target = path.replace("{hunt}", "1").replace("{player}", "1").replace("{cell}", "1");
        let target = target.replace("{file}", "page.js");
        let body = if *method == "POST" { credit.as_bytes() } else { b"" };
        let answer = server.ask_as("evil.example:4780", method, &target, &with_token, body);
        answer.is_refusal(421, &["Host", "`evil.example:4780`"], &target);
        assert!(answer.json()["mend"].as_str().unwrap().contains("http.names"));
    }
    for host in ["localhost.evil.example", "127.0.0.1.evil.example", "", "evil.localhost"] {
        let answer = server.ask_as(host, "GET", "/livez", &[], b"");
        answer.is_refusal(421, &["Host"], host);
    }
    let answer = server.ask("GET", "http://evil.example/livez", &[], b"");
    answer.is_refusal(421, &["`evil.example`"], "a whole target");
    // Nothing of it was applied.
    server.is_refused("/v1/hunts/1", 404, &["no hunt 1"]);
}

#[test]
fn addresses_localhost_and_configured_names_are_answered() {
    let given =
        Server::start(Folder::new(), &[], &[("VELTRIX_HTTP_NAMES", "Game.example, b.example")]);
    let plain = Server::start(Folder::new(), &[], &[]);
    let address = plain.http.to_string();
    for host in ["localhost", "LOCALHOST:4780", "127.0.0.1", &address, "[::1]:4780", "10.0.0.9"] {
        for server in [&given, &plain] {
            assert_eq!(server.ask_as(host, "GET", "/livez", &[], b"").status, 200, "{host}");
        }
    }
    for host in ["game.example", "game.example:80", "B.EXAMPLE"] {
        assert_eq!(given.ask_as(host, "GET", "/livez", &[], b"").status, 200, "{host}");
        assert_eq!(plain.ask_as(host, "GET", "/livez", &[], b"").status, 421, "{host}");
    }
    assert_eq!(given.ask_as("c.example", "GET", "/livez", &[], b"").status, 421);
}
