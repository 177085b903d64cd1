//! The lab's eBPF object: loading it, attaching its programs, and the
//! receivers that do nothing but count.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{Xdp, XdpMode, loaded_links};
use aya::{Ebpf, EbpfLoader, Pod};

use super::layout::{
    DROP_PROGRAM, GeneratorCounts, GeneratorSettings, PASS_PROGRAM, RECEIVED_MAP, ReceiveCounts,
    SinkCounts, SinkSettings,
};
use super::{Lab, Shared, Side, link};

/// Environment variable: path of the built lab object.
pub const OBJECT_ENV: &str = "VELTRIX_LAB_OBJECT";

// SAFETY: repr(C), whole numbers only, no padding: any bytes are a value.
unsafe impl Pod for GeneratorSettings {}
// SAFETY: as above.
unsafe impl Pod for GeneratorCounts {}
// SAFETY: as above.
unsafe impl Pod for SinkSettings {}
// SAFETY: as above.
unsafe impl Pod for SinkCounts {}
// SAFETY: as above.
unsafe impl Pod for ReceiveCounts {}

/// Loads a fresh copy of the object: maps of its own, no program yet.
pub(super) fn load() -> Result<Ebpf> {
    const CURE: &str = "build it and set the variable with `cargo xtask build-ebpf`";
    let Some(path) = std::env::var_os(OBJECT_ENV).map(PathBuf::from) else {
        bail!("lab: {OBJECT_ENV} is not set, wanted the path of the lab's eBPF object: {CURE}");
    };
    let bytes = std::fs::read(&path).with_context(|| {
        format!("lab: {OBJECT_ENV} names {}, which cannot be read: {CURE}", path.display())
    })?;
    EbpfLoader::new()
        .load(&bytes)
        .with_context(|| format!("lab: {} is refused: {CURE}", path.display()))
}

/// The program `name`, loaded.
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| {
        format!("lab: the object has no program {name}: cargo xtask build-ebpf")
    })?;
    let program: &mut Xdp = program.try_into().with_context(|| format!("lab: {name}"))?;
    program.load().with_context(|| format!("lab: the kernel refuses program {name}"))?;
    Ok(program)
}

/// Loads `name` and attaches it to a side's interface in native mode, by a
/// link that goes with the object.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, shared: &Shared, side: Side) -> Result<()> {
    let program = program(ebpf, name)?;
    let interface = side.interface();
    let namespace = shared.namespace(side);
    let queues = |side: Side| link::channels(shared.namespace(side), side.interface());
    let attached = namespace.enter(|| program.attach(interface, XdpMode::Driver));
    let attached = attached.with_context(|| {
        format!(
            "lab: {name} cannot be attached to {interface} in native mode (queues: server {:?}, client {:?}); \
             it wants as many receive queues as the peer has transmit queues, and no other program there",
            queues(Side::Server).ok(),
            queues(Side::Client).ok()
        )
    })?;
    // Where the kernel makes no link, the loader attaches by netlink without
    // a word, and such a program would outlive its object.
    let id = program.info().with_context(|| format!("lab: {name}"))?.id();
    let linked = loaded_links().any(|link| link.is_ok_and(|link| link.program_id() == id));
    if !linked {
        program.detach(attached).with_context(|| format!("lab: detach of {name}"))?;
        bail!(
            "lab: {name} on {interface} got no bpf_link, wanted one: the kernel is older than 5.9"
        );
    }
    Ok(())
}

/// A one-element settings map.
pub(super) fn settings<'a, T: Pod>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<Array<&'a mut MapData, T>> {
    let map = ebpf.map_mut(name).with_context(|| format!("lab: the object has no map {name}"))?;
    Array::try_from(map).with_context(|| format!("lab: map {name} is not as the lab knows it"))
}

/// Counters of every CPU in row `row` of a per-CPU map.
pub(super) fn counts<T: Pod>(ebpf: &Ebpf, name: &str, row: u32) -> Result<Vec<T>> {
    let map = ebpf.map(name).with_context(|| format!("lab: the object has no map {name}"))?;
    let map: PerCpuArray<_, T> = PerCpuArray::try_from(map)
        .with_context(|| format!("lab: map {name} is not as the lab knows it"))?;
    let values = map.get(&row, 0).with_context(|| format!("lab: row {row} of map {name}"))?;
    Ok(values.iter().copied().collect())
}

/// What a [`Receiver`] does with frames after counting them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverKind {
    /// Drops them.
    Drop,
    /// Hands them to the kernel's stack.
    Pass,
}

/// Counts of a [`Receiver`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Frames the program saw.
    pub frames: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Frames by CPU.
    pub frames_by_cpu: Vec<u64>,
}

/// An XDP program that counts frames. Detached when dropped: frames still in
/// the interface's rings are lost then.
pub struct Receiver {
    ebpf: Ebpf,
    _shared: Arc<Shared>,
}

impl Receiver {
    /// Attaches a receiver to one end in native mode.
    ///
    /// # Errors
    ///
    /// No object, or the kernel refuses: with interface, queue counts and cure.
    pub fn attach(lab: &Lab, side: Side, kind: ReceiverKind) -> Result<Self> {
        let mut ebpf = load()?;
        let name = match kind {
            ReceiverKind::Drop => DROP_PROGRAM,
            ReceiverKind::Pass => PASS_PROGRAM,
        };
        attach(&mut ebpf, name, &lab.shared, side)?;
        Ok(Self { ebpf, _shared: Arc::clone(&lab.shared) })
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn read(&self) -> Result<Received> {
        let counts: Vec<ReceiveCounts> = counts(&self.ebpf, RECEIVED_MAP, 0)?;
        Ok(Received {
            frames: counts.iter().map(|c| c.frames).sum(),
            bytes: counts.iter().map(|c| c.bytes).sum(),
            frames_by_cpu: counts.iter().map(|c| c.frames).collect(),
        })
    }
}
