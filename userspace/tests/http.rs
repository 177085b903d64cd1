//! The HTTP server of the real binary: every route, every refusal, what is written
//! by one way and read by the other.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use veltrix::run::http::{BODY_BYTES_MAX, ROUTES};
use veltrix_client::{Client, Event, Hotspot, HotspotKind, Outcome};

#[path = "http/host.rs"]
mod host;
#[path = "http/hunts.rs"]
mod hunts;
#[path = "http/stream.rs"]
mod stream;
#[path = "http/tenants.rs"]
mod tenants;

const TOKEN: &str = "0123456789abcdef-test";

/// Longest wait for a server's words or a page.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A folder that goes away with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("veltrix-http-{}-{next}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("token"), format!("{TOKEN}\n")).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn format(&self) {
        let sizes = "--partitions 4 --segment-bytes 1048576 --segments 4 --cells-max 2000 \
                     --players-max 8000 --hunts-max 20 --dedupe-keys-max 10000 --dedupe-window 1h";
        let output = Command::new(env!("CARGO_BIN_EXE_veltrix"))
            .arg("format")
            .args(sizes.split_whitespace())
            .args(["--yes", "--data", &self.path("data")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn run(&self, more: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veltrix"));
        command
            .args(["run", "--listen", "127.0.0.1:0", "--control-socket"])
            .arg(self.path("control.sock"))
            .args(more)
            .envs(env.iter().copied())
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    http: SocketAddr,
    udp: SocketAddr,
    folder: Folder,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// With a log and a token.
    fn whole() -> Self {
        let folder = Folder::new();
        folder.format();
        let (data, token) = (folder.path("data"), folder.path("token"));
        Self::start(folder, &["--data", &data], &[("VELTRIX_HTTP_TOKEN_FILE", &token)])
    }

    fn start(folder: Folder, more: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = folder.run(&[&["--http", "127.0.0.1:0"], more].concat(), env);
        let mut child = command.spawn().unwrap();
        let (mut http, mut udp) = (None, None);
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while http.is_none() {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.wait();
                panic!("the server ended:\n{said}");
            };
            if let Some((_, address)) = line.split_once("HTTP on http://") {
                http = Some(address.parse().unwrap());
            }
            if let Some((_, rest)) = line.split_once("serving UDP port ") {
                let address = rest.split(" on ").nth(1).unwrap();
                udp = Some(address.split(';').next().unwrap().parse().unwrap());
            }
            said.push_str(&line);
            said.push('\n');
        }
        // Nobody reads on: a full pipe would stop the server.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, http: http.unwrap(), udp: udp.unwrap(), folder }
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.ask_as("localhost", method, target, headers, body)
    }

    /// As [`Self::ask`], by another name of the server.
    fn ask_as(
        &self,
        host: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a large body may close before it has all of it.
        let _ = stream.write_all(body);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], b"")
    }

    /// The JSON of a page that is there.
    fn page(&self, target: &str) -> Value {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        answer.json()
    }

    fn post(&self, body: &Value) -> Answer {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("Authorization", authorization.as_str())];
        self.ask("POST", "/v1/events", &headers, body.to_string().as_bytes())
    }

    /// Posts events that all get an outcome; gives the rows.
    fn play(&self, hunt: u64, events: &Value) -> Vec<Value> {
        let answer = self.post(&json!({ "hunt": hunt, "events": events }));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["results"].as_array().unwrap().clone()
    }

    fn is_refused(&self, target: &str, status: u16, words: &[&str]) {
        self.get(target).is_refusal(status, words, target);
    }

    fn sdk(&self) -> (tokio::runtime::Runtime, Client) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::connect(self.udp)).unwrap();
        (runtime, client)
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    #[track_caller]
    fn is_refusal(&self, status: u16, words: &[&str], what: &str) {
        assert_eq!(self.status, status, "{what}: {}", self.body);
        let body = self.json();
        let error = body["error"].as_str().unwrap();
        assert!(!body["mend"].as_str().unwrap().is_empty(), "{what}: {body}");
        for word in words {
            assert!(error.contains(word), "{what}: wanted {word} in {error}");
        }
    }
}

/// Code and words of a server that must not start.
fn refused_start(folder: &Folder, more: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let mut child = folder.run(more, env).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > WAIT_MAX {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn spawn(cell: u64, hotspot: Value) -> Value {
    json!({ "kind": "hotspot-spawn", "player": 1, "subject": cell, "hotspot": hotspot })
}

fn has_answer_of(page: &Value, epoch: u64) {
    assert!(page["epoch"].as_u64().unwrap() >= epoch, "{page}");
    assert!(page["age_ns"].is_u64(), "{page}");
}

#[test]
fn events_go_in_and_the_game_comes_out() {
    let server = Server::whole();
    // Cell 3 lies at x 1, y 1; cell 12 at x 2, y 2.
    let rows = server.play(
        42,
        &json!([
            spawn(3, json!({ "kind": "ticket", "reward": 50 })),
            spawn(12, json!({ "kind": "item", "item": 2, "remaining": 9, "reward": 5, "lifetime_s": 600 })),
            { "kind": "wallet-credit", "player": "7", "argument": "100" },
        ]),
    );
    assert!(rows.iter().all(|row| row["outcome"] == "applied"), "{rows:?}");
    let rows = server.play(
        42,
        &json!([
            { "kind": "claim", "player": 7, "subject": 3 },
            { "kind": "collect-item", "player": 8, "subject": 12 },
            { "kind": "wallet-transfer", "player": 7, "subject": 8, "argument": 30 },
            { "kind": "wallet-spend", "player": 9, "argument": 1 },
            { "kind": "claim", "player": 8, "subject": 99 },
        ]),
    );
    let outcomes: Vec<_> = rows.iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    let wanted = ["applied", "applied", "applied", "insufficient-funds", "not-found"];
    assert_eq!(outcomes, wanted);
    let epoch = rows[0]["epoch"].as_u64().unwrap();

    // The same key again: the same outcome, at the same epoch.
    let again = json!([{ "kind": "claim", "player": 7, "subject": 3, "key": rows[0]["key"] }]);
    let again = server.play(42, &again);
    assert_eq!((&again[0]["outcome"], &again[0]["duplicate"]), (&json!("applied"), &json!(true)));
    assert_eq!(again[0]["epoch"], epoch);

    let hunt = server.page(&format!("/v1/hunts/42?min_epoch={epoch}"));
    has_answer_of(&hunt, epoch);
    assert_eq!((&hunt["cells"], &hunt["ranked"]), (&json!(2), &json!(2)), "{hunt}");
    assert!(hunt["players"].as_u64().unwrap() >= 2 && hunt["score_epoch"].as_u64().unwrap() > 0);

    let player = server.page("/v1/hunts/42/players/7");
    has_answer_of(&player, epoch);
    assert_eq!((&player["wallet"], &player["score"]), (&json!(120), &json!(50)), "{player}");
    assert_eq!(player["rank"], 1);
    let player = server.page("/v1/players/8?hunt=42");
    assert_eq!((&player["wallet"], &player["inventory"][2]), (&json!(30), &json!(1)), "{player}");

    let board = server.page("/v1/hunts/42/leaderboard?from=1&limit=1");
    has_answer_of(&board, epoch);
    assert_eq!((&board["rows"][0]["player"], &board["next"]), (&json!(7), &json!(2)), "{board}");
    let board = server.page("/v1/hunts/42/leaderboard?from=2");
    assert_eq!((&board["rows"][0]["player"], &board["next"]), (&json!(8), &Value::Null), "{board}");
    let board = server.page("/v1/hunts/42/leaderboard?around=8&n=1");
    assert_eq!(board["rows"].as_array().unwrap().len(), 2, "{board}");

    let cells = server.page("/v1/hunts/42/cells?x=0,5&y=0,5");
    has_answer_of(&cells, epoch);
    let cells = cells["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 2);
    assert_eq!((&cells[0]["cell"], &cells[0]["claimed_by"]), (&json!(3), &json!(7)), "{cells:?}");
    let second = &cells[1];
    assert_eq!(
        (&second["x"], &second["y"], &second["kind"]),
        (&json!(2), &json!(2), &json!("item"))
    );
    assert!(second["expiry_s"].as_u64().unwrap() > 1_700_000_000, "{second}");
    let page = server.page("/v1/cells?hunt=42&bbox=0,0,5,5&limit=1");
    assert_eq!((&page["cells"][0]["cell"], &page["next"]), (&json!(3), &json!(12)), "{page}");
    let page = server.page("/v1/cells?hunt=42&bbox=0,0,5,5&from=12");
    assert_eq!((&page["cells"][0]["cell"], &page["next"]), (&json!(12), &Value::Null), "{page}");
    let page = server.page("/v1/hunts/42/cells?x=2,2");
    assert_eq!(page["cells"].as_array().unwrap().len(), 1, "{page}");

    let near = server.page("/v1/hunts/42/nearest?cell=13&limit=1");
    has_answer_of(&near, epoch);
    assert_eq!(near["cells"][0]["cell"], 12, "{near}");
    let cell = server.page("/v1/hunts/42/cells/12");
    has_answer_of(&cell, epoch);
    assert_eq!((&cell["hunt"], &cell["remaining"]), (&json!(42), &json!(8)), "{cell}");
}

#[test]
fn both_ways_lead_to_the_same_state() {
    let server = Server::whole();
    let (runtime, client) = server.sdk();
    let hunt = client.domain(5);
    let ticket =
        Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 9, lifetime_s: 0 };
    let receipt = runtime.block_on(hunt.send(Event::spawn(1, 77, &ticket).unwrap())).unwrap();
    assert_eq!(receipt.outcome, Outcome::Applied);
    let rows = server.play(5, &json!([{ "kind": "claim", "player": 3, "subject": 77 }]));
    assert_eq!(rows[0]["outcome"], "applied");
    let receipt = runtime.block_on(hunt.send(Event::claim(4, 77))).unwrap();
    assert_eq!(receipt.outcome, Outcome::AlreadyClaimed);
    let epoch = rows[0]["epoch"].as_u64().unwrap();
    let row = runtime.block_on(hunt.at_least(epoch).player(3)).unwrap();
    let page = server.page(&format!("/v1/hunts/5/players/3?min_epoch={epoch}"));
    assert_eq!(page["wallet"], row.value.unwrap().wallet);

    // Many hunts over all partitions, and the largest request.
    for hunt in 100..110 {
        let events: Vec<_> = (1..=20)
            .map(|player| json!({ "kind": "wallet-credit", "player": player, "argument": hunt }))
            .collect();
        server.play(hunt, &json!(events));
        assert_eq!(server.page(&format!("/v1/hunts/{hunt}"))["players"], 20);
        assert_eq!(server.page(&format!("/v1/hunts/{hunt}/players/20"))["wallet"], hunt);
    }
    let events: Vec<_> = (1..=500)
        .map(|player| json!({ "kind": "wallet-credit", "player": player, "argument": 1 }))
        .collect();
    let rows = server.play(110, &json!(events));
    assert!(rows.iter().all(|row| row["outcome"] == "applied"));
    assert_eq!(server.page("/v1/hunts/110")["players"], 500);
}

#[test]
fn operators_and_their_tools_are_answered() {
    let server = Server::whole();
    server.play(1, &json!([{ "kind": "wallet-credit", "player": 1, "argument": 1 }]));
    assert_eq!(server.page("/livez"), json!({ "live": true }));
    assert_eq!(server.page("/readyz")["ready"], true);
    let routes = server.page("/");
    assert_eq!(routes["routes"].as_array().unwrap().len(), ROUTES.len());

    let status = server.page("/status");
    let cli = Command::new(env!("CARGO_BIN_EXE_veltrix"))
        .args(["status", "--json", "--control-socket", &server.folder.path("control.sock")])
        .output()
        .unwrap();
    let cli: Value = serde_json::from_slice(&cli.stdout).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&status), keys(&cli));
    assert_eq!(status["pid"], cli["pid"]);
    assert_eq!(status["events"]["applied"], 1);

    let consistency = server.page("/consistency");
    let committed = consistency["committed_epoch"].as_u64().unwrap();
    assert!(committed > 0 && consistency["log_time_ns"].as_u64().unwrap() > 1 << 60);
    assert_eq!(consistency["lanes"].as_array().unwrap().len(), 1, "{consistency}");
    assert_eq!(consistency["lanes"][0]["partitions"], 4);
    assert!(consistency["lanes"][0]["applied_epoch"].as_u64().unwrap() <= committed);
    assert!(consistency["age_ns"].is_u64());

    let metrics = server.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    let documented = fs::read_to_string("docs/METRICS.md").unwrap();
    for line in metrics.body.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(documented.contains(&format!("| `{name}` |")), "{name}");
    }
    assert!(metrics.body.contains("veltrix_events_total{outcome=\"applied\"} 1\n"));
    assert!(metrics.body.contains("veltrix_log_ready 1\n"));
}

#[test]
fn the_stream_tells_once_a_second() {
    let server = Server::whole();
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream.write_all(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("200"));
    assert!(lines.by_ref().any(|line| line.to_lowercase() == "content-type: text/event-stream"));
    server.play(1, &json!([{ "kind": "wallet-credit", "player": 1, "argument": 1 }]));
    let mut data = lines
        .filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .map(|data| serde_json::from_str::<Value>(&data).unwrap());
    let told = data.by_ref().take(5).find(|told| told["events"]["applied"] == 1);
    let told = told.expect("the event in one of the lines");
    assert!(told["epoch"].as_u64().unwrap() > 0 && told["committed_epoch"].is_u64(), "{told}");
    // Told once.
    assert_eq!(data.next().unwrap()["events"], json!({}));
}

#[test]
fn reads_that_make_no_sense_are_refused_by_name() {
    let server = Server::whole();
    server.play(42, &json!([{ "kind": "wallet-credit", "player": 1, "argument": 1 }]));
    let past = 1_u64 << 30;
    for (target, status, words) in [
        ("/v1/hunts/43", 404, &["no hunt 43"][..]),
        ("/v1/hunts/43/players/1", 404, &["no hunt 43"]),
        ("/v1/hunts/43/leaderboard", 404, &["no hunt 43"]),
        ("/v1/hunts/42/players/99", 404, &["no player 99"]),
        ("/v1/hunts/42/cells/5", 404, &["no cell 5"]),
        ("/v1/hunts/42/leaderboard?around=1", 404, &["score", "1"]),
        ("/v1/nothing", 404, &["/v1/nothing"]),
        ("/v1/hunts/", 404, &["/v1/hunts/"]),
        ("/v1/hunts/x", 400, &["hunt", "`x`"]),
        ("/v1/hunts/-1", 400, &["hunt", "`-1`"]),
        ("/v1/hunts/%FF", 400, &[]),
        ("/v1/hunts/18446744073709551616", 400, &["18446744073709551615"]),
        ("/v1/hunts/42/players/1.5", 400, &["player", "`1.5`"]),
        ("/v1/players/1", 400, &["hunt is missing"]),
        ("/v1/hunts/42/players/1?hunt=42", 400, &["in the path and in the query"]),
        ("/v1/cells?bbox=0,0,1,1", 400, &["hunt is missing"]),
        ("/v1/hunts/42/leaderboard?limit=0", 400, &["limit is `0`", "1 to 100"]),
        ("/v1/hunts/42/leaderboard?limit=101", 400, &["limit is `101`", "1 to 100"]),
        ("/v1/hunts/42/leaderboard?limit=", 400, &["limit is ``"]),
        ("/v1/hunts/42/leaderboard?from=0", 400, &["from is `0`"]),
        ("/v1/hunts/42/leaderboard?from=4294967296", 400, &["from"]),
        ("/v1/hunts/42/leaderboard?around=1&n=50", 400, &["n is `50`", "0 to 49"]),
        ("/v1/hunts/42/leaderboard?around=1&from=2", 400, &["around and from"]),
        ("/v1/hunts/42/leaderboard?n=2", 400, &["n goes with around"]),
        ("/v1/hunts/42/leaderboard?limt=2", 400, &["`limt`"]),
        ("/v1/hunts/42/leaderboard?limit=2&limit=3", 400, &["twice"]),
        ("/v1/hunts/42/nearest", 400, &["cell is missing"]),
        ("/v1/hunts/42/nearest?cell=1&limit=0", 400, &["limit is `0`"]),
        ("/v1/hunts/42/nearest?cell=1&limit=101", 400, &["limit is `101`"]),
        ("/v1/hunts/42/nearest?cell=1152921504606846976", 400, &["cell", "1152921504606846975"]),
        ("/v1/hunts/42/cells?x=9,3", 400, &["inverted", "`9,3`", "x"]),
        ("/v1/hunts/42/cells?y=9,3", 400, &["inverted", "y"]),
        ("/v1/hunts/42/cells?bbox=0,9,5,3", 400, &["inverted", "y from 9 down to 3"]),
        ("/v1/hunts/42/cells?x=NaN,3", 400, &["`NaN`", "whole number"]),
        ("/v1/hunts/42/cells?x=1e3,3", 400, &["`1e3`"]),
        ("/v1/hunts/42/cells?x=1", 400, &["MIN,MAX"]),
        ("/v1/hunts/42/cells?bbox=1,2,3", 400, &["X_MIN,Y_MIN,X_MAX,Y_MAX"]),
        ("/v1/hunts/42/cells?bbox=1,2,3,4&x=1,2", 400, &["bbox contradicts"]),
        (&format!("/v1/hunts/42/cells?x=0,{past}"), 400, &["1073741823"]),
        ("/v1/hunts/42?min_epoch=999999", 503, &["min_epoch is 999999"]),
        ("/v1/hunts?min_epoch=999999", 503, &["min_epoch is 999999"]),
        ("/v1/hunts?tenant=x", 400, &["tenant is `x`"]),
        ("/v1/hunts?tenant=4294967296", 400, &["4294967295"]),
        ("/v1/hunts?limit=0", 400, &["limit is `0`", "1 to 100"]),
        ("/v1/hunts?limit=101", 400, &["limit is `101`"]),
        ("/v1/hunts?from=262144", 400, &["from is `262144`", "0 to 262143"]),
        ("/v1/hunts?hunt=1", 400, &["`hunt`"]),
        ("/status?verbose=1", 400, &["`verbose`"]),
    ] {
        server.is_refused(target, status, words);
    }
    assert!(server.get("/v1/hunts/42?min_epoch=999999").head.contains("retry-after: 1"));
    server.ask("POST", "/v1/hunts/42", &[], b"").is_refusal(405, &["POST"], "POST on a read");
    server.ask("DELETE", "/livez", &[], b"").is_refusal(405, &["DELETE"], "DELETE");
    server.get("/v1/events").is_refusal(405, &["GET"], "GET of events");
}

#[test]
fn writes_that_make_no_sense_are_refused_by_name() {
    let server = Server::whole();
    let claim = json!({ "kind": "claim", "player": 7, "subject": 3 });
    let with = |name: &str, value: Value| {
        let mut event = claim.clone();
        event[name] = value;
        json!({ "hunt": 1, "events": [claim, event] })
    };
    for (body, words) in [
        (json!([]), &["the body is a list"][..]),
        (json!({ "events": [claim] }), &["no hunt"]),
        (json!({ "hunt": -1, "events": [claim] }), &["hunt is `-1`"]),
        (json!({ "hunt": 1 }), &["no events"]),
        (json!({ "hunt": 1, "events": [] }), &["0 events", "1 to 500"]),
        (json!({ "hunt": 1, "events": vec![claim.clone(); 501] }), &["501 events"]),
        (json!({ "hunt": 1, "events": 3 }), &["events is `3`"]),
        (json!({ "hunt": 1, "event": [claim] }), &["no field `event`"]),
        (json!({ "hunt": 1, "events": [{ "kind": "claim", "subject": 3 }] }), &["no player"]),
        (json!({ "hunt": 1, "events": [{ "kind": "claim", "player": 3 }] }), &["no subject"]),
        (json!({ "hunt": 1, "events": [7] }), &["events[0] is `7`"]),
        (with("kind", json!("clam")), &["events[1].kind", "`clam`", "hotspot-spawn", "claim"]),
        (with("kind", json!(4)), &["events[1].kind", "`4`"]),
        (with("player", json!(1.5)), &["events[1].player", "`1.5`"]),
        (with("player", json!("x")), &["events[1].player", "`x`"]),
        (with("player", json!("")), &["events[1].player", "``"]),
        (with("subject", json!(1_u64 << 60)), &["events[1].subject", "1152921504606846975"]),
        (with("argument", json!(null)), &["events[1].argument", "`null`"]),
        (with("key", json!("x")), &["events[1].key", "UUID of version 7"]),
        (with("key", json!("c232ab00-9414-11ec-b3c8-9f6bdeced846")), &["events[1].key"]),
        (with("colour", json!(1)), &["events[1] has no field `colour`"]),
        (with("hotspot", json!({ "kind": "item" })), &["claim and has a hotspot"]),
        (with("kind", json!("hotspot-spawn")), &["events[1] has no hotspot"]),
        (
            json!({ "hunt": 1, "events": [spawn(3, json!({ "kind": "tomb" }))] }),
            &["events[0].hotspot.kind", "`tomb`", "ticket"],
        ),
        (
            json!({ "hunt": 1, "events": [spawn(3, json!({ "kind": "item", "item": 8 }))] }),
            &["events[0].hotspot.item", "0 to 7"],
        ),
        (
            json!({ "hunt": 1, "events": [spawn(3, json!({ "kind": "ticket", "remaining": 2 }))] }),
            &["events[0].hotspot cannot be"],
        ),
    ] {
        server.post(&body).is_refusal(400, words, &body.to_string());
    }
    let bearer = format!("Bearer {TOKEN}");
    let with_token = [("Authorization", bearer.as_str())];
    let not_json = server.ask("POST", "/v1/events", &with_token, b"{\"hunt\"");
    not_json.is_refusal(400, &["not JSON"], "half an object");
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    let answer = server.ask("POST", "/v1/events", &with_token, &large);
    answer.is_refusal(413, &["262144"], "a large body");

    let body = json!({ "hunt": 1, "events": [claim] }).to_string();
    let answer = server.ask("POST", "/v1/events", &[], body.as_bytes());
    answer.is_refusal(401, &["no token"], "no token");
    assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
    let wrong = [("Authorization", "Bearer 0123456789abcdef-tesT")];
    let answer = server.ask("POST", "/v1/events", &wrong, body.as_bytes());
    answer.is_refusal(401, &["wrong token"], "a wrong token");
}

#[test]
fn without_a_token_nothing_is_written_and_without_a_log_nothing_is_read() {
    let folder = Folder::new();
    folder.format();
    let data = folder.path("data");
    let server = Server::start(folder, &["--data", &data], &[]);
    let answer = server.ask("POST", "/v1/events", &[], b"{}");
    answer.is_refusal(403, &["no token"], "no token file");
    assert!(answer.json()["mend"].as_str().unwrap().contains("http.token_file"));
    assert_eq!(server.page("/readyz")["ready"], true);
    drop(server);

    let server = Server::start(Folder::new(), &[], &[]);
    assert_eq!(server.page("/livez"), json!({ "live": true }));
    server.is_refused("/readyz", 503, &["not ready", "keeps no state"]);
    for target in
        ["/v1/hunts", "/v1/hunts/1", "/v1/hunts/1/leaderboard", "/consistency", "/v1/stream"]
    {
        server.is_refused(target, 501, &["keeps no state"]);
    }
    assert_eq!(server.page("/status")["log"], Value::Null);
    assert!(server.get("/metrics").body.contains("veltrix_frames_total{lane=\"0\"} 0\n"));
}

#[test]
fn beyond_loopback_reads_need_the_token_too() {
    let folder = Folder::new();
    let token = folder.path("token");
    let mut command =
        folder.run(&["--http", "0.0.0.0:0"], &[("VELTRIX_HTTP_TOKEN_FILE", token.as_str())]);
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let port = lines
        .filter_map(|line| line.split_once("HTTP on http://0.0.0.0:")?.1.parse::<u16>().ok())
        .next()
        .unwrap();
    let server = Server {
        child,
        http: SocketAddr::from(([127, 0, 0, 1], port)),
        udp: SocketAddr::from(([127, 0, 0, 1], 0)),
        folder,
    };
    assert_eq!(server.get("/livez").status, 200);
    // The page holds nothing, and asks for the token itself.
    assert_eq!(server.get("/page/page.js").status, 200);
    server.is_refused("/v1/stream", 401, &["no token"]);
    server.is_refused("/status", 401, &["no token"]);
    let bearer = format!("Bearer {TOKEN}");
    let answer = server.ask("GET", "/status", &[("Authorization", &bearer)], b"");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_start_that_cannot_serve_says_what_mends_it() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = refused_start(&folder, &["--http", &address], &[]);
    assert!(code != 0 && said.contains("http.listen") && said.contains(&address), "{said}");

    let (code, said) = refused_start(&folder, &["--http", "0.0.0.0:4780"], &[]);
    assert!(code != 0 && said.contains("http.token_file"), "{said}");
    let (code, said) = refused_start(&folder, &["--http", "localhost:4780"], &[]);
    assert!(code != 0 && said.contains("http.listen"), "{said}");

    let short = folder.path("short");
    fs::write(&short, "secret\n").unwrap();
    for (file, words) in [(short, "6 bytes, wanted 16"), (folder.path("none"), "No such file")] {
        let env = [("VELTRIX_HTTP_TOKEN_FILE", file.as_str())];
        let (code, said) = refused_start(&folder, &["--http", "127.0.0.1:0"], &env);
        assert!(code != 0 && said.contains("http.token_file") && said.contains(words), "{said}");
    }
}

#[test]
fn the_page_names_every_route() {
    let page = fs::read_to_string("docs/HTTP.md").unwrap();
    for (method, path, _) in ROUTES {
        assert!(page.contains(&format!("`{method} {path}")), "{method} {path}");
    }
}
