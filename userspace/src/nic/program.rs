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

mod errors;
mod proof;
mod settings;

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError, PerCpuArray, XskMap};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use veltrix_abi::exits::XDP_SLOTS;
use veltrix_abi::limits;
use veltrix_abi::maps::{self, BLOCK_REASON_BYTES_MAX, Block, features};

pub use errors::{AttachError, BlockError, LoadError, MapAccessError};
use errors::{errno_of, refused_attach, refused_load};
use proof::prove;
pub use settings::{Mode, QUEUES_MAX, RATE_BURST_MAX, Rate, Settings};

use super::attached::{Attached, AttachedMode};
use super::blocklist::{Blocked, Blocklist, Change, ExpiresNs, Prefix};
use super::facts::NicFacts;

/// The kernel half embedded in this binary; `None` when it was built without.
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    #[cfg(ebpf_object)]
    return Some(aya::include_bytes_aligned!(env!("VELTRIX_EBPF_OBJECT")));
    #[cfg(not(ebpf_object))]
    None
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
        let block_entries = if settings.blocklist { settings.block_entries_max } else { 1 };
        let buckets = if switches & features::RATE_LIMIT == 0 { 1 } else { limits::BUCKETS };
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
            blocklist: settings.blocklist.then(|| Blocklist::new(settings.block_entries_max)),
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
            return Err(AttachError::Already { interface: link.interface.clone() });
        }
        let refused = |error: &(dyn Error + 'static)| refused_attach(error, nic, mode);
        let xdp = xdp_mut(&mut self.ebpf).map_err(|e| refused(&e))?;
        let program = xdp.info().map_err(|e| refused(&e))?.id();
        let id = xdp.attach(&nic.name, mode.into()).map_err(|e| refused(&e))?;
        if let Err(error) = prove(program, nic, mode) {
            // What went wrong already matters more than what this says.
            let _ = xdp.detach(id);
            return Err(error);
        }
        self.link = Some(Link { id, interface: nic.name.clone(), mode: mode.attached() });
        Ok(())
    }

    /// Takes the program off its interface; nothing to do when there is none.
    /// Returns when the kernel says it is off: whoever lists links at that moment keeps one
    /// alive a little longer.
    ///
    /// # Errors
    ///
    /// [`AttachError::Refused`], with `EBUSY` when it is still on after a second.
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
        let program = xdp.info().map_err(|e| refused(&e))?.id();
        xdp.detach(link.id).map_err(|e| refused(&e))?;
        let deadline = Instant::now() + DETACH_WAIT_MAX;
        // An interface that cannot be asked is gone, or in another namespace.
        while Attached::read(&interface).is_ok_and(|a| a.programs.contains(&program)) {
            if Instant::now() >= deadline {
                return Err(refused(&io::Error::from_raw_os_error(libc::EBUSY)));
            }
            thread::sleep(DETACH_POLL);
        }
        Ok(())
    }

    /// Sends frames of `queue` to `socket` from now on.
    ///
    /// # Errors
    ///
    /// [`MapAccessError`] when the queue is beyond those the map was made for, or
    /// the socket has no RX ring.
    pub fn xsk_insert(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapAccessError> {
        self.xsks
            .set(queue, socket, 0)
            .map_err(|e| access(maps::XSKS, format!("inserting the socket of queue {queue}"), e))
    }

    /// Lets frames of `queue` fall back to the kernel's socket.
    ///
    /// # Errors
    ///
    /// [`MapAccessError`] when there is none.
    pub fn xsk_remove(&mut self, queue: u32) -> Result<(), MapAccessError> {
        self.xsks
            .unset(queue)
            .map_err(|e| access(maps::XSKS, format!("removing the socket of queue {queue}"), e))
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
        (0..self.exits.len()).map(|row| self.exit_row(row)).collect()
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
        program.try_into().map_err(|e: ProgramError| LoadError::Object { what: e.to_string() })
    }

    /// What a debug object logs, once; `None` for a release object.
    #[cfg(feature = "debug-log")]
    pub fn take_debug_log(&mut self) -> Option<super::debug_log::DebugLog> {
        super::debug_log::DebugLog::of(&mut self.ebpf)
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
            IpAddr::V4(a) => {
                (maps::BLOCK4, self.block4.insert(&Key::new(bits, a.octets()), value, 0))
            }
            IpAddr::V6(a) => {
                (maps::BLOCK6, self.block6.insert(&Key::new(bits, a.octets()), value, 0))
            }
        };
        done.map_err(|e| access(map, format!("blocking {prefix}"), e))
    }

    fn trie_remove(&mut self, prefix: Prefix) -> Result<(), MapAccessError> {
        let bits = u32::from(prefix.bits());
        let (map, done) = match prefix.address() {
            IpAddr::V4(a) => (maps::BLOCK4, self.block4.remove(&Key::new(bits, a.octets()))),
            IpAddr::V6(a) => (maps::BLOCK6, self.block6.remove(&Key::new(bits, a.octets()))),
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

const INSTRUCTION_BYTES: u32 = 8;

/// Longest wait for a detached program to be off its interface.
const DETACH_WAIT_MAX: Duration = Duration::from_secs(1);

/// Pause between two looks; the first one nearly always succeeds.
const DETACH_POLL: Duration = Duration::from_millis(1);

fn no_program() -> LoadError {
    LoadError::Object { what: format!("it has no program `{}`", maps::PROGRAM) }
}

fn xdp_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    let program = ebpf.program_mut(maps::PROGRAM).ok_or_else(no_program)?;
    program.try_into().map_err(|e: ProgramError| LoadError::Object { what: e.to_string() })
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| LoadError::Object { what: format!("it has no map {name}") })?;
    map.try_into().map_err(|e| LoadError::Object { what: format!("map {name}: {e}") })
}

fn access(map: &'static str, action: String, source: MapError) -> MapAccessError {
    MapAccessError { map, action, source }
}

/// A [`Block`] as the bytes the kernel keeps.
fn block_bytes(block: &Block) -> [u8; size_of::<Block>()] {
    let mut out = [0; size_of::<Block>()];
    out[..8].copy_from_slice(&block.expires_ns.to_ne_bytes());
    out[8..8 + BLOCK_REASON_BYTES_MAX].copy_from_slice(&block.reason);
    out
}
