//! The network lab: two network namespaces joined by a veth pair, a packet
//! generator on one side and whatever is under test on the other.
//!
//! ```text
//!   namespace "client" 10.77.0.2 fd77::2            namespace "server" 10.77.0.1 fd77::1
//!   Generator -> XDP redirect -> veltrix-c =========== veltrix-s <- XDP program under test
//!   Sink (XDP) <---------------- veltrix-c =========== veltrix-s <- replies
//!   SDK sockets (kernel stack) - veltrix-c =========== veltrix-s -  fallback sockets
//! ```
//!
//! The namespaces have no name in the file system: threads and descriptors
//! of this process hold them, so they vanish with it, whichever way it ends.
//! Children started by [`Lab::spawn`] die with it too.
//!
//! The link carries nothing by itself: no ARP, no neighbour discovery, no
//! router solicitation, no multicast report (the interfaces are `NOARP`, the
//! neighbours static). A frame counted on it was sent by somebody; the
//! server's kernel, for one, answers passed datagrams for a port nobody
//! listens on with a few ICMP messages.

mod counters;
mod frames;
mod generator;
#[path = "../../../ebpf/src/lab/layout.rs"]
pub mod layout;
mod link;
mod meter;
mod namespace;
mod object;
mod sink;

use std::io::{self, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context as _, Result, ensure};

pub use counters::{Counters, QueueCounters};
pub use frames::{
    Datagram, FrameSpec, GENERATED_IPV4, GENERATED_IPV6, GENERATED_PORT, MacAddress, Template,
};
pub use generator::{
    Bound, Generator, GeneratorSpec, Pacing, Running, Sent, TEMPLATE_BYTES_MAX, TemplateSent, Vary,
};
pub use layout::SinkCounts;
use namespace::Namespace;
pub use namespace::{LabChild, die_with_parent};
pub use object::{OBJECT_ENV, Received, Receiver, ReceiverKind};
pub use sink::{Sink, SinkReading};

/// Interface of the server side.
pub const SERVER_INTERFACE: &str = "veltrix-s";
/// Interface of the client side.
pub const CLIENT_INTERFACE: &str = "veltrix-c";
/// IPv4 address of the server side, a /24.
pub const SERVER_IPV4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 1);
/// IPv4 address of the client side, a /24.
pub const CLIENT_IPV4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 2);
/// IPv6 address of the server side, a /64.
pub const SERVER_IPV6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// IPv6 address of the client side, a /64.
pub const CLIENT_IPV6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// MAC address of the server side: locally administered.
pub const SERVER_MAC: MacAddress = [0x02, 0x76, 0x6c, 0x74, 0x00, 0x01];
/// MAC address of the client side: locally administered.
pub const CLIENT_MAC: MacAddress = [0x02, 0x76, 0x6c, 0x74, 0x00, 0x02];

/// Environment variable: `1` makes a test that lacks privileges fail instead
/// of being skipped.
pub const REQUIRE_ENV: &str = "VELTRIX_TEST_REQUIRE";

/// One end of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where Veltrix runs.
    Server,
    /// Where load comes from.
    Client,
}

impl Side {
    /// Name of the interface at this end.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Server => SERVER_INTERFACE,
            Self::Client => CLIENT_INTERFACE,
        }
    }
}

/// What the lab looks like.
#[derive(Clone, Debug)]
pub struct LabSpec {
    /// Active receive and transmit queues on both ends, at least 1.
    pub queues: u32,
    /// Queues the interfaces are created with: how far
    /// [`Lab::set_queues`] can go up. At least `queues`.
    pub queues_max: u32,
    /// MTU of both ends, bytes. Native XDP on veth takes at most about 3,500.
    pub mtu: u32,
    /// Leave UDP checksums of kernel sockets to the receiver, as veth does by
    /// itself. Off, sockets send whole checksums, as they arrive from a wire.
    pub checksum_offload: bool,
}

impl Default for LabSpec {
    fn default() -> Self {
        Self { queues: 1, queues_max: 8, mtu: 1_500, checksum_offload: false }
    }
}

impl LabSpec {
    /// The default with `queues` active queues.
    #[must_use]
    pub fn with_queues(queues: u32) -> Self {
        Self { queues, queues_max: queues.max(8), ..Self::default() }
    }
}

/// What generators and sinks of one lab share.
struct Shared {
    server: Namespace,
    client: Namespace,
    /// Server receive queues that a running generator feeds.
    queues_in_use: Mutex<Vec<usize>>,
    anchors: Mutex<Anchors>,
}

/// Interfaces of the client namespace that generators attach their program to.
#[derive(Default)]
struct Anchors {
    /// Not in use.
    free: Vec<String>,
    /// Pairs made so far.
    pairs: usize,
}

impl Shared {
    fn anchors(&self) -> MutexGuard<'_, Anchors> {
        self.anchors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn namespace(&self, side: Side) -> &Namespace {
        match side {
            Side::Server => &self.server,
            Side::Client => &self.client,
        }
    }

    fn queues_in_use(&self) -> MutexGuard<'_, Vec<usize>> {
        self.queues_in_use.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Two namespaces and the link between them. The namespaces live until the
/// lab and every [`Generator`], [`Receiver`] and [`Sink`] made from it are dropped.
pub struct Lab {
    shared: Arc<Shared>,
}

impl Lab {
    /// Makes the namespaces, the veth pair, addresses and neighbours.
    ///
    /// # Errors
    ///
    /// A spec that cannot be, missing privileges, or a command that failed:
    /// named with what it said.
    pub fn new(spec: LabSpec) -> Result<Self> {
        ensure!(
            spec.queues >= 1 && spec.queues <= spec.queues_max,
            "lab: queues is {}, wanted 1 to queues_max ({})",
            spec.queues,
            spec.queues_max
        );
        ensure!(
            (1_280..=3_498).contains(&spec.mtu),
            "lab: mtu is {}, wanted 1280 (IPv6 minimum) to 3498 (native XDP on veth)",
            spec.mtu
        );
        let server = Namespace::new("server")?;
        let client = Namespace::new("client")?;
        link::create(&server, &client, &spec)?;
        let shared =
            Shared { server, client, queues_in_use: Mutex::default(), anchors: Mutex::default() };
        let lab = Self { shared: Arc::new(shared) };
        if spec.queues < spec.queues_max {
            lab.set_queues_both(spec.queues)?;
        }
        Ok(lab)
    }

    /// Runs `f` on a thread inside a namespace and gives its result. Threads
    /// that `f` starts are inside as well, and stay there. `/sys/class/net`
    /// shows the namespace's interfaces.
    ///
    /// # Panics
    ///
    /// When `f` panics, or the namespace cannot be entered.
    pub fn on<R: Send>(&self, side: Side, f: impl FnOnce() -> R + Send) -> R {
        self.shared.namespace(side).enter(f)
    }

    /// [`Self::on`] the server side.
    pub fn server<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.on(Side::Server, f)
    }

    /// [`Self::on`] the client side.
    pub fn client<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.on(Side::Client, f)
    }

    /// Starts a child inside a namespace. It is killed when the handle is
    /// dropped, when the lab is, and when this process dies.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`].
    pub fn spawn(&self, side: Side, command: Command) -> io::Result<LabChild> {
        self.shared.namespace(side).spawn(command)
    }

    /// [`Self::spawn`] on the server side.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`].
    pub fn spawn_server(&self, command: Command) -> io::Result<LabChild> {
        self.spawn(Side::Server, command)
    }

    /// [`Self::spawn`] on the client side.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`].
    pub fn spawn_client(&self, command: Command) -> io::Result<LabChild> {
        self.spawn(Side::Client, command)
    }

    /// Sends whole frames out of a side's interface through the kernel's
    /// transmit path (a packet socket), one system call each: the way to put
    /// frames on the link from the server's side.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a frame: longer than the MTU, shorter than an
    /// Ethernet header.
    pub fn transmit(&self, side: Side, frames: &[impl AsRef<[u8]> + Sync]) -> Result<()> {
        let ifindex = self.ifindex(side)?;
        self.on(side, || link::transmit(ifindex, frames))
    }

    /// Counters of an interface, read from here.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to name or give them.
    pub fn counters(&self, side: Side) -> Result<Counters> {
        counters::counters(self.shared.namespace(side), side.interface())
    }

    /// Interface index, valid inside the side's namespace.
    ///
    /// # Errors
    ///
    /// When the interface is gone.
    pub fn ifindex(&self, side: Side) -> Result<u32> {
        link::ifindex(self.shared.namespace(side), side.interface())
    }

    /// Active receive queues of one end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn queues(&self, side: Side) -> Result<u32> {
        Ok(link::channels(self.shared.namespace(side), side.interface())?.rx)
    }

    /// Sets receive and transmit queues of one end, live. The kernel refuses
    /// counts that break an attached XDP program: with one attached, this
    /// end's receive queues may not be fewer than the peer's transmit queues.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, with both ends' counts.
    pub fn set_queues(&self, side: Side, queues: u32) -> Result<()> {
        link::set_channels(self.shared.namespace(side), side.interface(), queues, queues)
            .with_context(|| self.describe_queues())
    }

    /// Sets the queues of both ends in the order that the kernel accepts
    /// under attached XDP programs: receive first when growing, transmit
    /// first when shrinking.
    ///
    /// # Errors
    ///
    /// As [`Self::set_queues`].
    pub fn set_queues_both(&self, queues: u32) -> Result<()> {
        for transmit in [false, true] {
            for side in [Side::Client, Side::Server] {
                let namespace = self.shared.namespace(side);
                let now = link::channels(namespace, side.interface())?;
                let growing = queues >= now.rx && queues >= now.tx;
                let (rx, tx) = match (transmit, growing) {
                    (true, _) => (queues, queues),
                    (false, true) => (queues, now.tx),
                    (false, false) => (now.rx, queues),
                };
                link::set_channels(namespace, side.interface(), rx, tx)
                    .with_context(|| self.describe_queues())?;
            }
        }
        Ok(())
    }

    fn describe_queues(&self) -> String {
        let one = |side: Side| match link::channels(self.shared.namespace(side), side.interface()) {
            Ok(now) => format!("{} has {} rx and {} tx queues", side.interface(), now.rx, now.tx),
            Err(error) => format!("{}: {error:#}", side.interface()),
        };
        format!("lab: {}, {}", one(Side::Server), one(Side::Client))
    }

    /// Inode numbers of the two network namespaces, server first: what
    /// `/proc/PID/ns/net` shows for a process inside.
    #[must_use]
    pub fn namespace_inodes(&self) -> [u64; 2] {
        [self.shared.server.inode(), self.shared.client.inode()]
    }
}

/// Whether this process may run the lab; a test that may not returns.
///
/// Says `skipped: NAME: ...` on standard error past the test harness's
/// capture, so that a runner can count and name what was left out.
///
/// # Panics
///
/// When privileges lack and [`REQUIRE_ENV`] is `1`.
#[must_use]
pub fn require_privileges(name: &str) -> bool {
    let missing = namespace::missing_capabilities();
    if !missing.is_empty() {
        skip(name, "needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF)");
    }
    missing.is_empty()
}

/// [`require_privileges`], and the lab's eBPF object: what a [`Generator`],
/// [`Receiver`] or [`Sink`] needs.
///
/// # Panics
///
/// When something lacks and [`REQUIRE_ENV`] is `1`.
#[must_use]
pub fn require(name: &str) -> bool {
    if !require_privileges(name) {
        return false;
    }
    let named = std::env::var_os(OBJECT_ENV).is_some();
    if !named {
        skip(
            name,
            &format!(
                "needs the lab's object: `cargo xtask build-ebpf`, and {OBJECT_ENV} naming it"
            ),
        );
    }
    named
}

fn skip(name: &str, lack: &str) {
    let required = std::env::var_os(REQUIRE_ENV).is_some_and(|v| v == "1");
    assert!(!required, "{name}: {lack}; {REQUIRE_ENV}=1 forbids a skip");
    // The harness captures the print macros of passing tests, not this.
    let _ = writeln!(io::stderr(), "skipped: {name}: {lack}");
}
