//! The one table of settings. From a row come the field of [`Config`], the
//! parser, the environment variable, the words of errors, `config reference`,
//! `config show` and `docs/CONFIG.md`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use veltrix_abi::limits;

use super::names::Names;
use super::value::{Cores, LaneCount, Raw, Refusal, Rule, Setting, Step, TimeUnit};
use super::words::{
    HUGE_PAGES, RATE_LIMIT_MODES, RateLimitMode, WAIT_MODES, WaitMode, XDP_MODES, XdpMode,
    ZERO_COPIES, ZeroCopy,
};
use crate::base::mem::HugePages;

/// Where a default comes from.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// This text, read as an argument would be.
    Text(&'static str),
    /// Nothing: the key has no value until it is given one.
    Absent,
    /// Worked out at start; the text says how.
    Computed(&'static str, fn() -> String),
}

/// A row of the table.
#[derive(Debug)]
pub struct Key {
    /// Section of the file.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// What is accepted.
    pub rule: Rule,
    /// Its value when nobody gives one.
    pub default: Preset,
    /// Flag of `veltrix run` that sets it, without the dashes; empty when there is none.
    pub flag: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Why the default is what it is, and what gets worse on either side.
    pub reason: &'static str,
    pub(super) set: fn(&mut Config, &Raw<'_>, &Rule) -> Result<(), Refusal>,
    pub(super) show: fn(&Config, &Rule) -> String,
    pub(super) json: fn(&Config, &Rule) -> serde_json::Value,
}

impl Key {
    /// Full name, as errors and documents write it: `lanes.deadline`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Environment variable that sets it.
    #[must_use]
    pub fn env(&self) -> String {
        format!("VELTRIX_{}_{}", self.section, self.name).to_uppercase()
    }

    /// The default as documents write it.
    #[must_use]
    pub const fn default_text(&self) -> &'static str {
        match self.default {
            Preset::Text(text) | Preset::Computed(text, _) => text,
            Preset::Absent => "none",
        }
    }

    /// The value in `config`, as an operator writes it; empty when there is none.
    #[must_use]
    pub fn shown(&self, config: &Config) -> String {
        (self.show)(config, &self.rule)
    }

    /// The value in `config`, for programs.
    #[must_use]
    pub fn json(&self, config: &Config) -> serde_json::Value {
        (self.json)(config, &self.rule)
    }
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $($field:ident: $type:ty = $name:literal,
                $rule:expr, $default:expr, $flag:literal,
                $doc:literal, $reason:literal;)*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {
                $(#[doc = $doc] pub $field: $type,)*
            }
        )*

        /// Every setting, checked. Fields whose name ends in a unit are kept in it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $section: $Section,)*
        }

        impl Config {
            /// The value of every field before any key is set; each is then
            /// overwritten by its default.
            pub(super) fn unset() -> Self {
                Self { $($section: $Section { $($field: <$type as Unset>::unset(),)* },)* }
            }
        }

        /// Sections and what they are about, in the order of the file.
        pub const SECTIONS: &[(&str, &str)] =
            &[$((stringify!($section), concat!($($section_doc),*)),)*];

        /// Every key, in the order of the file.
        pub static KEYS: &[Key] = &[$($(Key {
            section: stringify!($section),
            name: $name,
            rule: $rule,
            default: $default,
            flag: $flag,
            doc: $doc,
            reason: $reason,
            set: |config, raw, rule| {
                config.$section.$field = <$type as Setting>::parse(raw, rule)?;
                Ok(())
            },
            show: |config, rule| config.$section.$field.show(rule),
            json: |config, rule| config.$section.$field.json(rule),
        },)*)*];
    };
}

settings! {
    #[doc = "What is served, and where."]
    server: Server {
        nic: Option<String> = "nic", Rule::Interface, Preset::Absent, "nic",
            "Network interface whose queues are taken over by XDP. Without it: UDP sockets.",
            "No interface is guessed: attaching to the wrong one would cut a host off.";
        data: Option<PathBuf> = "data", Rule::Directory, Preset::Absent, "data",
            "Data directory made by `veltrix format`: write-ahead log and snapshots. Without it nothing is kept, and durable acks are refused.",
            "None is guessed: a directory made by accident would be an empty game.";
        listen: SocketAddr = "listen", Rule::Address,
            Preset::Computed("127.0.0.1 and `server.port`", || {
                SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).to_string()
            }), "listen",
            "Address and port of the UDP sockets when there is no `server.nic`; port 0 takes a free one. With a NIC the fallback socket listens on all addresses.",
            "Loopback, so that a first try is seen by nobody else; `0.0.0.0:4747` or `[::]:4747` serves the network.";
        port: u16 = "port", count(1, 65_535, ""), Preset::Text("4747"), "port",
            "UDP port served. Follows `server.listen` when only that is given.",
            "Above 1,023, so that sockets need no privilege.";
        control_socket: PathBuf = "control_socket", Rule::SocketPath,
            Preset::Computed(
                "as root /run/veltrix/control.sock; else $XDG_RUNTIME_DIR/veltrix-control.sock, or /tmp/veltrix-UID/control.sock without that variable",
                super::paths::default_control_socket,
            ), "control-socket",
            "Unix socket through which `status` and `block` talk to a running server; mode 0600 in a directory of mode 0700.",
            "Who may write to it may block players, so it is the owner's alone.";
        partitions: u16 = "partitions",
            Rule::Count { min: 1, max: 4_096, unit: "partitions", step: Step::PowerOfTwo },
            Preset::Text("64"), "",
            "Hash buckets of consistency domains; each has one writer and one order.",
            "With `server.data` the number is that of the data directory, fixed by `veltrix format`, and this key is not looked at.";
        payload_bytes_max: u16 = "payload_bytes_max",
            Rule::Count {
                min: PAYLOAD_BYTES_LEAST,
                max: limits::PAYLOAD_BYTES_LIMIT as u64,
                unit: "bytes",
                step: Step::Eight,
            },
            Preset::Text("1232"), "payload-bytes-max",
            "Largest UDP payload accepted; larger datagrams leave by `drop_too_large`.",
            "1,280 (least MTU of IPv6) - 40 - 8: no path fragments it. More needs a larger MTU all the way; the limit is one 4 KiB frame less its headroom.";
    }

    #[doc = "Threads that receive, decode and answer."]
    lanes: Lanes {
        count: LaneCount = "count", Rule::AutoCount(LANES_LIMIT), Preset::Text("auto"), "",
            "Lanes to run. On a NIC there is always one for each active queue, and another number is refused; on UDP sockets `auto` is 1.",
            "A queue without a lane would send its datagrams by the slow fallback.";
        cores: Cores = "cores", Rule::AutoCores(CORES_LIMIT), Preset::Text("auto"), "cores",
            "Cores the lanes are pinned to, in the order of lanes.",
            "`auto` takes cores the process may use, last first, since interrupts and other work gather on the first.";
        allow_irq_cores: bool = "allow_irq_cores", Rule::Switch, Preset::Text("false"), "",
            "Whether a lane may share a core with its NIC's interrupts.",
            "A lane that spins there starves the very queue it waits for.";
        deadline_ns: u64 = "deadline", time_ns(1_000, 10_000_000_000), Preset::Text("50 ms"), "",
            "Longest predicted wait at which a datagram is still accepted; beyond it the answer is `busy`.",
            "A later answer is of little use to a player. Shorter sheds sooner in a burst; longer answers late instead.";
        batch_frames: u16 = "batch_frames", count(1, 256, "frames"), Preset::Text("64"), "",
            "Most frames a lane takes from its ring at once.",
            "Also the kernel's NAPI batch. Fewer cost more passes; more keep the first frame waiting and leave the cache.";
        batches: u16 = "batches", count(2, 1_024, "batches"), Preset::Text("32"), "",
            "Batches of a lane that may be open or in flight; with `server.data` only.",
            "8 MiB of 256 KiB batches: 30 ms of a disk that stands still at 5 million events a second. When none is free, events are refused with `busy`. Each takes about 1.2 MiB with what is kept for its answers.";
    }

    #[doc = "The replicated log; used with `server.data` only."]
    log: LogSettings {
        snapshot_at_percent: u16 = "snapshot_at_percent", count(5, 45, "percent"), Preset::Text("30"), "",
            "Share of the write-ahead log written since the last snapshot at which the next begins.",
            "The log is purged behind the older of two snapshots: it holds twice this share and what comes while one is made. More risks that it is full before the snapshot is done, and then events are refused; less takes more of them. Never more comes between two than leaves room for both shares: some 31 percent of 16 segments of 128 MiB, 37 of 32.";
    }

    #[doc = "AF_XDP sockets; used with `server.nic` only."]
    xdp: Xdp {
        mode: XdpMode = "mode", Rule::Words(XDP_MODES), Preset::Text("driver"), "mode",
            "Where the program is attached. Never stepped down silently.",
            "Generic mode hides most of what XDP is for; who wants it says so.";
        zero_copy: ZeroCopy = "zero_copy", Rule::Words(ZERO_COPIES), Preset::Text("auto"), "zero-copy",
            "Whether the NIC writes straight into the lanes' memory.",
            "Virtual interfaces have none; production on hardware should `require` it.";
        wait: WaitMode = "wait", Rule::Words(WAIT_MODES), Preset::Text("wakeup"), "wait",
            "How a lane waits for packets.",
            "Safe on any host. Spinning saves wake-ups only on a core of its own.";
        rx_ring_frames: u32 = "rx_ring_frames",
            Rule::Count { min: 64, max: 32_768, unit: "frames", step: Step::PowerOfTwo },
            Preset::Text("2048"), "",
            "Receive ring of each lane; the FILL ring is twice that.",
            "Half a millisecond at 4 million frames a second. Fewer overrun in a scheduling gap; each entry takes three frames of 2 KiB (4 KiB once payload_bytes_max needs it).";
        tx_ring_frames: u32 = "tx_ring_frames",
            Rule::Count { min: 64, max: 32_768, unit: "frames", step: Step::PowerOfTwo },
            Preset::Text("2048"), "",
            "Transmit and COMPLETION ring of each lane.",
            "As many replies as a full receive ring can ask for. Fewer lose replies (`dropped_tx_full`) in a burst.";
        huge_pages: HugePages = "huge_pages", Rule::Words(HUGE_PAGES), Preset::Text("auto"), "",
            "Pages behind the packet memory.",
            "2 MiB pages keep a whole ring within the TLB's reach.";
        busy_poll_us: u32 = "busy_poll", time_us(1, 10_000), Preset::Text("20 us"), "",
            "How long one busy poll drives the queue (SO_BUSY_POLL); `wait = \"prefer-busy\"` only.",
            "One NAPI batch at line rate. Longer delays the replies behind it.";
        busy_poll_budget: u16 = "busy_poll_budget", count(1, 256, "frames"), Preset::Text("64"), "",
            "Most frames one busy poll takes (SO_BUSY_POLL_BUDGET); `wait = \"prefer-busy\"` only.",
            "NAPI's own batch. Above the kernel's 8 it needs CAP_NET_ADMIN, which XDP needs as well.";
    }

    #[doc = "Blocked sources; checked by the XDP program."]
    blocklist: Blocklist {
        enabled: bool = "enabled", Rule::Switch, Preset::Text("true"), "",
            "Whether the loaded program looks sources up.",
            "About 11 ns a datagram, empty or full. Off, `block add` is refused.";
        entries_max: u32 = "entries_max", count(1, 1_048_576, "prefixes per address family"),
            Preset::Text("65536"), "",
            "Prefixes each of the two tries (IPv4, IPv6) can hold.",
            "A trie grows by entry, so the bound costs nothing until used; past it `block add` is refused.";
    }

    #[doc = "Rate of each source; kept by the XDP program, per CPU."]
    rate_limit: RateLimit {
        mode: RateLimitMode = "mode", Rule::Words(RATE_LIMIT_MODES), Preset::Text("off"), "",
            "What happens to a source that exceeds its rate.",
            "Players behind one carrier's address share a bucket: observe first, then enforce.";
        datagrams_per_s: u32 = "datagrams_per_s", count(1, 100_000_000, "datagrams a second"),
            Preset::Text("100k"), "",
            "Rate at which the bucket of a source refills.",
            "Far above a player and a fair share for a game server; one core of a flooding host sends millions.";
        burst_datagrams: u32 = "burst", count(1, BURST_LIMIT, "datagrams"), Preset::Text("10k"), "",
            "Datagrams a source may send at once.",
            "A tenth of a second at the default rate. Fewer punish a sender's scheduling gap.";
    }

    #[doc = "Kernel UDP sockets: the whole service without a NIC, the fallback beside one."]
    udp: Udp {
        receive_buffer_bytes: u64 = "receive_buffer", bytes(64 << 10, 1 << 30), Preset::Text("4 MiB"), "",
            "Receive buffer of each socket (SO_RCVBUF).",
            "Some thousand full datagrams with the kernel's overhead: a scheduling gap's worth. Less drops sooner (`socket_drops`).";
        send_buffer_bytes: u64 = "send_buffer", bytes(64 << 10, 1 << 30), Preset::Text("4 MiB"), "",
            "Send buffer of each socket (SO_SNDBUF).",
            "As the receive buffer: each request has at most one reply, never larger.";
    }

    #[doc = "JSON over HTTP/1.1, for dashboards, scripts and web pages; served by the control core. Routes: docs/HTTP.md."]
    http: Http {
        listen: Option<SocketAddr> = "listen", Rule::AddressOrOff, Preset::Text("off"), "http",
            "Address and TCP port of the HTTP server; port 0 takes a free one, which the start names.",
            "Off, so that two servers on a host never meet on a port nobody asked for; 127.0.0.1:4780 is the usual one. Any other address than loopback wants `http.token_file`.";
        token_file: Option<PathBuf> = "token_file", Rule::File, Preset::Absent, "",
            "File with the bearer token that writes must carry, 16 bytes or more; read once, at start. Where `http.listen` is no loopback address, reads must carry it too.",
            "None: events are then taken over UDP only. Whoever has the token may play for every player.";
        names: Names = "names", Rule::Names, Preset::Absent, "",
            "Host names, with commas between, by which a server on a loopback address may be asked, beside `localhost` and any address: those that a proxy on this host passes on.",
            "None: a web page whose name is made to resolve to 127.0.0.1 would read from this server through its reader's browser.";
    }
}

/// Default port.
const PORT: u16 = 4747;

/// Least `payload_bytes_max`: one event of the largest payload, and with it
/// every request of fixed size.
const PAYLOAD_BYTES_LEAST: u64 =
    (limits::HEADER_BYTES + limits::EVENT_FIXED_BYTES + limits::EVENT_PAYLOAD_BYTES_MAX) as u64;

/// Most lanes; above the queue count of any NIC we know.
const LANES_LIMIT: u16 = 512;

/// Core ids are below this: the kernel's own bound on x86-64.
const CORES_LIMIT: usize = 8_192;

/// Most tokens a bucket can hold: it counts 1/1024 of a datagram in a `u32`.
const BURST_LIMIT: u64 = (u32::MAX / 1_024) as u64;

const fn count(min: u64, max: u64, unit: &'static str) -> Rule {
    Rule::Count { min, max, unit, step: Step::One }
}

const fn bytes(min: u64, max: u64) -> Rule {
    Rule::Bytes { min, max }
}

const fn time_ns(min: u64, max: u64) -> Rule {
    Rule::Time { min, max, unit: TimeUnit::Ns }
}

const fn time_us(min: u64, max: u64) -> Rule {
    Rule::Time { min, max, unit: TimeUnit::Us }
}

/// What a field holds before its default is set.
trait Unset {
    fn unset() -> Self;
}

macro_rules! unset {
    ($($type:ty = $value:expr;)*) => {
        $(impl Unset for $type { fn unset() -> Self { $value } })*
    };
}

unset! {
    bool = false;
    u16 = 0;
    u32 = 0;
    u64 = 0;
    Option<String> = None;
    Option<PathBuf> = None;
    Option<SocketAddr> = None;
    PathBuf = PathBuf::new();
    SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    LaneCount = LaneCount::Auto;
    Cores = Cores::Auto;
    Names = Names::default();
    XdpMode = XdpMode::Driver;
    ZeroCopy = ZeroCopy::Auto;
    WaitMode = WaitMode::Wakeup;
    HugePages = HugePages::Auto;
    RateLimitMode = RateLimitMode::Off;
}
