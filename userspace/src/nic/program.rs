//! Loads the kernel half, attaches it, and reaches its maps.
//!
//! ```text
//!   object() -> KernelHalf::load -> attach -> xsk_insert(q, socket) ... xsk_remove(q) -> detach
//!                                     |
//!                                     +-- proven: our own link, the mode asked for
//! ```
//!
//! Owns program, maps and link. The link goes first, so that no frame meets a
//! map that is going away; dropping a [`KernelHalf`] does the same.

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError, PerCpuArray, XskMap};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use thiserror::Error;
use veltrix_abi::exits::XDP_SLOTS;
use veltrix_abi::limits;
use veltrix_abi::maps::{self, BLOCK_REASON_BYTES_MAX, Block, features};

use super::attached::{Attached, AttachedMode};
use super::blocklist::{AddError, Blocked, Blocklist, Change, ExpiresNs, Prefix};
use super::diagnosis::{self, Privileges, Scene, Step};
use super::facts::NicFacts;

/// The kernel half embedded in this binary; `None` when it was built without.
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    #[cfg(ebpf_object)]
    return Some(aya::include_bytes_aligned!(env!("VELTRIX_EBPF_OBJECT")));
    #[cfg(not(ebpf_object))]
    None
}

/// Largest burst: a bucket counts 1/1024 of a datagram in 32 bits.
pub const RATE_BURST_MAX: u32 = u32::MAX / 1_024;

/// Most queues: far above any NIC, and rows of 256 bytes on each CPU stay small.
pub const QUEUES_MAX: u32 = 4_096;

/// What to do with sources that send too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// No buckets are kept.
    Off,
    /// Count what would be dropped, and drop nothing.
    Observe {
        /// Datagrams a second and source.
        per_s: u32,
        /// Datagrams at once.
        burst: u32,
    },
    /// Drop.
    Enforce {
        /// Datagrams a second and source.
        per_s: u32,
        /// Datagrams at once.
        burst: u32,
    },
}

/// What the program is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP destination port.
    pub port: u16,
    /// Largest UDP payload accepted, bytes.
    pub payload_bytes_max: usize,
    /// Queues of the interface.
    pub queues: u32,
    /// Blocked prefixes of each address family.
    pub block_entries_max: u32,
    /// Whether sources are looked up in the blocklist.
    pub blocklist: bool,
    /// The limit on sources.
    pub rate: Rate,
}

impl Settings {
    /// The first value that the program could not work with.
    fn check(&self) -> Result<(), LoadError> {
        let refuse = |key: &'static str, seen: u64, least: u64, most: u64| {
            Err(LoadError::Setting {
                key,
                seen,
                least,
                most,
            })
        };
        if self.port == 0 {
            return refuse("port", 0, 1, u16::MAX.into());
        }
        let payload_range = limits::HEADER_BYTES..=limits::PAYLOAD_BYTES_LIMIT;
        if !payload_range.contains(&self.payload_bytes_max) {
            let (least, most) = (*payload_range.start() as u64, *payload_range.end() as u64);
            return refuse(
                "payload_bytes_max",
                self.payload_bytes_max as u64,
                least,
                most,
            );
        }
        if !(1..=QUEUES_MAX).contains(&self.queues) {
            return refuse("queues", self.queues.into(), 1, QUEUES_MAX.into());
        }
        if self.blocklist && self.block_entries_max == 0 {
            return refuse("block_entries_max", 0, 1, u32::MAX.into());
        }
        let (Rate::Observe { per_s, burst } | Rate::Enforce { per_s, burst }) = self.rate else {
            return Ok(());
        };
        if per_s == 0 {
            return refuse("rate per second", 0, 1, u32::MAX.into());
        }
        if !(1..=RATE_BURST_MAX).contains(&burst) {
            return refuse("rate burst", burst.into(), 1, RATE_BURST_MAX.into());
        }
        Ok(())
    }

    /// Bits of [`features`], rate a second, burst.
    const fn switches(&self) -> (u32, u32, u32) {
        let blocklist = if self.blocklist {
            features::BLOCKLIST
        } else {
            0
        };
        match self.rate {
            Rate::Off => (blocklist, 1, 1),
            Rate::Observe { per_s, burst } => (
                blocklist | features::RATE_LIMIT | features::RATE_OBSERVE,
                per_s,
                burst,
            ),
            Rate::Enforce { per_s, burst } => (blocklist | features::RATE_LIMIT, per_s, burst),
        }
    }
}

/// Why the kernel half could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A setting outside its range.
    #[error("{key} is {seen}; wanted {least} to {most}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        seen: u64,
        /// Least value.
        least: u64,
        /// Largest value.
        most: u64,
    },
    /// The object is not a Veltrix kernel half of this version.
    #[error(
        "the eBPF object is not of this build: {what}; build it again with `cargo xtask build-ebpf`"
    )]
    Object {
        /// What is missing or wrong.
        what: String,
    },
    /// The kernel refused it.
    #[error("{message}")]
    Refused {
        /// The whole diagnosis.
        message: String,
        /// What the kernel answered.
        errno: i32,
    },
}

impl LoadError {
    /// What the kernel answered, if it was asked.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Setting { .. } | Self::Object { .. } => None,
        }
    }
}

/// Why the program could not be attached or detached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error("{message}")]
    Refused {
        /// The whole diagnosis.
        message: String,
        /// What the kernel answered.
        errno: i32,
    },
    /// The program is attached already.
    #[error("the XDP program is attached to `{interface}` already; detach it first")]
    Already {
        /// The interface.
        interface: String,
    },
    /// The kernel took the program in a way that does not clean up after a
    /// crash, or in another mode; it was detached again.
    #[error(
        "attaching the XDP program to `{interface}` (driver {driver}, mode {wanted}) ended {found}, which Veltrix does \
         not accept, so it was detached again; wanted a bpf link in mode {wanted}: {cure}"
    )]
    Unproven {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// Mode asked for.
        wanted: &'static str,
        /// What was found.
        found: String,
        /// What may help.
        cure: String,
    },
    /// What is attached could not be read back; it was detached again.
    #[error(
        "reading back what is attached to `{interface}` failed, so it was detached again: {source}"
    )]
    ReadBack {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AttachError {
    /// What the kernel answered, if it refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::ReadBack { source, .. } => source.raw_os_error(),
            Self::Already { .. } | Self::Unproven { .. } => None,
        }
    }
}

/// A map of the kernel half could not be read or written.
#[derive(Debug, Error)]
#[error("map {map} of the kernel half: {action} failed: {source}")]
pub struct MapAccessError {
    map: &'static str,
    action: String,
    source: MapError,
}

/// Why a prefix was not blocked.
#[derive(Debug, Error)]
pub enum BlockError {
    /// The program was loaded without the blocklist.
    #[error("the blocklist is off; switch it on in the configuration and restart")]
    Off,
    /// The entry is not acceptable.
    #[error(transparent)]
    Entry(#[from] AddError),
    /// The kernel refused the write.
    #[error(transparent)]
    Map(#[from] MapAccessError),
}

/// What is known of the loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Id in the kernel.
    pub id: u32,
    /// Instructions as loaded, after pruning what is off.
    pub instructions: u32,
    /// Instructions the verifier walked, all paths together; `None` when the
    /// kernel does not tell.
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code; 0 when the kernel interprets it.
    pub jitted_bytes: u32,
    /// Time of the load call: verifier and JIT.
    pub verified_in: Duration,
    /// Interface and mode, as the kernel tells them.
    pub attached: Option<(String, AttachedMode)>,
}

#[derive(Debug)]
struct Link {
    id: XdpLinkId,
    interface: String,
    mode: AttachedMode,
}

/// A trie of the kernel half: value layout is [`Block`], read as words.
type Trie<K> = LpmTrie<MapData, K, [u8; size_of::<Block>()]>;

/// The kernel half, loaded.
pub struct KernelHalf {
    ebpf: Ebpf,
    link: Option<Link>,
    xsks: XskMap<MapData>,
    exits: PerCpuArray<MapData, [u64; XDP_SLOTS]>,
    block4: Trie<[u8; 4]>,
    block6: Trie<[u8; 16]>,
    blocklist: Option<Blocklist>,
    verified_in: Duration,
}

// It is made by the thread that starts and handed to the one that runs.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<KernelHalf>();
};

impl KernelHalf {
    /// Loads `object` for `settings`; nothing is attached yet.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(object: &[u8], settings: &Settings) -> Result<Self, LoadError> {
        settings.check()?;
        let payload_bytes_max = settings.payload_bytes_max as u32;
        let (switches, per_s, burst) = settings.switches();
        let block_entries = if settings.blocklist {
            settings.block_entries_max
        } else {
            1
        };
        let buckets = if switches & features::RATE_LIMIT == 0 {
            1
        } else {
            limits::BUCKETS
        };
        let mut ebpf = EbpfLoader::new()
            .override_global(maps::PORT, &settings.port, true)
            .override_global(maps::PAYLOAD_BYTES_MAX, &payload_bytes_max, true)
            .override_global(maps::FEATURES, &switches, true)
            .override_global(maps::RATE_PER_S, &per_s, true)
            .override_global(maps::RATE_BURST, &burst, true)
            .map_max_entries(maps::EXITS, settings.queues + 1)
            .map_max_entries(maps::XSKS, settings.queues)
            .map_max_entries(maps::BLOCK4, block_entries)
            .map_max_entries(maps::BLOCK6, block_entries)
            .map_max_entries(maps::BUCKETS, buckets)
            .load(object)
            .map_err(|e| refused_load(&e, settings))?;
        let xdp = xdp_mut(&mut ebpf)?;
        let started = Instant::now();
        xdp.load().map_err(|e| refused_load(&e, settings))?;
        let verified_in = started.elapsed();
        Ok(Self {
            link: None,
            xsks: take(&mut ebpf, maps::XSKS)?,
            exits: take(&mut ebpf, maps::EXITS)?,
            block4: take(&mut ebpf, maps::BLOCK4)?,
            block6: take(&mut ebpf, maps::BLOCK6)?,
            blocklist: settings
                .blocklist
                .then(|| Blocklist::new(settings.block_entries_max)),
            verified_in,
            ebpf,
        })
    }

    /// Attaches the program to `nic` in exactly `mode`.
    ///
    /// aya falls back to netlink without a word when the kernel answers
    /// `EINVAL` to a link; such an attachment outlives a crash, so it is
    /// undone and refused. The mode is read back from the kernel.
    ///
    /// # Errors
    ///
    /// [`AttachError`]; nothing is attached then.
    pub fn attach(&mut self, nic: &NicFacts, mode: Mode) -> Result<(), AttachError> {
        if let Some(link) = &self.link {
            return Err(AttachError::Already {
                interface: link.interface.clone(),
            });
        }
        let refused = |error: &(dyn Error + 'static)| refused_attach(error, nic, mode);
        let xdp = xdp_mut(&mut self.ebpf).map_err(|e| refused(&e))?;
        let program = xdp.info().map_err(|e| refused(&e))?.id();
        let id = xdp
            .attach(&nic.name, mode.into())
            .map_err(|e| refused(&e))?;
        if let Err(error) = prove(program, nic, mode) {
            // What went wrong already matters more than what this says.
            let _ = xdp.detach(id);
            return Err(error);
        }
        self.link = Some(Link {
            id,
            interface: nic.name.clone(),
            mode: mode.attached(),
        });
        Ok(())
    }

    /// Takes the program off its interface; nothing to do when there is none.
    ///
    /// # Errors
    ///
    /// [`AttachError::Refused`].
    pub fn detach(&mut self) -> Result<(), AttachError> {
        let Some(link) = self.link.take() else {
            return Ok(());
        };
        let interface = link.interface;
        let refused = |error: &(dyn Error + 'static)| AttachError::Refused {
            message: format!("detaching the XDP program from `{interface}` failed: {error}"),
            errno: errno_of(error).unwrap_or(libc::EIO),
        };
        let xdp = xdp_mut(&mut self.ebpf).map_err(|e| refused(&e))?;
        xdp.detach(link.id).map_err(|e| refused(&e))
    }

    /// Sends frames of `queue` to `socket` from now on.
    ///
    /// # Errors
    ///
    /// [`MapAccessError`] when the queue is beyond those the map was made for, or
    /// the socket has no RX ring.
    pub fn xsk_insert(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapAccessError> {
        self.xsks.set(queue, socket, 0).map_err(|e| {
            access(
                maps::XSKS,
                format!("inserting the socket of queue {queue}"),
                e,
            )
        })
    }

    /// Lets frames of `queue` fall back to the kernel's socket.
    ///
    /// # Errors
    ///
    /// [`MapAccessError`] when there is none.
    pub fn xsk_remove(&mut self, queue: u32) -> Result<(), MapAccessError> {
        self.xsks.unset(queue).map_err(|e| {
            access(
                maps::XSKS,
                format!("removing the socket of queue {queue}"),
                e,
            )
        })
    }

    /// Queues that the maps were made for.
    #[must_use]
    pub fn queues(&self) -> u32 {
        self.xsks.len()
    }

    /// Counters: row 0 for queues beyond those known, row `q + 1` for queue
    /// `q`, summed over CPUs. One system call a row.
    ///
    /// # Errors
    ///
    /// [`MapAccessError`].
    pub fn exits(&self) -> Result<Vec<[u64; XDP_SLOTS]>, MapAccessError> {
        (0..self.exits.len())
            .map(|row| self.exit_row(row))
            .collect()
    }

    /// One row of [`Self::exits`].
    ///
    /// # Errors
    ///
    /// [`MapAccessError`].
    pub fn exit_row(&self, row: u32) -> Result<[u64; XDP_SLOTS], MapAccessError> {
        let cpus = self
            .exits
            .get(&row, 0)
            .map_err(|e| access(maps::EXITS, format!("reading row {row}"), e))?;
        let mut sum = [0; XDP_SLOTS];
        for counters in cpus.iter() {
            for (total, count) in sum.iter_mut().zip(counters) {
                *total += count;
            }
        }
        Ok(sum)
    }

    /// What is known of the program.
    ///
    /// # Errors
    ///
    /// [`LoadError::Refused`] when the kernel does not tell.
    pub fn facts(&self) -> Result<ProgramFacts, LoadError> {
        let info = self.program()?.info().map_err(|e| LoadError::Refused {
            message: format!("asking for the facts of the XDP program failed: {e}"),
            errno: errno_of(&e).unwrap_or(libc::EIO),
        })?;
        Ok(ProgramFacts {
            id: info.id(),
            instructions: info.size_translated().unwrap_or(0) / INSTRUCTION_BYTES,
            verified_instructions: info.verified_instruction_count(),
            jitted_bytes: info.size_jitted(),
            verified_in: self.verified_in,
            attached: self.link.as_ref().map(|l| (l.interface.clone(), l.mode)),
        })
    }

    /// The loaded program, for test runs.
    ///
    /// # Errors
    ///
    /// [`LoadError::Object`], which [`Self::load`] would have returned before.
    pub fn program(&self) -> Result<&Xdp, LoadError> {
        let program = self.ebpf.program(maps::PROGRAM).ok_or_else(no_program)?;
        program
            .try_into()
            .map_err(|e: ProgramError| LoadError::Object {
                what: e.to_string(),
            })
    }

    /// Blocks `prefix` until `expires_ns` of `CLOCK_MONOTONIC`, which stands at
    /// `now_ns`.
    ///
    /// # Errors
    ///
    /// [`BlockError`]; what was blocked before stays blocked.
    pub fn block_add(
        &mut self,
        prefix: Prefix,
        expires_ns: ExpiresNs,
        reason: &str,
        now_ns: u64,
    ) -> Result<(), BlockError> {
        let list = self.blocklist.as_mut().ok_or(BlockError::Off)?;
        let was_blocked = list.contains(&prefix);
        let changes = list.add(prefix, expires_ns, reason, now_ns)?;
        if let Err(error) = self.apply(&changes) {
            // The table must not claim what the kernel does not do.
            if !was_blocked
                && let Some(undo) = self.blocklist.as_mut().and_then(|l| l.remove(prefix))
            {
                let _ = self.apply(&undo);
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Unblocks exactly `prefix`; whether it was blocked.
    ///
    /// # Errors
    ///
    /// [`BlockError`].
    pub fn block_del(&mut self, prefix: Prefix) -> Result<bool, BlockError> {
        let list = self.blocklist.as_mut().ok_or(BlockError::Off)?;
        match list.remove(prefix) {
            None => Ok(false),
            Some(changes) => {
                self.apply(&changes)?;
                Ok(true)
            }
        }
    }

    /// What is blocked, in order of address; empty when the blocklist is off.
    #[must_use]
    pub fn block_list(&self) -> Vec<Blocked> {
        self.blocklist.iter().flat_map(Blocklist::iter).collect()
    }

    /// Removes entries that have expired by `now_ns`; gives their prefixes.
    ///
    /// # Errors
    ///
    /// [`MapAccessError`].
    pub fn block_purge_expired(&mut self, now_ns: u64) -> Result<Vec<Prefix>, MapAccessError> {
        let Some(list) = self.blocklist.as_mut() else {
            return Ok(Vec::new());
        };
        let (expired, changes) = list.purge_expired(now_ns);
        self.apply(&changes)?;
        Ok(expired)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), MapAccessError> {
        changes.iter().try_for_each(|change| match change {
            Change::Set(prefix, block) => self.trie_set(*prefix, block),
            Change::Remove(prefix) => self.trie_remove(*prefix),
        })
    }

    fn trie_set(&mut self, prefix: Prefix, block: &Block) -> Result<(), MapAccessError> {
        let value = block_bytes(block);
        let bits = u32::from(prefix.bits());
        let (map, done) = match prefix.address() {
            std::net::IpAddr::V4(a) => (
                maps::BLOCK4,
                self.block4.insert(&Key::new(bits, a.octets()), value, 0),
            ),
            std::net::IpAddr::V6(a) => (
                maps::BLOCK6,
                self.block6.insert(&Key::new(bits, a.octets()), value, 0),
            ),
        };
        done.map_err(|e| access(map, format!("blocking {prefix}"), e))
    }

    fn trie_remove(&mut self, prefix: Prefix) -> Result<(), MapAccessError> {
        let bits = u32::from(prefix.bits());
        let (map, done) = match prefix.address() {
            std::net::IpAddr::V4(a) => (
                maps::BLOCK4,
                self.block4.remove(&Key::new(bits, a.octets())),
            ),
            std::net::IpAddr::V6(a) => (
                maps::BLOCK6,
                self.block6.remove(&Key::new(bits, a.octets())),
            ),
        };
        done.map_err(|e| access(map, format!("unblocking {prefix}"), e))
    }
}

impl Drop for KernelHalf {
    fn drop(&mut self) {
        // Closing the link's descriptor detaches too; this only does it first.
        let _ = self.detach();
    }
}

/// The XDP modes that can be asked for; none is chosen silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Driver,
    /// In the kernel's generic path.
    Generic,
}

impl Mode {
    /// The word in configuration and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.attached().name()
    }

    const fn attached(self) -> AttachedMode {
        match self {
            Self::Driver => AttachedMode::Driver,
            Self::Generic => AttachedMode::Generic,
        }
    }
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Driver => Self::Driver,
            Mode::Generic => Self::Skb,
        }
    }
}

const INSTRUCTION_BYTES: u32 = 8;

fn no_program() -> LoadError {
    LoadError::Object {
        what: format!("it has no program `{}`", maps::PROGRAM),
    }
}

fn xdp_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    let program = ebpf.program_mut(maps::PROGRAM).ok_or_else(no_program)?;
    program
        .try_into()
        .map_err(|e: ProgramError| LoadError::Object {
            what: e.to_string(),
        })
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| LoadError::Object {
        what: format!("it has no map {name}"),
    })?;
    map.try_into().map_err(|e| LoadError::Object {
        what: format!("map {name}: {e}"),
    })
}

fn access(map: &'static str, action: String, source: MapError) -> MapAccessError {
    MapAccessError {
        map,
        action,
        source,
    }
}

/// A [`Block`] as the bytes the kernel keeps.
fn block_bytes(block: &Block) -> [u8; size_of::<Block>()] {
    let mut out = [0; size_of::<Block>()];
    out[..8].copy_from_slice(&block.expires_ns.to_ne_bytes());
    out[8..8 + BLOCK_REASON_BYTES_MAX].copy_from_slice(&block.reason);
    out
}

/// The error number at the root of an aya error, if there is one.
fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(errno);
        }
        next = error.source();
    }
    None
}

fn refused_load(error: &(dyn Error + 'static), settings: &Settings) -> LoadError {
    let Some(errno) = errno_of(error) else {
        return LoadError::Object {
            what: error.to_string(),
        };
    };
    let privileges = Privileges::read();
    let queues = settings.queues;
    let cure = diagnosis::load(errno, &privileges);
    let mut message = format!("loading the XDP program for {queues} queues failed: {cure}");
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref() {
        let words = diagnosis::verifier_excerpt(&verifier_log.to_string());
        if !words.is_empty() {
            message.push_str("\n  the verifier says:\n  ");
            message.push_str(&words);
        }
    }
    LoadError::Refused { message, errno }
}

fn refused_attach(error: &(dyn Error + 'static), nic: &NicFacts, mode: Mode) -> AttachError {
    let errno = errno_of(error).unwrap_or(libc::EIO);
    // Only named in the message; without it the message is still right.
    let programs = Attached::read(&nic.name)
        .map(|a| a.programs)
        .unwrap_or_default();
    let scene = Scene {
        interface: &nic.name,
        mode: mode.name(),
        driver: &nic.driver,
        rx_queues: nic.queues.rx,
        tx_queues: nic.queues.tx,
        programs: &programs,
        privileges: &Privileges::read(),
    };
    AttachError::Refused {
        message: diagnosis::explain(Step::Attach, errno, &scene),
        errno,
    }
}

/// Proves that `program` is on `nic` by a bpf link and in `mode`.
fn prove(program: u32, nic: &NicFacts, mode: Mode) -> Result<(), AttachError> {
    let read_back = |source| AttachError::ReadBack {
        interface: nic.name.clone(),
        source,
    };
    let unproven = |found: String, cure: &str| AttachError::Unproven {
        interface: nic.name.clone(),
        driver: nic.driver.clone(),
        wanted: mode.name(),
        found,
        cure: cure.to_owned(),
    };
    if !holds_link(program).map_err(read_back)? {
        return Err(unproven(
            "by netlink and without a bpf link".to_owned(),
            "the kernel refused the link with EINVAL; look for a second program with `ip -d link`, and for an MTU or \
             offload that the driver refuses with `dmesg | tail`",
        ));
    }
    let attached = Attached::read(&nic.name).map_err(read_back)?;
    if attached.mode != mode.attached() || !attached.programs.contains(&program) {
        return Err(unproven(
            format!(
                "in mode {} with programs {:?}",
                attached.mode.name(),
                attached.programs
            ),
            "remove the other program with `ip link set dev IF xdp off`",
        ));
    }
    Ok(())
}

/// Whether this process holds a bpf link for `program`. Asked of its own
/// descriptors, since listing all links of a host takes CAP_SYS_ADMIN.
fn holds_link(program: u32) -> io::Result<bool> {
    let wanted = program.to_string();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // A descriptor may be closed by another thread meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        if field("link_type:") == Some("xdp") && field("prog_id:") == Some(&wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}
