//! What Redis Streams make of the same events on the same two cores and disk:
//! `redis-server` of Debian with `appendonly yes` and `appendfsync always`, so
//! that an answer means what our durable ack means: on the disk.
//!
//! ```text
//!   connections x (depth commands written at once, then as many answers read)  -- unix socket --> redis-server
//!   command = XADD stream MAXLEN ~ 10000 * e EVENT
//! ```
//!
//! Redis flushes once for all commands that one pass of its loop took, so
//! many connections with deep pipelines are what it does best with; the best of
//! the shapes tried counts. The client writes prebuilt bytes and counts lines,
//! on the generator's core; `redis-benchmark` runs the best shape beside it, so
//! that a slow client would show.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use veltrix::base::cpu;
use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::wire::Mode;

use crate::bench::rig::{GENERATOR_CORE, POLLER_CORE};
use crate::swarm::traffic::{EVENTS_MAX, Envelope, Traffic, World};

/// Longest wait for a new server's socket.
const START_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long each shape is tried.
const TRY: Duration = Duration::from_millis(1_500);

/// How long the best one is measured, and `redis-benchmark` about as long.
const MEASURE: Duration = Duration::from_secs(3);

/// How often the two take turns.
const ROUNDS: usize = 3;

/// How the client uses Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Commands of a connection sent together.
    pub depth: usize,
    /// Streams the entries go to in turn.
    pub streams: usize,
    /// Events of an entry.
    pub events: usize,
}

/// One event an entry.
const SINGLE: &[Shape] = &[
    single(1, 1_000, 1),
    single(16, 100, 1),
    single(50, 100, 1),
    single(50, 100, 16),
    single(50, 1_000, 1),
    single(50, 1_000, 16),
    single(200, 100, 1),
    single(200, 400, 16),
];

const fn single(connections: usize, depth: usize, streams: usize) -> Shape {
    Shape { connections, depth, streams, events: 1 }
}

/// Many events an entry.
const BATCHED: &[Shape] =
    &[batched(4, 4, 1), batched(16, 4, 1), batched(50, 4, 1), batched(50, 16, 16)];

const fn batched(connections: usize, depth: usize, streams: usize) -> Shape {
    Shape { connections, depth, streams, events: 256 }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Events a second, one an entry, best shape.
    pub streams_events_per_s: f64,
    /// That shape.
    pub streams_shape: Shape,
    /// What `redis-benchmark` got with the same shape.
    pub benchmark_events_per_s: f64,
    /// Events a second, 256 an entry, best shape.
    pub batched_events_per_s: f64,
    /// That shape.
    pub batched_shape: Shape,
}

impl Numbers {
    /// How far our client is from `redis-benchmark`: 0.2 = 20 % slower.
    #[must_use]
    pub fn behind_benchmark(&self) -> f64 {
        1.0 - self.streams_events_per_s / self.benchmark_events_per_s
    }
}

/// Tries every shape and measures the best, in directories of its own under
/// `dir`; `say` gets a line a shape.
///
/// # Errors
///
/// No Redis on this machine, or it refuses a command.
pub fn measure(dir: &Path, say: &dyn Fn(&str)) -> Result<Numbers> {
    let (streams_shape, tried) = best(dir, SINGLE, say)?;
    // In turns, and the best of each: a disturbed second hits only one of them.
    let (mut streams_events_per_s, mut benchmark_events_per_s) = (tried, 0f64);
    let server = Server::start(dir)?;
    for _ in 0..ROUNDS {
        let rate = server.rate(streams_shape, MEASURE)?;
        streams_events_per_s = streams_events_per_s.max(rate);
        let rate = server.benchmark(streams_shape, streams_events_per_s)?;
        benchmark_events_per_s = benchmark_events_per_s.max(rate);
    }
    drop(server);
    let (batched_shape, tried) = best(dir, BATCHED, say)?;
    let batched_events_per_s = Server::start(dir)?.rate(batched_shape, MEASURE)?.max(tried);
    Ok(Numbers {
        streams_events_per_s,
        streams_shape,
        benchmark_events_per_s,
        batched_events_per_s,
        batched_shape,
    })
}

/// The best shape and its rate.
fn best(dir: &Path, shapes: &[Shape], say: &dyn Fn(&str)) -> Result<(Shape, f64)> {
    let mut best = (shapes[0], 0.0);
    for shape in shapes {
        // A server of its own: the log of the one before is gone with it.
        let rate = Server::start(dir)?.rate(*shape, TRY)?;
        say(&format!(
            "redis, {} events an entry: {:>3} connections, {:>4} deep, {:>2} streams: {:.0} events/s",
            shape.events, shape.connections, shape.depth, shape.streams, rate
        ));
        if rate > best.1 {
            best = (*shape, rate);
        }
    }
    Ok(best)
}

/// A `redis-server` of our own. Killed, and its directory removed, when dropped.
struct Server {
    child: Child,
    dir: PathBuf,
}

impl Server {
    fn start(under: &Path) -> Result<Self> {
        let dir = under.join("redis");
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let program = program(&dir).inspect_err(|_| drop(std::fs::remove_dir_all(&dir)))?;
        let socket = dir.join("sock");
        let child = Command::new("taskset")
            .args(["-c", &POLLER_CORE.to_string()])
            .arg(&program)
            .args(["--port", "0", "--unixsocket"])
            .arg(&socket)
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            // The log is written anew when it has doubled, as is its default.
            .args(["--daemonize", "no", "--logfile", "", "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("redis: `taskset` cannot be started: apt-get install util-linux")?;
        let mut server = Self { child, dir };
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("redis: {} ended with {status} before it served", program.display());
            }
            ensure!(
                started.elapsed() < START_WAIT_MAX,
                "redis: no socket after {START_WAIT_MAX:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Events a second that it acknowledges, over about `duration`.
    fn rate(&self, shape: Shape, duration: Duration) -> Result<f64> {
        let socket = self.socket();
        std::thread::scope(|scope| {
            let client = scope.spawn(move || {
                ensure!(cpu::pin_to(GENERATOR_CORE), "redis: core {GENERATOR_CORE}");
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .build()?;
                runtime.block_on(drive(&socket, shape, duration))
            });
            client.join().map_err(|_| anyhow::anyhow!("redis: the client panicked"))?
        })
    }

    /// Events a second by `redis-benchmark` in the same shape, for about
    /// [`MEASURE`] if it gets `rate`.
    fn benchmark(&self, shape: Shape, rate: f64) -> Result<f64> {
        let commands = (rate * MEASURE.as_secs_f64()) as u64;
        let value = "x".repeat(EVENT_FIXED_BYTES * shape.events);
        let output = Command::new("taskset")
            .args(["-c", &GENERATOR_CORE.to_string(), "redis-benchmark", "-s"])
            .arg(self.socket())
            .args(["-c", &shape.connections.to_string(), "-P", &shape.depth.to_string()])
            .args(["-n", &commands.to_string(), "-r", &shape.streams.to_string(), "--csv"])
            .args(["XADD", "s__rand_int__", "MAXLEN", "~", "10000", "*", "e", &value])
            .stdin(Stdio::null())
            .output()
            .context("redis: redis-benchmark cannot be started")?;
        // The last line is the command, then requests a second.
        let text = String::from_utf8_lossy(&output.stdout);
        let field = text.lines().last().and_then(|line| line.rsplit_once("\",\"").map(|_| line));
        let rps = field
            .and_then(|line| line.split("\",\"").nth(1))
            .and_then(|rps| rps.trim_matches('"').parse::<f64>().ok());
        rps.with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("redis: redis-benchmark said {text:?} {said:?}")
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone, which is what is wanted; what cannot
        // be removed stays in the directory of the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The server's executable. Debian's `redis-server` is a link to
/// `redis-check-rdb`, which looks at its name; the package with that link brings
/// a service as well, so without it the link is made here.
fn program(dir: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| {
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    };
    if let Some(server) = find("redis-server") {
        return Ok(server);
    }
    let checker = find("redis-check-rdb")
        .context("redis: no redis-server on PATH: apt-get install redis-tools")?;
    let link = dir.join("redis-server");
    symlink(&checker, &link).with_context(|| format!("link {}", link.display()))?;
    Ok(link)
}

/// Every connection writes its commands and waits for all answers, again and
/// again, until `duration` is over.
async fn drive(socket: &Path, shape: Shape, duration: Duration) -> Result<f64> {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..shape.connections {
        let mut stream = UnixStream::connect(socket).await.context("redis: connect")?;
        let commands = commands(shape, connection);
        tasks.spawn(async move {
            let mut answers = vec![0; 64 << 10];
            let mut entries = 0u64;
            while started.elapsed() < duration {
                let (mut reader, mut writer) = stream.split();
                let write = async { writer.write_all(&commands).await.context("redis: write") };
                let read = read_answers(&mut reader, shape.depth, &mut answers);
                tokio::try_join!(write, read)?;
                entries += shape.depth as u64;
            }
            anyhow::Ok(entries)
        });
    }
    let mut entries = 0;
    while let Some(done) = tasks.join_next().await {
        entries += done??;
    }
    Ok((entries * shape.events as u64) as f64 / started.elapsed().as_secs_f64())
}

/// Reads until `count` answers came. One to XADD is two lines: `$15`, and an id of
/// digits and a dash; anything with a letter is an error.
async fn read_answers(
    reader: &mut (impl AsyncRead + Unpin),
    count: usize,
    buffer: &mut [u8],
) -> Result<()> {
    let mut lines = 0;
    while lines < 2 * count {
        let bytes = reader.read(buffer).await.context("redis: read")?;
        ensure!(bytes > 0, "redis: it closed the connection");
        let answers = &buffer[..bytes];
        if answers.iter().any(u8::is_ascii_uppercase) {
            bail!("redis: it said {:?}", String::from_utf8_lossy(answers));
        }
        lines += answers.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(())
}

/// The commands that a connection sends together, with events as the swarm
/// makes them.
fn commands(shape: Shape, connection: usize) -> Vec<u8> {
    let world = World { hunts: 64, cells: 1_024, players: 4_096, seed: connection as u64 };
    let traffic = Traffic::Play { events: EVENTS_MAX as u8 };
    let envelope = Envelope { session: 1, sequence: 1, mode: Mode::Durable, key_ms: 1 };
    let mut datagram = [0; HEADER_BYTES + EVENTS_MAX * EVENT_FIXED_BYTES];
    let mut events = Vec::new();
    let mut out = Vec::new();
    for command in 0..shape.depth {
        let wanted = shape.events * EVENT_FIXED_BYTES;
        while events.len() < wanted {
            world.write(traffic, out.len() as u64, &envelope, &mut datagram);
            events.extend_from_slice(&datagram[HEADER_BYTES..]);
        }
        let entry: Vec<u8> = events.drain(..wanted).collect();
        let stream = format!("s{:012}", (connection + command) % shape.streams);
        let arguments: [&[u8]; 8] =
            [b"XADD", stream.as_bytes(), b"MAXLEN", b"~", b"10000", b"*", b"e", &entry];
        out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
        for argument in arguments {
            out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            out.extend_from_slice(argument);
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_redis_reads() {
        let out = commands(single(1, 3, 2), 1);
        let head = b"*8\r\n$4\r\nXADD\r\n$13\r\ns000000000001\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$5\r\n10000\r\n$1\r\n*\r\n$1\r\ne\r\n$48\r\n";
        assert_eq!(&out[..head.len()], head);
        assert_eq!(out.len(), 3 * (head.len() + 48 + 2));
        let batched = commands(batched(1, 2, 1), 0);
        assert_eq!(batched.len(), 2 * (head.len() + 3 + 256 * 48 + 2));
    }

    #[tokio::test]
    async fn answers_are_counted_and_errors_are_said() {
        let answers = b"$15\r\n1700000000000-0\r\n$15\r\n1700000000000-1\r\n";
        let mut buffer = [0; 16];
        read_answers(&mut &answers[..], 2, &mut buffer).await.unwrap();
        let closed = read_answers(&mut &answers[..], 3, &mut buffer).await.unwrap_err();
        assert!(closed.to_string().contains("closed"), "{closed}");
        let mut buffer = [0; 64];
        let error = read_answers(&mut &b"-OOM no\r\n"[..], 1, &mut buffer).await.unwrap_err();
        assert!(error.to_string().contains("OOM"), "{error}");
    }
}
