//! `veltrix world` against the real server on loopback: what it loads, over a way
//! that loses, doubles and delays; what it refuses.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use veltrix::cli::world::generator::{HuntKeys, Phase, Plan, World};
use veltrix_abi::query::Wanted;
use veltrix_client::codec::Random;
use veltrix_client::{Client, Rows};

const ARGS: &str = "--cells 5k --hunts 30 --players 2k --seed 11 --partitions 4";

/// Longest wait for a count.
const WAIT_MAX: Duration = Duration::from_secs(20);

fn world() -> World {
    let plan = Plan {
        cells: 5_000,
        hunts: 30,
        players: 2_000,
        seed: 11,
        first_hunt: 1,
        hunt_keys: HuntKeys::Even,
        partitions: 4,
    };
    World::new(plan).unwrap()
}

fn veltrix(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veltrix"));
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn finished(line: &str) -> Output {
    veltrix(line).output().unwrap()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// A running server with a log; killed when dropped, its folder removed.
struct Server {
    child: Child,
    udp: SocketAddr,
    folder: PathBuf,
}

impl Server {
    fn start(capacities: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("veltrix-world-{}-{next}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let data = folder.join("data").display().to_string();
        let sizes =
            "--partitions 4 --segment-bytes 1048576 --segments 8 --dedupe-keys-max 100000 --yes";
        let formatted = finished(&format!("format --data {data} {sizes} {capacities}"));
        assert!(formatted.status.success(), "{formatted:?}");
        let mut child =
            veltrix(&format!("run --listen 127.0.0.1:0 --data {data} --control-socket"))
                .arg(folder.join("control.sock"))
                .current_dir(&folder)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let udp = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server ended:\n{said}") };
            if let Some((_, rest)) = line.split_once("serving UDP port ") {
                let address = rest.split(" on ").nth(1).unwrap();
                break address.split(';').next().unwrap().parse().unwrap();
            }
            said.push_str(&line);
        };
        // Nobody reads on: a full pipe would stop the server.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, udp, folder }
    }

    fn roomy() -> Self {
        Self::start("--cells-max 6000 --players-max 3000 --hunts-max 30")
    }

    /// Events that the rules let through, once there are `wanted`: lanes say it
    /// once a second.
    fn applied(&self, wanted: u64) -> u64 {
        let socket = self.folder.join("control.sock").display().to_string();
        let started = Instant::now();
        loop {
            let status = json(&finished(&format!("status --json --control-socket {socket}")));
            let applied = status["log"]["judged"]["applied"].as_u64().unwrap_or(0);
            if applied >= wanted || started.elapsed() > WAIT_MAX {
                return applied;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Stands between one client and the server, and loses one datagram in six, and
/// doubles one in six, either way.
struct Lossy {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Lossy {
    fn before(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").unwrap();
        back.connect(server).unwrap();
        let addr = front.local_addr().unwrap();
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        }
        let (stop, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, lost) = (stop.clone(), lost.clone());
            move || {
                let mut random = Random::new(5);
                let mut buffer = [0; 4_096];
                let mut client = None;
                let mut times = || match random.below(6) {
                    0 => {
                        lost.fetch_add(1, Ordering::Relaxed);
                        0
                    }
                    1 => 2,
                    _ => 1,
                };
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((bytes, from)) = front.recv_from(&mut buffer) {
                        client = Some(from);
                        (0..times()).for_each(|_| drop(back.send(&buffer[..bytes])));
                    }
                    if let (Ok(bytes), Some(client)) = (back.recv(&mut buffer), client) {
                        (0..times()).for_each(|_| drop(front.send_to(&buffer[..bytes], client)));
                    }
                }
            }
        });
        Self { addr, stop, lost, thread: Some(thread) }
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the way panicked");
    }
}

/// Reads every player and some cells; each must be as the world has it.
fn holds(server: &Server, world: &World, epoch: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(server.udp).await.unwrap();
        for (index, hunt) in world.hunts().iter().enumerate() {
            let domain = client.domain(hunt.key).at_least(epoch);
            let summary = domain.query(&[Wanted::Hunt]).await.unwrap();
            let Rows::Hunt(Some(row)) = summary.value[0] else { panic!("{summary:?}") };
            let wanted = Phase::ALL.map(|phase| world.count_in(phase, index) as u32);
            assert_eq!([row.cells, row.players, row.ranked], wanted, "{hunt:?}");
            for n in 0..world.count_in(Phase::Credits, index) {
                let event = world.event_in(Phase::Credits, index, n);
                let player = domain.player(event.player).await.unwrap().value.unwrap();
                assert_eq!(player.wallet, event.argument, "credited once: {event:?}");
            }
            for n in 0..world.count_in(Phase::Items, index) {
                let event = world.event_in(Phase::Items, index, n);
                let player = domain.player(event.player).await.unwrap().value.unwrap();
                assert_eq!(player.inventory.iter().sum::<u16>(), 1, "{event:?}");
                let cell = domain.cell(event.subject).await.unwrap().value.unwrap();
                assert_eq!(u64::from(cell.reward), player.score, "{event:?}");
            }
        }
    });
}

#[test]
fn a_world_is_loaded_whole_and_once() {
    let (server, world) = (Server::roomy(), world());
    let load = format!("world {ARGS} --json --to {}", server.udp);
    let output = finished(&load);
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    let loaded = &report["loaded"];
    for phase in Phase::ALL {
        let applied = loaded["outcomes"][phase.label()]["applied"].as_u64();
        assert_eq!(applied, Some(world.count(phase)), "{report}");
    }
    assert_eq!((&loaded["refused"], &loaded["hunts_short"]), (&0.into(), &0.into()), "{report}");
    assert_eq!(server.applied(world.events()), world.events());
    holds(&server, &world, loaded["epoch"].as_u64().unwrap());

    // A second time is refused before anything is sent.
    let again = finished(&load);
    let words = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{words}");
    assert!(words.contains("already") && words.contains("--first-hunt"), "{words}");
    assert_eq!(server.applied(world.events()), world.events());
}

#[test]
fn a_bad_way_changes_nothing_of_it() {
    let (server, world) = (Server::roomy(), world());
    let way = Lossy::before(server.udp);
    let output = finished(&format!("world {ARGS} --json --connections 1 --to {}", way.addr));
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert!(way.lost.load(Ordering::Relaxed) > 0 && report["loaded"]["retries"].as_u64() > Some(0));
    let written = json(&finished(&format!("world {ARGS} --json --write /dev/null")));
    assert_eq!(written["checksum"], report["checksum"]);
    // Retried and doubled events were decided once each.
    assert_eq!(server.applied(world.events()), world.events());
    holds(&server, &world, report["loaded"]["epoch"].as_u64().unwrap());
}

#[test]
fn what_finds_no_room_is_counted_and_the_cure_is_one_that_cures() {
    let small = Server::start("--cells-max 4000 --players-max 3000 --hunts-max 30");
    let output = finished(&format!("world {ARGS} --to {}", small.udp));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(out.contains("full") && err.contains("hotspots `full`"), "{out}{err}");
    let (_, cure) = err.split_once("veltrix format --data DIR --partitions 4 ").unwrap();
    let server = Server::start(cure.lines().next().unwrap());
    let output = finished(&format!("world {ARGS} --json --to {}", server.udp));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output)["loaded"]["refused"], 0);
}

#[test]
fn a_server_without_a_log_and_none_at_all_are_told_apart() {
    let socket = std::env::temp_dir().join(format!("veltrix-world-{}.sock", std::process::id()));
    let mut child = veltrix("run --listen 127.0.0.1:0 --control-socket")
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, rest)) = line.split_once("serving UDP port ") {
            break rest.split(" on ").nth(1).unwrap().split(';').next().unwrap().to_owned();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    let logless = finished(&format!("world {ARGS} --to {address}"));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(&socket).unwrap();
    assert_eq!(logless.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&logless.stderr).contains("veltrix format"), "{logless:?}");
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = finished(&format!("world {ARGS} --to {}", nobody.local_addr().unwrap()));
    assert_eq!(silent.status.code(), Some(10), "{silent:?}");
}

#[test]
fn a_printed_world_can_be_compared() {
    let world = world();
    let printed = finished(&format!("world {ARGS} --print"));
    assert!(printed.status.success(), "{printed:?}");
    let lines = printed.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(lines, 1 + world.events());
    let sum = format!("{:032x}", veltrix::cli::world::file::checksum(&world));
    assert!(String::from_utf8_lossy(&printed.stderr).contains(&sum));
    assert_eq!(finished(&format!("world {ARGS} --print")).stdout, printed.stdout);
    let other = finished(&format!("world {} --print", ARGS.replace("11", "12")));
    assert_ne!(other.stdout, printed.stdout);
}
