//! What a network interface is: index, hardware address, driver, queues, interrupts.
//!
//! Everything is read, nothing is changed, and no privilege is needed; what
//! changes a NIC is `scripts/nic-queues.sh`. [`NicFacts`] is the whole
//! picture, read at start and for `status`. [`QueueCounts`] is the part that
//! can change under a running appliance: one ioctl, cheap enough to be read
//! again each second for the alarm.
//!
//! Queue counts come from the driver (`ETHTOOL_GCHANNELS`), which answers for
//! the namespace of the calling thread. `/sys/class/net` is consulted only
//! for a driver that reports no channels, and only after its index and
//! hardware address have shown that it speaks of the same interface: inside a
//! network namespace `/sys` often still shows the host's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::base::ethtool::{Channels, ControlSocket, DriverInfo};
use crate::base::netif::{self, InterfaceName, Link};

/// Why an interface could not be read.
#[derive(Debug, Error)]
pub enum NicError {
    /// There is no such interface here.
    #[error("interface `{name}`: wanted one of this network namespace, which has {}{}; list them with `ip link`",
        list(known), hint(nearest.as_deref()))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
        /// The name that looks most like the one asked for.
        nearest: Option<String>,
    },
    /// The kernel refused a question.
    #[error("interface `{name}`: {question} failed: {source}")]
    Ask {
        /// The interface.
        name: String,
        /// The ioctl or call, by its name.
        question: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither the driver nor `/sys` tells the queue counts.
    #[error(
        "interface `{name}` (driver {driver}): the driver reports no channels and /sys/class/net/{name}/queues \
         is not of this network namespace; wanted one of the two, mount it with `mount -t sysfs sysfs /sys` in the namespace"
    )]
    QueuesUnknown {
        /// The interface.
        name: String,
        /// Its driver.
        driver: String,
    },
}

/// The names as prose.
fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

/// The nearest name as prose.
fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// Least similarity, by [`strsim::jaro_winkler`], at which a name is offered
/// as what was meant: `eth1` for `eht1` is 0.93, `lo` for `eth0` is 0.
const SIMILARITY_MIN: f64 = 0.75;

impl NicError {
    /// "No such interface", with the names there are.
    fn unknown(name: &str) -> Self {
        // An unreadable list must not hide that the interface is missing.
        let known = netif::interface_names().unwrap_or_default();
        let nearest = known
            .iter()
            .map(|there| (strsim::jaro_winkler(name, there), there))
            .filter(|&(similarity, _)| similarity >= SIMILARITY_MIN)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, there)| there.clone());
        Self::Unknown { name: name.to_owned(), known, nearest }
    }

    fn ask(name: &InterfaceName, question: &'static str, source: io::Error) -> Self {
        if source.raw_os_error() == Some(libc::ENODEV) {
            return Self::unknown(name.as_str());
        }
        Self::Ask { name: name.as_str().to_owned(), question, source }
    }
}

/// Where queue counts were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueSource {
    /// The driver's channels, in the form that `ethtool -L` sets.
    Channels(ChannelStyle),
    /// `/sys/class/net/IF/queues`: the driver reports no channels, so the
    /// counts cannot be set either.
    Sysfs,
}

/// How a driver names its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelStyle {
    /// `ethtool -L IF combined N`: physical NICs and virtio.
    Combined,
    /// `ethtool -L IF rx N tx N`: veth and a few NICs.
    Separate,
}

/// Queues in use now, and the most that there could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCounts {
    /// Receive queues in use.
    pub rx: u32,
    /// Transmit queues in use.
    pub tx: u32,
    /// Most receive queues.
    pub rx_max: u32,
    /// Most transmit queues.
    pub tx_max: u32,
    /// Where the counts were read.
    pub source: QueueSource,
}

/// What the queue counts mean for AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveQueues {
    /// Sockets to bind: one for each receive queue, or frames of the queues
    /// left out never reach a lane.
    pub sockets: u32,
    /// Receive and transmit counts differ. A socket beyond the transmit count
    /// cannot answer, and on veth a peer that sends on more queues than this
    /// end receives on makes driver-mode attach fail with `ENOSPC`.
    pub unequal: bool,
}

impl QueueCounts {
    /// Reads the counts of `name` in the calling thread's namespace.
    ///
    /// # Errors
    /// [`NicError::Unknown`] when the interface is gone, otherwise what the
    /// kernel said.
    pub fn read(name: &str) -> Result<Self, NicError> {
        let (socket, name) = open(name)?;
        Self::read_with(&socket, &name)
    }

    fn read_with(socket: &ControlSocket, name: &InterfaceName) -> Result<Self, NicError> {
        match socket.channels(name) {
            Ok(channels) => Ok(Self::from_channels(channels)),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Self::from_sysfs(socket, name)
            }
            Err(error) => Err(NicError::ask(name, "ETHTOOL_GCHANNELS", error)),
        }
    }

    fn from_channels(channels: Channels) -> Self {
        let style =
            if channels.combined_max > 0 { ChannelStyle::Combined } else { ChannelStyle::Separate };
        let most = |own: u32| match style {
            ChannelStyle::Combined => channels.combined_max,
            ChannelStyle::Separate => own,
        };
        Self {
            // A combined channel is one queue of each kind, and some drivers
            // run combined and one-way channels side by side.
            rx: channels.combined + channels.rx,
            tx: channels.combined + channels.tx,
            rx_max: most(channels.rx_max),
            tx_max: most(channels.tx_max),
            source: QueueSource::Channels(style),
        }
    }

    fn from_sysfs(socket: &ControlSocket, name: &InterfaceName) -> Result<Self, NicError> {
        let unknown = || NicError::QueuesUnknown {
            name: name.as_str().to_owned(),
            driver: socket.driver(name).map_or_else(|_| "unknown".to_owned(), |info| info.driver),
        };
        let link = netif::link(socket, name).map_err(|e| NicError::ask(name, "SIOCGIFINDEX", e))?;
        let queues = sysfs_of(name, &link).ok_or_else(unknown)?.join("queues");
        let entries = fs::read_dir(queues).map_err(|_| unknown())?;
        let (mut rx, mut tx) = (0, 0);
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let file_name = file_name.to_string_lossy();
            rx += u32::from(file_name.starts_with("rx-"));
            tx += u32::from(file_name.starts_with("tx-"));
        }
        if rx == 0 {
            return Err(unknown());
        }
        Ok(Self { rx, tx, rx_max: rx, tx_max: tx, source: QueueSource::Sysfs })
    }

    /// What these counts mean for AF_XDP.
    #[must_use]
    pub fn active_queues(&self) -> ActiveQueues {
        ActiveQueues { sockets: self.rx, unequal: self.rx != self.tx }
    }

    /// Most queues that could carry a socket: a socket needs one of each kind.
    #[must_use]
    pub fn sockets_max(&self) -> u32 {
        self.rx_max.min(self.tx_max)
    }
}

/// Everything Veltrix asks of an interface.
#[derive(Clone, Debug)]
pub struct NicFacts {
    /// Its name.
    pub name: String,
    /// Its index in this namespace.
    pub index: u32,
    /// Hardware address; `None` for a device that has none of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Up and with a carrier.
    pub running: bool,
    /// Driver name; empty when the device has none (`lo`).
    pub driver: String,
    /// Bus address; empty for a device without a bus.
    pub bus: String,
    /// Queue counts.
    pub queues: QueueCounts,
    /// MSI interrupts of the device, ascending; empty for veth.
    pub irqs: Vec<u32>,
}

impl NicFacts {
    /// Reads all of it, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NicError::Unknown`] with the names there are, otherwise what the
    /// kernel said.
    pub fn read(name: &str) -> Result<Self, NicError> {
        let (socket, name) = open(name)?;
        let link =
            netif::link(&socket, &name).map_err(|e| NicError::ask(&name, "SIOCGIFINDEX", e))?;
        let driver = match socket.driver(&name) {
            Ok(info) => info,
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                DriverInfo { driver: String::new(), bus: String::new() }
            }
            Err(error) => return Err(NicError::ask(&name, "ETHTOOL_GDRVINFO", error)),
        };
        let device = device_of(&name, &link, &driver);
        Ok(Self {
            queues: QueueCounts::read_with(&socket, &name)?,
            irqs: device.as_deref().map(irqs).unwrap_or_default(),
            name: name.as_str().to_owned(),
            index: link.index,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            running: link.running,
            driver: driver.driver,
            bus: driver.bus,
        })
    }

    /// What the queue counts mean for AF_XDP.
    #[must_use]
    pub fn active_queues(&self) -> ActiveQueues {
        self.queues.active_queues()
    }

    /// The queue counts that this driver keeps with an XDP program on it.
    #[must_use]
    pub fn legal_queues(&self) -> LegalQueues {
        legal_queue_count(&self.driver, self.queues.sockets_max(), possible_cpus())
    }

    /// Cores that the device's interrupts are delivered to now, ascending and
    /// each once; empty for veth, which has no interrupt.
    #[must_use]
    pub fn irq_cores(&self) -> Vec<u32> {
        let mut cores: Vec<u32> = self.irqs.iter().flat_map(|&irq| irq_affinity(irq)).collect();
        cores.sort_unstable();
        cores.dedup();
        cores
    }
}

/// A control socket and a name that the kernel could know.
fn open(name: &str) -> Result<(ControlSocket, InterfaceName), NicError> {
    let valid = InterfaceName::new(name).ok_or_else(|| NicError::unknown(name))?;
    let socket = ControlSocket::open().map_err(|e| NicError::ask(&valid, "socket", e))?;
    Ok((socket, valid))
}

/// `/sys/class/net/IF`, if what `/sys` shows under this name is this interface.
fn sysfs_of(name: &InterfaceName, link: &Link) -> Option<PathBuf> {
    let path = Path::new("/sys/class/net").join(name.as_str());
    let index: u32 = fs::read_to_string(path.join("ifindex")).ok()?.trim().parse().ok()?;
    let address = fs::read_to_string(path.join("address")).ok()?;
    let same_address = link.mac.is_none_or(|mac| mac_text(mac) == address.trim());
    (index == link.index && same_address).then_some(path)
}

/// A hardware address as the kernel writes it.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The device's directory, by bus address first: that works in every network
/// namespace, and for virtio it names the PCI function, which holds the
/// interrupts, and not the virtio device on top of it.
fn device_of(name: &InterfaceName, link: &Link, driver: &DriverInfo) -> Option<PathBuf> {
    let is_plain = !driver.bus.is_empty() && !driver.bus.contains('/') && driver.bus != "..";
    if is_plain {
        let pci = Path::new("/sys/bus/pci/devices").join(&driver.bus);
        if pci.is_dir() {
            return Some(pci);
        }
    }
    let device = sysfs_of(name, link)?.join("device");
    device.is_dir().then_some(device)
}

/// File names under `msi_irqs` are interrupt numbers. Names in
/// `/proc/interrupts` are the driver's whim and are not looked at.
fn irqs(device: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(device.join("msi_irqs")) else {
        return Vec::new();
    };
    let mut irqs: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    irqs.sort_unstable();
    irqs
}

/// Cores that one interrupt is delivered to. An interrupt that nobody has
/// requested has an empty effective list.
fn irq_affinity(irq: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/irq/{irq}/effective_affinity_list"))
        .map(|text| parse_cpu_list(&text))
        .unwrap_or_default()
}

/// Parses the kernel's list form, such as `0-3,8`; what is not of that form
/// is left out.
fn parse_cpu_list(text: &str) -> Vec<u32> {
    /// Far above any kernel's `NR_CPUS`; bounds what a broken file can cost.
    const CPU_MAX: u32 = 65_536;
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
            && first <= last
            && last < CPU_MAX
        {
            cpus.extend(first..=last);
        }
    }
    cpus
}

/// CPUs that the kernel could ever bring up (`nr_cpu_ids`), which is what
/// drivers reserve XDP transmit queues for.
#[must_use]
pub fn possible_cpus() -> u32 {
    fs::read_to_string("/sys/devices/system/cpu/possible")
        .ok()
        .and_then(|text| parse_cpu_list(&text).last().map(|last| last + 1))
        // Without /sys, the CPUs this process may use are the best guess.
        .or_else(|| std::thread::available_parallelism().ok()?.get().try_into().ok())
        .unwrap_or(1)
}

/// What a driver asks of the channel count before it takes an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelRule {
    /// Every channel may be used.
    All,
    /// At most half: the other half become XDP transmit queues, and attach
    /// fails otherwise.
    Half,
    /// Attach adds a queue pair for each possible CPU, if that many channels
    /// are left, and the device may steer frames to them. Only counts that
    /// leave fewer stay what they are; XDP's own transmit then takes a lock,
    /// which costs AF_XDP nothing: its sockets send on the ordinary queues.
    FewSpare,
}

/// One driver's rule and where it was read.
#[derive(Clone, Copy, Debug)]
pub struct DriverRow {
    /// Name as `ETHTOOL_GDRVINFO` gives it.
    pub driver: &'static str,
    /// Its rule.
    pub rule: ChannelRule,
    /// File and function of the Linux source that states it.
    pub source: &'static str,
}

/// Drivers whose rule was read in the Linux source. `scripts/nic-queues.sh`
/// holds the same table; a test compares the two.
pub const DRIVERS: &[DriverRow] = &[
    DriverRow {
        driver: "ena",
        rule: ChannelRule::Half,
        source: "drivers/net/ethernet/amazon/ena/ena_xdp.h: ena_xdp_legal_queue_count, 2 * queues <= max",
    },
    DriverRow {
        driver: "gve",
        rule: ChannelRule::Half,
        source: "drivers/net/ethernet/google/gve/gve_main.c: verify_xdp_configuration, rx == tx and 2 * tx <= max",
    },
    DriverRow {
        driver: "virtio_net",
        rule: ChannelRule::FewSpare,
        source: "drivers/net/virtio_net.c: virtnet_xdp_set, adds nr_cpu_ids queue pairs if current + nr_cpu_ids <= max",
    },
    DriverRow {
        driver: "veth",
        rule: ChannelRule::All,
        source: "drivers/net/veth.c: veth_xdp_set, rx >= the peer's tx, else ENOSPC",
    },
];

/// For drivers without a row: attach itself is the judge.
const NO_ROW: DriverRow = DriverRow {
    driver: "",
    rule: ChannelRule::All,
    source: "no limit known for this driver; attaching the program is the test",
};

/// How many queues a driver can have with an XDP program on it, and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegalQueues {
    /// The fewest queues: below, attach itself adds some.
    pub least: u32,
    /// The most queues; 0 when the driver has too few channels for XDP at all.
    pub most: u32,
    /// The rule it follows from.
    pub rule: ChannelRule,
    /// Where the rule was read.
    pub source: &'static str,
}

impl LegalQueues {
    /// Whether `queues` stays what it is when a program is attached.
    #[must_use]
    pub fn allows(&self, queues: u32) -> bool {
        (self.least..=self.most).contains(&queues)
    }
}

/// The queue counts that `driver` keeps with an XDP program on it, when it
/// has at most `max` channels and the host `cpus` possible CPUs.
#[must_use]
pub fn legal_queue_count(driver: &str, max: u32, cpus: u32) -> LegalQueues {
    let row = DRIVERS.iter().find(|row| row.driver == driver).unwrap_or(&NO_ROW);
    let (least, most) = match row.rule {
        ChannelRule::All => (1, max),
        ChannelRule::Half => (1, max / 2),
        ChannelRule::FewSpare => (max.saturating_sub(cpus) + 1, max),
    };
    LegalQueues { least, most, rule: row.rule, source: row.source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_interface_names_what_there_is() {
        let error = NicFacts::read("l0").expect_err("there is no l0").to_string();
        assert!(error.contains("`l0`"), "{error}");
        assert!(error.contains("lo"), "{error}");
        assert!(error.contains("ip link"), "{error}");
        let error = NicFacts::read("").expect_err("no interface has no name");
        assert!(matches!(error, NicError::Unknown { .. }));
        let error = QueueCounts::read("a/../b").expect_err("not a name");
        assert!(matches!(error, NicError::Unknown { .. }));
    }

    #[test]
    fn the_nearest_name_is_offered() {
        let error = NicError::Unknown {
            name: "eht0".into(),
            known: vec!["lo".into(), "eth0".into()],
            nearest: Some("eth0".into()),
        };
        let text = error.to_string();
        assert!(text.contains("which has lo, eth0 (did you mean `eth0`?)"), "{text}");
        assert!(strsim::jaro_winkler("eht0", "eth0") >= SIMILARITY_MIN);
        assert!(strsim::jaro_winkler("eth0", "lo") < SIMILARITY_MIN);
    }

    #[test]
    fn loopback_facts_come_without_channels() {
        let facts = NicFacts::read("lo").expect("lo");
        assert!(facts.irqs.is_empty());
        assert!(facts.irq_cores().is_empty());
        assert_eq!(facts.queues.source, QueueSource::Sysfs);
        assert!(facts.active_queues().sockets >= 1);
    }

    #[test]
    fn combined_channels_count_on_both_sides() {
        let counts = QueueCounts::from_channels(Channels {
            rx_max: 8,
            tx_max: 8,
            combined_max: 16,
            rx: 0,
            tx: 2,
            combined: 4,
        });
        assert_eq!((counts.rx, counts.tx), (4, 6));
        assert_eq!((counts.rx_max, counts.tx_max), (16, 16));
        assert_eq!(counts.source, QueueSource::Channels(ChannelStyle::Combined));
        let active = counts.active_queues();
        assert_eq!(active.sockets, 4);
        assert!(active.unequal);
    }

    #[test]
    fn separate_channels_stay_separate() {
        let counts = QueueCounts::from_channels(Channels {
            rx_max: 8,
            tx_max: 4,
            combined_max: 0,
            rx: 2,
            tx: 2,
            combined: 0,
        });
        assert_eq!((counts.rx, counts.tx, counts.sockets_max()), (2, 2, 4));
        assert!(!counts.active_queues().unequal);
    }

    #[test]
    fn drivers_that_need_channels_for_xdp() {
        let legal = |driver, max, cpus| {
            let legal = legal_queue_count(driver, max, cpus);
            (legal.least, legal.most)
        };
        assert_eq!(legal("ena", 32, 64), (1, 16));
        assert_eq!(legal("ena", 1, 64), (1, 0));
        assert_eq!(legal("gve", 5, 4), (1, 2));
        assert_eq!(legal("virtio_net", 8, 2), (7, 8));
        assert_eq!(legal("virtio_net", 2, 2), (1, 2));
        assert_eq!(legal("virtio_net", 2, 64), (1, 2));
        assert_eq!(legal("veth", 128, 2), (1, 128));
        assert_eq!(legal("a-driver-of-tomorrow", 7, 2), (1, 7));
        let virtio = legal_queue_count("virtio_net", 8, 2);
        assert!(!virtio.allows(6) && virtio.allows(7) && !virtio.allows(9));
    }

    #[test]
    fn cpu_lists_parse_and_junk_is_left_out() {
        assert_eq!(parse_cpu_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_cpu_list("\n"), [0_u32; 0]);
        assert_eq!(parse_cpu_list("5"), [5]);
        assert_eq!(parse_cpu_list("3-1,x,2-,4000000000-4000000001"), [0_u32; 0]);
        assert!(possible_cpus() >= 1);
    }

    #[test]
    fn a_mac_is_written_as_the_kernel_does() {
        assert_eq!(mac_text([0, 0x1b, 0xff, 2, 3, 4]), "00:1b:ff:02:03:04");
    }
}
