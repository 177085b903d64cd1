//! The page at `/` of the real server, in Chromium: what is claimed over UDP lights up
//! on the map and stands in the top ten, and what goes wrong is said.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use veltrix::cli::world::cities::morton;
use veltrix_client::{Client, Event, Hotspot, HotspotKind, Outcome};
use veltrix_tests::bench::service::{TempDir, binary};
use veltrix_tests::chromium::{Chromium, require};

const HUNT: u64 = 42;

/// One more than JavaScript's numbers tell apart.
const WINNER: u64 = (1 << 53) + 1;

/// Hotspots around the middle of Lisbon.
const CELLS: usize = 48;

/// A server on loopback; killed when dropped.
struct Server {
    child: Child,
    http: SocketAddr,
    udp: SocketAddr,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.0.join("data").display().to_string();
        let sizes = "--partitions 4 --segment-bytes 1048576 --segments 4 --cells-max 2000 \
                     --players-max 2000 --hunts-max 20 --dedupe-keys-max 10000 --dedupe-window 1h";
        let mut format = Command::new(binary().unwrap());
        format.args(["format", "--yes", "--data", &data]).args(sizes.split_whitespace());
        let formatted = format.output().unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let mut command = Command::new(binary().unwrap());
        command.args(["run", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", &data]);
        command.arg("--control-socket").arg(dir.0.join("control.sock"));
        command.current_dir(&dir.0).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (mut udp, mut http) = (None, None);
        let mut said = String::new();
        while http.is_none() {
            let Some(line) = lines.next() else {
                let _ = child.wait();
                panic!("the server ended:\n{said}");
            };
            if let Some((_, rest)) = line.split_once("serving UDP port ") {
                let address = rest.split(" on ").nth(1).unwrap();
                udp = Some(address.split(';').next().unwrap().parse().unwrap());
            }
            http = line.split_once("HTTP on http://").map(|(_, address)| address.parse().unwrap());
            said.push_str(&line);
            said.push('\n');
        }
        // Nobody reads on: a full pipe would stop the server.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, http: http.unwrap(), udp: udp.unwrap(), _dir: dir }
    }
}

/// Cell `n`: on a spiral, so that no two lie on each other.
fn cell(n: usize) -> u64 {
    let (angle, reach) = (n as f64 * 2.4, 0.011 * (n as f64 + 1.0).sqrt());
    morton(38.7167 + reach * angle.sin(), -9.1333 + reach * 1.28 * angle.cos())
}

/// Tickets and a few chests and items; who has come before claims some.
async fn set_up(client: &Client) {
    let hunt = client.domain(HUNT);
    for n in 0..CELLS {
        let (kind, item) = match n % 6 {
            1 => (HotspotKind::Item, 2),
            2 => (HotspotKind::Chest, 3),
            _ => (HotspotKind::Ticket, 0),
        };
        let hotspot = Hotspot { kind, item, remaining: 1, reward: 10 + n as u32, lifetime_s: 0 };
        let receipt = hunt.send(Event::spawn(1, cell(n), &hotspot).unwrap()).await.unwrap();
        assert_eq!(receipt.outcome, Outcome::Applied);
    }
    for n in (3..CELLS).filter(|n| n % 6 == 3 || n % 6 == 4) {
        let player = 100 + (n as u64 * 7) % 13;
        let receipt = hunt.send(Event::claim(player, cell(n))).await.unwrap();
        assert_eq!(receipt.outcome, Outcome::Applied);
    }
}

/// Where screenshots go: beside what cargo builds.
fn shots() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("page");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Colour of the map's ground in the middle of a cell, and the names of colours that
/// are the same.
fn colour_of(cell: u64) -> String {
    format!(
        "(() => {{
            const {{ map }} = window.veltrix;
            map.draw();
            const place = map.cells.get('{cell}');
            const [x, y] = map.at(place.u, place.v).map((v) => Math.round(v * devicePixelRatio));
            const seen = [...map.ground.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3);
            const style = getComputedStyle(document.documentElement);
            const is = (name) => {{
                const hex = style.getPropertyValue('--' + name).trim();
                return [1, 3, 5].every((at, i) => parseInt(hex.slice(at, at + 2), 16) === seen[i]);
            }};
            return ['item', 'chest', 'ticket', 'gone'].filter(is).join() || seen.join();
        }})()"
    )
}

#[test]
fn a_claim_lights_up_and_stands_in_the_top_ten() {
    if !require("a_claim_lights_up_and_stands_in_the_top_ten") {
        return;
    }
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(Client::connect(server.udp)).unwrap();
    runtime.block_on(set_up(&client));

    let mut page = Chromium::start().unwrap();
    page.dress((1440, 1180), true).unwrap();
    page.open(&format!("http://{}/#hunt={HUNT}", server.http)).unwrap();
    // Every cell is known, and what is applied from here on is heard of.
    page.until(&format!("veltrix.map.cells.size === {CELLS} && veltrix.map.isFitted")).unwrap();
    page.until(&format!("veltrix.watch.hunt === '{HUNT}'")).unwrap();
    // A disk that is busy elsewhere raises an alarm, which is none of this test.
    page.until("['live', 'alarm'].includes(document.getElementById('state').dataset.state)")
        .unwrap();
    assert_eq!(page.evaluate("document.querySelectorAll('#lights g').length").unwrap(), 0);
    let claimed = cell(0);
    assert_eq!(page.until(&colour_of(claimed)).unwrap(), "ticket");
    assert_eq!(page.evaluate(&colour_of(cell(1))).unwrap(), "item");
    assert_eq!(page.evaluate(&colour_of(cell(2))).unwrap(), "chest");
    assert_eq!(page.evaluate(&colour_of(cell(3))).unwrap(), "gone");

    // The winner claims enough to be the first, and somebody comes too late.
    let hunt = client.domain(HUNT);
    let mut score = 0;
    let free: Vec<usize> = (0..CELLS).filter(|n| n % 6 == 0 || n % 6 == 5).collect();
    for n in &free {
        let receipt = runtime.block_on(hunt.send(Event::claim(WINNER, cell(*n)))).unwrap();
        assert_eq!(receipt.outcome, Outcome::Applied);
        score += 10 + n;
    }
    let late = runtime.block_on(hunt.send(Event::claim(5, claimed))).unwrap();
    assert_eq!(late.outcome, Outcome::AlreadyClaimed);

    for n in &free {
        let cell = cell(*n);
        let light = format!("document.querySelector('#lights g[data-cell=\"{cell}\"]')");
        let player = page.until(&format!("{light}?.dataset.player")).unwrap();
        assert_eq!(player, WINNER.to_string());
    }
    let lights = page.evaluate("document.querySelectorAll('#lights g').length").unwrap();
    assert_eq!(lights, free.len());
    let said = "document.querySelector('#claims li[data-player=\"5\"]')?.dataset.outcome";
    assert_eq!(page.until(said).unwrap(), "already-claimed");
    // Told by the stream, and then by the cells themselves.
    let owner = format!("String(veltrix.map.cells.get('{claimed}').claimed_by)");
    assert_eq!(page.evaluate(&owner).unwrap(), WINNER.to_string());
    page.until(&format!(
        "'reward' in veltrix.map.cells.get('{claimed}') && {owner} === '{WINNER}'"
    ))
    .unwrap();
    page.until(&format!("({}) === 'gone'", colour_of(claimed))).unwrap();

    let first = "document.querySelector('#ranks li')";
    page.until(&format!("{first}?.dataset.player === '{WINNER}'")).unwrap();
    page.until(&format!("{first}?.dataset.score === '{score}'")).unwrap();
    assert!(
        page.evaluate("document.querySelectorAll('#ranks li').length").unwrap().as_u64()
            <= Some(10)
    );
    page.until("document.getElementById('closes').dataset.closes === 'true'").unwrap();
    // Lanes report their histograms once a second.
    page.until("document.getElementById('ns-max').textContent !== '–'").unwrap();
    page.until("document.getElementById('ns-p99').textContent !== '–'").unwrap();
    page.until("document.querySelector('#rate-graph path')").unwrap();
    page.until("/epoch [0-9,]+, age [0-9.]+/.test(document.getElementById('top-sub').textContent)")
        .unwrap();

    let dir = shots();
    page.screenshot(&dir.join("dark.png")).unwrap();
    page.dress((1440, 1180), false).unwrap();
    page.screenshot(&dir.join("light.png")).unwrap();
    page.dress((420, 2500), true).unwrap();
    page.screenshot(&dir.join("narrow.png")).unwrap();
    println!("screenshots in {}", dir.display());

    // Nothing of it was forbidden by the page's own policy, or failed.
    assert_eq!(page.complaints(), &[] as &[String]);
}

#[test]
fn what_goes_wrong_is_said() {
    if !require("what_goes_wrong_is_said") {
        return;
    }
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(Client::connect(server.udp)).unwrap();
    let mut page = Chromium::start().unwrap();
    page.dress((1440, 1180), true).unwrap();

    // Without a hunt: whatever is claimed, and where.
    page.open(&format!("http://{}/", server.http)).unwrap();
    page.until("veltrix.watch.hunt === null").unwrap();
    runtime.block_on(set_up(&client));
    page.until(&format!("document.querySelector('#ranks li[data-hunt=\"{HUNT}\"]')")).unwrap();
    assert_eq!(page.evaluate("document.getElementById('trouble').hidden").unwrap(), true);
    let dir = shots();
    page.screenshot(&dir.join("world.png")).unwrap();

    let trouble = |words: &str| {
        format!(
            "!document.getElementById('trouble').hidden && document.getElementById('trouble').textContent.includes({})",
            json!(words)
        )
    };
    page.evaluate("location.hash = 'hunt=43'").unwrap();
    page.until(&trouble("no hunt 43")).unwrap();
    page.evaluate("location.hash = 'hunt=x'").unwrap();
    page.until(&trouble("The hunt is `x`")).unwrap();
    page.evaluate(&format!("location.hash = 'hunt={}'", u128::from(u64::MAX) + 1)).unwrap();
    page.until(&trouble("18446744073709551616")).unwrap();
    page.evaluate(&format!("location.hash = 'hunt={HUNT}'")).unwrap();
    page.until("document.getElementById('trouble').hidden").unwrap();
    page.until("document.querySelector('#ranks li[data-score]')").unwrap();
    assert_eq!(page.complaints(), &[] as &[String]);

    drop(server);
    page.until("document.getElementById('state').dataset.state === 'away'").unwrap();
    page.until(&trouble("The server does not answer.")).unwrap();
    // What was known stays, and says how old it is.
    page.until("/ago/.test(document.getElementById('top-sub').textContent)").unwrap();
    page.screenshot(&dir.join("away.png")).unwrap();
    println!("screenshots in {}", dir.display());
}
