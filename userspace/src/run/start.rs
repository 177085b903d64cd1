//! Bring-up of both providers, in the order that loses nothing, and the
//! tear-down in reverse.
//!
//! ```text
//!   facts of the NIC -> load -> attach -> facts again -> fallback socket and its lane
//!     -> per queue: socket, FILL filled, bind, lane thread pinned and running
//!     -> the log replayed, if there is one -> sockets into the XSKMAP, last
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use veltrix_abi::limits::FRAME_HEADERS_BYTES_MAX;

use super::cores::place;
use super::lanes::{LaneFacts, LaneHandle, LaneSpec, Monitor};
use super::log::Log;
use super::state::{Parts, Prepared, SplitSpec, lanes_bytes};
use crate::base::counters::LaneCounters;
use crate::base::cpu;
use crate::base::port::Port;
use crate::cli::{CliError, ExitStatus};
use crate::config::{Config, LaneCount, RateLimitMode, WaitMode, XdpMode, ZeroCopy};
use crate::lane::{LogHalfSpec, ServerFacts};
use crate::nic::attached::Attached;
use crate::nic::diagnosis::{self, Privileges, Scene, Step};
use crate::nic::facts::{NicError, NicFacts, QueueCounts};
use crate::nic::program::{self, AttachError, KernelHalf, LoadError, Mode, Rate, Settings};
use crate::udp::{ListenError, Listener, UdpMonitor, UdpPort};
use crate::xsk::{BindError, Ladder, WaitMode as XskWait, Xsk, XskPort, XskSpec};

/// Bytes the kernel keeps free before a packet in a UMEM frame.
const XDP_HEADROOM_BYTES: usize = 256;

/// A started server.
pub struct Running {
    /// The kernel half and its interface; `None` on UDP sockets.
    pub kernel: Option<KernelSide>,
    /// Lanes that receive.
    pub lanes: Vec<LaneHandle>,
    /// The lane on the fallback socket, beside XDP.
    pub fallback: Option<LaneHandle>,
    /// Address served; with XDP the fallback socket's.
    pub address: SocketAddr,
    /// Why this provider.
    pub reason: String,
    /// What an operator should know about the start.
    pub remarks: Vec<String>,
    /// Partitions that domains hash to.
    pub partitions: u16,
    /// What the log is to be started from; taken by the control loop.
    pub state: Option<Parts>,
}

/// The kernel half and where it is attached.
pub struct KernelSide {
    /// Program and maps.
    pub half: KernelHalf,
    /// The interface when it was attached.
    pub nic: NicFacts,
    /// Mode asked for and granted.
    pub mode: Mode,
    /// What a debug object logs.
    #[cfg(feature = "debug-log")]
    pub debug_log: Option<crate::nic::debug_log::DebugLog>,
}

impl Running {
    /// Stops in reverse order of the start: sockets out of the XSKMAP, lanes
    /// (which serve what has arrived), program.
    pub fn stop(&mut self) -> bool {
        let mut in_order = true;
        self.close_gates();
        self.lanes.iter().for_each(LaneHandle::ask_to_stop);
        for lane in self.lanes.iter_mut().chain(&mut self.fallback) {
            in_order &= lane.stop();
        }
        if let Some(kernel) = &mut self.kernel {
            in_order &= kernel.half.detach().is_ok();
        }
        in_order
    }
}

impl Running {
    /// Sockets out of the XSKMAP: what comes now goes to the fallback.
    pub fn close_gates(&mut self) {
        if let Some(kernel) = &mut self.kernel {
            for queue in 0..kernel.half.queues() {
                // A slot that was never filled, or whose socket is gone, is empty already.
                let _ = kernel.half.xsk_remove(queue);
            }
        }
    }

    /// Lets packets in: sockets into the XSKMAP. Without XDP they come already.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn let_in(&mut self) -> Result<(), CliError> {
        for lane in &self.lanes {
            if let (Some(kernel), Monitor::Xsk(xsk), Some(queue)) =
                (&mut self.kernel, &lane.monitor, lane.facts.queue)
            {
                kernel.half.xsk_insert(queue, xsk.fd()).map_err(|e| not_ready(e.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts what `config` asks for. Packets are let in by [`Running::let_in`].
///
/// # Errors
///
/// What is missing or wrong, with the command that mends it.
pub fn start(config: &Config, log: &Log) -> Result<Running, CliError> {
    match &config.server.nic {
        Some(nic) => start_xdp(config, nic, log),
        None => start_udp(config, log),
    }
}

/// The log's part of each lane.
type LogHalves = std::vec::IntoIter<Option<LogHalfSpec>>;

/// Takes the data directory, if one is named, and deals its state out to the
/// lanes on `cores`; `fallback` adds one that owns none. Gives the partitions
/// too.
fn start_state<P: Port>(
    config: &Config,
    cores: &[usize],
    fallback: bool,
    log: &Log,
) -> Result<(LogHalves, Option<Parts>, u16), CliError> {
    let lanes = cores.len();
    let all = lanes + usize::from(fallback);
    let Some(data) = &config.server.data else {
        keep_off(cores);
        let none: Vec<_> = std::iter::repeat_with(|| None).take(all).collect();
        return Ok((none.into_iter(), None, config.server.partitions));
    };
    let batches = usize::from(config.lanes.batches);
    let prepared = Prepared::open(data, lanes_bytes::<P>(all, batches), lanes, log)?;
    // Every core loads; what runs beside the lanes from here on keeps off theirs.
    keep_off(cores);
    let partitions = prepared.partitions();
    let deadline = Duration::from_nanos(config.lanes.deadline_ns);
    let (halves, parts) = prepared.split(SplitSpec { lanes, fallback, batches, deadline })?;
    let halves: Vec<_> = halves.into_iter().map(Some).collect();
    Ok((halves.into_iter(), Some(parts), partitions))
}

fn lane_spec(config: &Config, lanes: usize, port: u16, partitions: u16) -> LaneSpec {
    LaneSpec {
        facts: ServerFacts {
            partitions,
            lanes: lanes as u16,
            port,
            payload_bytes_max: config.server.payload_bytes_max,
        },
        deadline: Duration::from_nanos(config.lanes.deadline_ns),
        batch: usize::from(config.lanes.batch_frames),
    }
}

/// Leaves the lanes' cores to the lanes: what this thread and those it starts
/// do runs on the others, if there are others.
fn keep_off(lane_cores: &[usize]) {
    let others: Vec<usize> =
        cpu::allowed_cores().into_iter().filter(|core| !lane_cores.contains(core)).collect();
    if !others.is_empty() {
        // Refused by a cpuset: then the scheduler decides, as before.
        let _ = cpu::restrict_to(&others);
    }
}

fn not_ready(message: impl Into<String>) -> CliError {
    CliError::new(ExitStatus::HostNotReady, message)
}

/// EPERM and EACCES are the operator's rights, everything else is the host.
fn by_errno(errno: Option<i32>, message: String) -> CliError {
    let status = match errno {
        Some(libc::EPERM | libc::EACCES) => ExitStatus::NotPermitted,
        _ => ExitStatus::HostNotReady,
    };
    CliError::new(status, message)
}

impl From<ListenError> for CliError {
    fn from(e: ListenError) -> Self {
        by_errno(e.source.raw_os_error(), e.to_string())
    }
}

impl From<NicError> for CliError {
    fn from(e: NicError) -> Self {
        not_ready(e.to_string())
    }
}

impl From<LoadError> for CliError {
    fn from(e: LoadError) -> Self {
        by_errno(e.errno(), e.to_string())
    }
}

impl From<AttachError> for CliError {
    fn from(e: AttachError) -> Self {
        by_errno(e.errno(), e.to_string())
    }
}

// ---- UDP sockets ----

fn listener(config: &Config) -> Listener<'static> {
    Listener {
        interface: None,
        address: config.server.listen,
        receive_buffer_bytes: config.udp.receive_buffer_bytes as usize,
        send_buffer_bytes: config.udp.send_buffer_bytes as usize,
    }
}

fn start_udp(config: &Config, log: &Log) -> Result<Running, CliError> {
    let count = match config.lanes.count {
        LaneCount::Auto => 1,
        LaneCount::Exactly(n) => usize::from(n),
    };
    let placement = place(count, &config.lanes.cores, &cpu::allowed_cores(), &[], true)
        .map_err(|e| CliError::new(ExitStatus::BadConfig, e))?;
    let (mut halves, state, partitions) =
        start_state::<UdpPort>(config, &placement.cores, false, log)?;
    let (sockets, address) = listener(config).open(count)?;
    let spec = lane_spec(config, count, address.port(), partitions);
    let mut lanes = Vec::with_capacity(count);
    for (i, socket) in sockets.into_iter().enumerate() {
        let core = Some(placement.cores[i]);
        let half = halves.next().flatten();
        lanes.push(start_udp_lane(format!("lane-{i}"), socket, config, &spec, core, half)?);
    }
    let reason = "no NIC was named; `--nic IF` takes packets off its queues by XDP".into();
    let remarks = placement.remarks;
    Ok(Running { kernel: None, lanes, fallback: None, address, reason, remarks, partitions, state })
}

fn start_udp_lane(
    name: String,
    socket: std::net::UdpSocket,
    config: &Config,
    spec: &LaneSpec,
    core: Option<usize>,
    log: Option<LogHalfSpec>,
) -> Result<LaneHandle, CliError> {
    let failed = |e: std::io::Error| CliError::new(ExitStatus::Error, format!("{name}: {e}"));
    let payload_bytes_max = usize::from(config.server.payload_bytes_max);
    let counters = Arc::new(LaneCounters::default());
    let monitor = Monitor::Udp(UdpMonitor::new(&socket).map_err(failed)?);
    let port = UdpPort::new(socket, payload_bytes_max, spec.batch, Arc::clone(&counters));
    let facts = LaneFacts {
        queue: None,
        core,
        zero_copy: false,
        wait: "wakeup",
        pages: "4k",
        memory_bytes: port.memory_bytes(),
    };
    LaneHandle::start(name.clone(), port, spec, facts, counters, monitor, log).map_err(failed)
}

// ---- XDP ----

fn start_xdp(config: &Config, nic_name: &str, log: &Log) -> Result<Running, CliError> {
    let object = program::object().ok_or_else(|| {
        not_ready(
            "this binary was built without the XDP program; build it with `cargo xtask build`, or leave --nic out to serve on UDP sockets",
        )
    })?;
    let nic = NicFacts::read(nic_name)?;
    let mut remarks = check_nic(config, &nic)?;
    let queues = nic.active_queues().sockets;
    #[cfg_attr(not(feature = "debug-log"), expect(unused_mut, reason = "taking the log needs it"))]
    let mut half = KernelHalf::load(object, &settings(config, queues))?;
    #[cfg(feature = "debug-log")]
    let debug_log = half.take_debug_log();
    let mode = match config.xdp.mode {
        XdpMode::Driver => Mode::Driver,
        XdpMode::Generic => Mode::Generic,
    };
    let irq_cores: Vec<usize> = nic.irq_cores().into_iter().map(|c| c as usize).collect();
    let placement = place(
        queues as usize,
        &config.lanes.cores,
        &cpu::allowed_cores(),
        &irq_cores,
        config.lanes.allow_irq_cores,
    )
    .map_err(|e| CliError::new(ExitStatus::BadConfig, e))?;
    remarks.extend(placement.remarks);

    refuse_occupied(&nic, mode)?;
    let (mut halves, state, partitions) =
        start_state::<XskPort>(config, &placement.cores, true, log)?;
    let spec = lane_spec(config, queues as usize, config.server.port, partitions);
    let mut running = Running {
        kernel: Some(KernelSide {
            half,
            nic,
            mode,
            #[cfg(feature = "debug-log")]
            debug_log,
        }),
        lanes: Vec::with_capacity(queues as usize),
        fallback: None,
        address: (Ipv4Addr::UNSPECIFIED, config.server.port).into(),
        reason: format!("`{nic_name}` was named as the NIC"),
        remarks,
        partitions,
        state,
    };
    attach(&mut running)?;
    // After the attach: what comes to this socket has been counted by the program.
    let fallback = Listener { interface: Some(nic_name), ..listener(config) };
    let (socket, address) = fallback.open_any(config.server.port)?;
    running.address = address;
    // The fallback's part of the log is the last.
    let half = halves.next_back().flatten();
    running.fallback = Some(start_udp_lane("fallback".into(), socket, config, &spec, None, half)?);
    for queue in 0..queues {
        let core = placement.cores[queue as usize];
        let half = halves.next().flatten();
        let lane = start_xsk_lane(config, &running, queue, core, &spec, half)?;
        running.lanes.push(lane);
    }
    Ok(running)
}

fn settings(config: &Config, queues: u32) -> Settings {
    let (per_s, burst) = (config.rate_limit.datagrams_per_s, config.rate_limit.burst_datagrams);
    Settings {
        port: config.server.port,
        payload_bytes_max: usize::from(config.server.payload_bytes_max),
        queues,
        block_entries_max: config.blocklist.entries_max,
        blocklist: config.blocklist.enabled,
        rate: match config.rate_limit.mode {
            RateLimitMode::Off => Rate::Off,
            RateLimitMode::Observe => Rate::Observe { per_s, burst },
            RateLimitMode::Enforce => Rate::Enforce { per_s, burst },
        },
    }
}

/// What must hold before anything is changed. Gives remarks.
fn check_nic(config: &Config, nic: &NicFacts) -> Result<Vec<String>, CliError> {
    let name = &nic.name;
    if !nic.up {
        return Err(not_ready(format!("`{name}` is down; bring it up: ip link set dev {name} up")));
    }
    let active = nic.active_queues();
    if active.unequal {
        return Err(not_ready(format!(
            "`{name}` (driver {}) has {} receive and {} transmit queues; each lane needs one of both: scripts/nic-queues.sh apply {name} {}",
            nic.driver,
            nic.queues.rx,
            nic.queues.tx,
            nic.queues.rx.min(nic.queues.tx),
        )));
    }
    if let LaneCount::Exactly(n) = config.lanes.count
        && u32::from(n) != active.sockets
    {
        return Err(not_ready(format!(
            "lanes.count is {n} and `{name}` has {} active queues; a queue without a lane would be served by the slow fallback: scripts/nic-queues.sh apply {name} {n}, or leave lanes.count out",
            active.sockets,
        )));
    }
    let legal = nic.legal_queues();
    if !legal.allows(active.sockets) {
        return Err(not_ready(format!(
            "`{name}` has {} queues; with an XDP program its driver {} keeps {} to {} ({}): scripts/nic-queues.sh apply {name} {}",
            active.sockets, nic.driver, legal.least, legal.most, legal.source, legal.most,
        )));
    }
    let mut remarks = Vec::new();
    let wanted = u32::from(config.server.payload_bytes_max) + 48;
    if nic.mtu < wanted {
        remarks.push(format!(
            "`{name}` has MTU {}; datagrams of payload_bytes_max = {} over IPv6 need {wanted}: ip link set dev {name} mtu {wanted}",
            nic.mtu, config.server.payload_bytes_max,
        ));
    }
    Ok(remarks)
}

/// Refuses an interface with a program on it before anything of the host's is
/// taken, so that a second server is told of the first and not of its port.
fn refuse_occupied(nic: &NicFacts, mode: Mode) -> Result<(), CliError> {
    let programs = Attached::read(&nic.name).map(|a| a.programs).unwrap_or_default();
    if programs.is_empty() {
        return Ok(());
    }
    let why = explain(Step::Attach, libc::EBUSY, nic, mode, &programs);
    Err(by_errno(Some(libc::EBUSY), why))
}

/// The diagnosis of a failed step on this interface.
fn explain(step: Step, errno: i32, nic: &NicFacts, mode: Mode, programs: &[u32]) -> String {
    let privileges = Privileges::read();
    let scene = Scene {
        interface: &nic.name,
        mode: mode.name(),
        driver: &nic.driver,
        rx_queues: nic.queues.rx,
        tx_queues: nic.queues.tx,
        programs,
        privileges: &privileges,
    };
    diagnosis::explain(step, errno, &scene)
}

/// Attaches, then looks again: some drivers change their queues when a program
/// comes.
fn attach(running: &mut Running) -> Result<(), CliError> {
    let Some(kernel) = &mut running.kernel else { return Ok(()) };
    kernel.half.attach(&kernel.nic, kernel.mode)?;
    let after = QueueCounts::read(&kernel.nic.name)?;
    if after != kernel.nic.queues {
        return Err(not_ready(format!(
            "`{0}` (driver {1}) went from {2} to {3} receive queues when the XDP program was attached; give it a count that it keeps: scripts/nic-queues.sh apply {0} {4}",
            kernel.nic.name,
            kernel.nic.driver,
            kernel.nic.queues.rx,
            after.rx,
            kernel.nic.legal_queues().most,
        )));
    }
    Ok(())
}

fn start_xsk_lane(
    config: &Config,
    running: &Running,
    queue: u32,
    core: usize,
    spec: &LaneSpec,
    log: Option<LogHalfSpec>,
) -> Result<LaneHandle, CliError> {
    let failed =
        |e: std::io::Error| CliError::new(ExitStatus::Error, format!("lane of queue {queue}: {e}"));
    let Some(kernel) = &running.kernel else {
        return Err(not_ready("no kernel half"));
    };
    let socket = xsk_spec(config, kernel.nic.index, queue);
    let xsk = Xsk::open(&socket).map_err(|e| bind_failed(&e, kernel, queue))?;
    let facts = LaneFacts {
        queue: Some(queue),
        core: Some(core),
        zero_copy: xsk.is_zero_copy(),
        wait: config.xdp.wait.name(),
        pages: xsk.umem().pages().name(),
        memory_bytes: xsk.umem().bytes(),
    };
    let monitor = Monitor::Xsk(Box::new(xsk.monitor(&socket).map_err(failed)?));
    let counters = Arc::new(LaneCounters::default());
    let port = XskPort::new(
        xsk,
        config.server.port,
        usize::from(config.server.payload_bytes_max),
        Arc::clone(&counters),
    );
    LaneHandle::start(format!("lane-{queue}"), port, spec, facts, counters, monitor, log)
        .map_err(failed)
}

fn xsk_spec(config: &Config, ifindex: u32, queue: u32) -> XskSpec {
    XskSpec {
        ifindex,
        queue,
        rx_ring_frames: config.xdp.rx_ring_frames,
        tx_ring_frames: config.xdp.tx_ring_frames,
        frame_bytes: frame_bytes(usize::from(config.server.payload_bytes_max)),
        zero_copy: match config.xdp.zero_copy {
            ZeroCopy::Auto => Ladder::Auto,
            ZeroCopy::Require => Ladder::Require,
            ZeroCopy::Off => Ladder::Off,
        },
        wait: match config.xdp.wait {
            WaitMode::Wakeup => XskWait::Wakeup,
            WaitMode::Spin => XskWait::Spin,
            WaitMode::PreferBusy => XskWait::PreferBusy {
                us: config.xdp.busy_poll_us,
                budget: u32::from(config.xdp.busy_poll_budget),
            },
        },
        huge_pages: config.xdp.huge_pages,
    }
}

/// The smaller of the two frame sizes that holds the largest datagram.
fn frame_bytes(payload_bytes_max: usize) -> u32 {
    let least = XDP_HEADROOM_BYTES
        + crate::xsk::HEADROOM_BYTES as usize
        + FRAME_HEADERS_BYTES_MAX
        + payload_bytes_max;
    if least <= 2_048 { 2_048 } else { 4_096 }
}

fn bind_failed(error: &BindError, kernel: &KernelSide, queue: u32) -> CliError {
    let errno = error.source.raw_os_error();
    let programs = Attached::read(&kernel.nic.name).map(|a| a.programs).unwrap_or_default();
    let why = match errno {
        Some(errno) => explain(Step::Bind { queue }, errno, &kernel.nic, kernel.mode, &programs),
        None => format!("AF_XDP socket of queue {queue}: {}", error.source),
    };
    by_errno(errno, format!("{why} (while trying to {})", error.step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use veltrix_abi::limits::{PAYLOAD_BYTES_LIMIT, PAYLOAD_BYTES_MAX_DEFAULT};

    #[test]
    fn frames_hold_the_largest_datagram() {
        assert_eq!(frame_bytes(PAYLOAD_BYTES_MAX_DEFAULT), 2_048);
        assert_eq!(frame_bytes(PAYLOAD_BYTES_LIMIT), 4_096);
    }
}
