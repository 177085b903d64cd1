//! From an error number to what is wrong and what mends it.
//!
//! Pure: a step, an error number and what is known of interface and process
//! go in, a message comes out. The kernel's own text ("Operation not
//! permitted") is the least of it.

use std::fmt::Write as _;
use std::fs;
use std::io;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Loading maps and program into the kernel.
    Load,
    /// Attaching the program to the interface.
    Attach,
    /// Opening an AF_XDP socket and binding it to a queue.
    Bind {
        /// The queue.
        queue: u32,
    },
}

impl Step {
    fn describe(self) -> String {
        match self {
            Self::Load => "loading the XDP program".to_owned(),
            Self::Attach => "attaching the XDP program".to_owned(),
            Self::Bind { queue } => format!("binding an AF_XDP socket to queue {queue}"),
        }
    }

    /// Capabilities the kernel asks for.
    const fn needs(self) -> &'static [Capability] {
        match self {
            // PERFMON: the verifier lets only its holders add a number that it
            // does not know to a packet pointer, and header lengths are such.
            Self::Load => &[Capability::BPF, Capability::NET_ADMIN, Capability::PERFMON],
            Self::Attach => &[Capability::NET_ADMIN],
            Self::Bind { .. } => &[Capability::NET_RAW],
        }
    }
}

/// One capability of <linux/capability.h>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capability {
    bit: u32,
    name: &'static str,
    /// Whether CAP_SYS_ADMIN stands in for it, as it did before 5.8.
    sys_admin_will_do: bool,
}

impl Capability {
    const NET_ADMIN: Self = Self { bit: 12, name: "CAP_NET_ADMIN", sys_admin_will_do: false };
    const NET_RAW: Self = Self { bit: 13, name: "CAP_NET_RAW", sys_admin_will_do: false };
    const PERFMON: Self = Self { bit: 38, name: "CAP_PERFMON", sys_admin_will_do: true };
    const BPF: Self = Self { bit: 39, name: "CAP_BPF", sys_admin_will_do: true };
    const SYS_ADMIN_BIT: u32 = 21;

    const fn held(self, effective: u64) -> bool {
        let admin = self.sys_admin_will_do && effective & (1 << Self::SYS_ADMIN_BIT) != 0;
        effective & (1 << self.bit) != 0 || admin
    }
}

/// What this process may do, as far as `/proc` and `/sys` tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// `CapEff` of `/proc/self/status`.
    pub effective: u64,
    /// `Seccomp` of `/proc/self/status`: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// The level in force in `/sys/kernel/security/lockdown`; `None` when the
    /// file is not there to be read.
    pub lockdown: Option<String>,
    /// Whether the process lives in a user namespace of its own, where
    /// capabilities do not reach BPF.
    pub user_namespace: bool,
}

impl Privileges {
    /// Reads those of this process. What cannot be read counts as nothing held
    /// and nothing in the way.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        Self::parse(
            &text("/proc/self/status").unwrap_or_default(),
            text("/sys/kernel/security/lockdown").as_deref(),
            text("/proc/self/uid_map").as_deref(),
        )
    }

    /// From the texts of the three files.
    #[must_use]
    pub fn parse(status: &str, lockdown: Option<&str>, uid_map: Option<&str>) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map_or("", str::trim)
        };
        let level = |text: &str| {
            let (_, rest) = text.split_once('[')?;
            Some(rest.split_once(']')?.0.to_owned())
        };
        // The initial namespace maps every id to itself.
        let initial = |map: &str| map.split_whitespace().eq(["0", "0", "4294967295"]);
        Self {
            effective: u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0),
            seccomp: field("Seccomp:").parse().unwrap_or(0),
            lockdown: lockdown.and_then(level),
            user_namespace: uid_map.is_some_and(|map| !initial(map)),
        }
    }

    /// Names of the capabilities that loading, attaching and binding need and
    /// this process does not hold; empty when it may.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = self.missing_for(Step::Load);
        missing.extend(self.missing_for(Step::Bind { queue: 0 }));
        missing
    }

    fn missing_for(&self, step: Step) -> Vec<&'static str> {
        let lacking = step.needs().iter().filter(|c| !c.held(self.effective));
        lacking.map(|c| c.name).collect()
    }

    fn explain(&self, step: Step) -> String {
        let missing = self.missing_for(step);
        if !missing.is_empty() {
            return format!(
                "this process lacks {}: grant them with `setcap \
                 cap_bpf,cap_perfmon,cap_net_admin,cap_net_raw+ep PATH-OF-VELTRIX`, with AmbientCapabilities= in its \
                 systemd unit, or run it by sudo",
                missing.join(" and ")
            );
        }
        if self.user_namespace {
            return "every capability is held, but in a user namespace of its own, where the kernel does not honour \
                    them for BPF: run it outside the rootless container"
                .to_owned();
        }
        if self.seccomp != 0 {
            return format!(
                "every capability is held and a seccomp filter is in force (Seccomp: {}), which denies the call: \
                 allow bpf(2) and AF_XDP in the container's profile, such as `--security-opt seccomp=unconfined`",
                self.seccomp
            );
        }
        match self.lockdown.as_deref() {
            Some(level) if level != "none" => format!(
                "every capability is held and the kernel is locked down ([{level}] in /sys/kernel/security/lockdown): \
                 boot with lockdown=none, or without secure boot"
            ),
            _ => "every capability is held, and neither seccomp nor lockdown is in force: a security module such as \
                  SELinux or AppArmor is left; `dmesg | grep -i denied` names its rule"
                .to_owned(),
        }
    }
}

/// What is known when a step fails.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// Interface name.
    pub interface: &'a str,
    /// The XDP mode asked for: `driver` or `generic`.
    pub mode: &'a str,
    /// Driver name; empty when the device has none.
    pub driver: &'a str,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// Ids of the programs attached to the interface.
    pub programs: &'a [u32],
    /// What the process may do.
    pub privileges: &'a Privileges,
}

/// The message for an operator: step, interface, driver, mode, queue counts,
/// what the kernel said, and the likely cure.
#[must_use]
pub fn explain(step: Step, errno: i32, scene: &Scene<'_>) -> String {
    let driver = if scene.driver.is_empty() { "none" } else { scene.driver };
    let mut out = format!(
        "{} on `{}` (driver {driver}, mode {}, {} rx and {} tx queues) failed: {}",
        step.describe(),
        scene.interface,
        scene.mode,
        scene.rx_queues,
        scene.tx_queues,
        io::Error::from_raw_os_error(errno),
    );
    if let Some(cure) = cure(step, errno, scene) {
        // Writing to a String cannot fail.
        let _ = write!(out, "; {cure}");
    }
    out
}

/// As [`explain`] for [`Step::Load`], which concerns no interface: what the
/// kernel said and the likely cure.
#[must_use]
pub fn load(errno: i32, privileges: &Privileges) -> String {
    let said = io::Error::from_raw_os_error(errno);
    let cure = match errno {
        libc::EPERM => Some(privileges.explain(Step::Load)),
        _ => cure_load(errno, privileges),
    };
    cure.map_or_else(|| said.to_string(), |cure| format!("{said}; {cure}"))
}

/// Longest excerpt of the verifier's words in a message, lines.
const VERIFIER_LINES_MAX: usize = 6;

/// The end of a verifier log, where it says what it objects to.
#[must_use]
pub fn verifier_excerpt(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let is_said = |line: &&str| {
        !line.trim().is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = log.lines().filter(is_said).collect();
    lines[lines.len().saturating_sub(VERIFIER_LINES_MAX)..].join("\n  ")
}

fn cure(step: Step, errno: i32, scene: &Scene<'_>) -> Option<String> {
    let Scene { interface, .. } = scene;
    if errno == libc::ENODEV {
        return Some(format!(
            "the interface is gone or in another network namespace: look with `ip link show {interface}`"
        ));
    }
    if errno == libc::EPERM || (errno == libc::EACCES && step != Step::Load) {
        return Some(scene.privileges.explain(step));
    }
    match step {
        Step::Load => cure_load(errno, scene.privileges),
        Step::Attach => cure_attach(errno, scene),
        Step::Bind { queue } => cure_bind(errno, queue, scene),
    }
}

fn cure_load(errno: i32, privileges: &Privileges) -> Option<String> {
    Some(match errno {
        libc::EACCES | libc::EINVAL => {
            if privileges.missing_for(Step::Load).is_empty() {
                "the verifier refused the program: it needs Linux 6.1 or later (`uname -r`)"
                    .to_owned()
            } else {
                privileges.explain(Step::Load)
            }
        }
        libc::ENOSYS => "this kernel or a seccomp filter has no bpf(2): wanted a kernel with \
                         CONFIG_BPF_SYSCALL, and the call allowed in the container's profile"
            .to_owned(),
        libc::ENOMEM | libc::E2BIG => {
            "the maps do not fit: lower `blocklist.entries_max`, or raise the memory limit \
                                       of the control group"
                .to_owned()
        }
        _ => return None,
    })
}

fn cure_attach(errno: i32, scene: &Scene<'_>) -> Option<String> {
    let Scene { interface, mode, driver, rx_queues, tx_queues, .. } = *scene;
    Some(match errno {
        libc::ENOSPC if driver == "veth" => format!(
            "a veth end needs at least as many rx queues as its peer has tx queues: set both ends alike, \
             `ethtool -L {interface} rx N tx N` here and on the peer"
        ),
        libc::ENOSPC if rx_queues != tx_queues => format!(
            "the queue counts are unequal: set them alike with `scripts/nic-queues.sh apply {interface}`"
        ),
        libc::ENOSPC => format!(
            "too many queues: this driver needs the rest of its channels for XDP's own transmit queues, so use \
             half: `scripts/nic-queues.sh apply {interface} {}`",
            (rx_queues / 2).max(1)
        ),
        libc::EOPNOTSUPP if mode == "generic" => {
            "this device takes no XDP program at all: use the UDP provider".to_owned()
        }
        libc::EOPNOTSUPP => format!(
            "the driver has no XDP in mode {mode}: choose mode generic by name (slower, it runs behind the kernel's \
             own copy), or the UDP provider; Veltrix does not step down by itself"
        ),
        libc::EBUSY | libc::EEXIST => busy(scene),
        libc::EINVAL | libc::ERANGE => format!(
            "common causes are an MTU above one page (`ip link set dev {interface} mtu 1500`), large receive offload \
             (`ethtool -K {interface} lro off`), and a queue count the driver cannot serve \
             (`scripts/nic-queues.sh check {interface}`); `dmesg | tail` has the driver's own words"
        ),
        _ => return None,
    })
}

/// Another program holds the interface.
fn busy(scene: &Scene<'_>) -> String {
    let Scene { interface, programs, .. } = scene;
    let ids: Vec<String> = programs.iter().map(u32::to_string).collect();
    let which = match ids.len() {
        0 => "another XDP program was attached a moment ago".to_owned(),
        1 => format!("another XDP program, id {}, is attached", ids[0]),
        _ => format!("other XDP programs, ids {}, are attached", ids.join(" and ")),
    };
    format!(
        "{which}: stop the process that owns it, or remove it with `ip link set dev {interface} xdp off` \
         (`xdpgeneric off` in generic mode); one held by a bpf link goes only with its owner, whom \
         `bpftool link` names"
    )
}

fn cure_bind(errno: i32, queue: u32, scene: &Scene<'_>) -> Option<String> {
    let Scene { interface, driver, rx_queues, tx_queues, .. } = *scene;
    let active = rx_queues.min(tx_queues);
    Some(match errno {
        libc::EINVAL if queue >= active => format!(
            "queue {queue} is not in use, the last one is {}: the queue count changed, set it with \
             `scripts/nic-queues.sh apply {interface} {}`",
            active.saturating_sub(1),
            queue + 1
        ),
        libc::EINVAL => "the kernel refused frame size, headroom or flags of the UMEM".to_owned(),
        libc::ENOSPC => format!(
            "the queue counts do not fit: {rx_queues} rx and {tx_queues} tx, wanted equal ones: \
             `scripts/nic-queues.sh apply {interface}`"
        ),
        libc::EBUSY => format!(
            "another AF_XDP socket is bound to queue {queue} and stayed for the whole retry: look for a second \
             veltrix or another AF_XDP program with `ss --xdp -p`"
        ),
        libc::EOPNOTSUPP => format!(
            "driver {} cannot do zero-copy on this queue: ask for zero_copy = \"auto\" or \"off\"",
            if driver.is_empty() { "none" } else { driver }
        ),
        libc::ENETDOWN => {
            format!("the interface is down: bring it up with `ip link set dev {interface} up`")
        }
        libc::ENOBUFS | libc::ENOMEM => "the UMEM does not fit: raise the locked-memory limit (`ulimit -l unlimited`, \
                                         LimitMEMLOCK=infinity in the unit), or configure fewer frames"
            .to_owned(),
        libc::EAFNOSUPPORT => "this kernel has no AF_XDP: wanted CONFIG_XDP_SOCKETS=y".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = 0x1ff_ffff_ffff;

    const HELD: Privileges =
        Privileges { effective: ALL, seccomp: 0, lockdown: None, user_namespace: false };

    fn said(step: Step, errno: i32, change: impl FnOnce(&mut Scene<'static>)) -> String {
        let mut scene = Scene {
            interface: "eth7",
            mode: "driver",
            driver: "ice",
            rx_queues: 64,
            tx_queues: 64,
            programs: &[],
            privileges: &HELD,
        };
        change(&mut scene);
        explain(step, errno, &scene)
    }

    /// What is said of `EPERM` to a process with these privileges.
    fn denied(step: Step, privileges: Privileges) -> String {
        let scene = Scene {
            interface: "eth7",
            mode: "driver",
            driver: "ice",
            rx_queues: 64,
            tx_queues: 64,
            programs: &[],
            privileges: &privileges,
        };
        explain(step, libc::EPERM, &scene)
    }

    #[test]
    fn every_message_names_interface_mode_driver_and_counts() {
        for step in [Step::Load, Step::Attach, Step::Bind { queue: 3 }] {
            for errno in 1..134 {
                let text = said(step, errno, |_| {});
                for part in ["`eth7`", "driver ice", "mode driver", "64 rx", "64 tx"] {
                    assert!(text.contains(part), "{part} is missing: {text}");
                }
            }
        }
    }

    #[test]
    fn enospc_is_about_queue_counts() {
        assert!(said(Step::Attach, libc::ENOSPC, |_| {}).contains("nic-queues.sh apply eth7 32"));
        let unequal = said(Step::Attach, libc::ENOSPC, |s| s.tx_queues = 32);
        assert!(unequal.contains("queue counts are unequal"), "{unequal}");
        let veth = said(Step::Attach, libc::ENOSPC, |s| s.driver = "veth");
        assert!(veth.contains("ethtool -L eth7 rx N tx N"), "{veth}");
    }

    #[test]
    fn eopnotsupp_is_about_the_mode() {
        let text = said(Step::Attach, libc::EOPNOTSUPP, |_| {});
        assert!(
            text.contains("mode generic by name") && text.contains("does not step down"),
            "{text}"
        );
        let text = said(Step::Bind { queue: 0 }, libc::EOPNOTSUPP, |_| {});
        assert!(text.contains("zero_copy"), "{text}");
    }

    #[test]
    fn ebusy_names_the_other_program_and_the_command() {
        for errno in [libc::EBUSY, libc::EEXIST] {
            let text = said(Step::Attach, errno, |s| s.programs = &[17]);
            assert!(text.contains("id 17,"), "{text}");
            assert!(text.contains("ip link set dev eth7 xdp off"), "{text}");
        }
        assert!(said(Step::Attach, libc::EBUSY, |s| s.programs = &[1, 2]).contains("ids 1 and 2"));
    }

    #[test]
    fn eperm_names_the_gate_that_is_closed() {
        let text = denied(Step::Load, Privileges::default());
        assert!(text.contains("lacks CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON:"), "{text}");
        let text = denied(Step::Bind { queue: 0 }, Privileges::default());
        assert!(text.contains("lacks CAP_NET_RAW:"), "{text}");
        let admin = Privileges { effective: 1 << 21 | 1 << 12, ..HELD };
        let text = denied(Step::Load, admin);
        assert!(text.contains("security module"), "{text}");
        let text = denied(Step::Load, Privileges { seccomp: 2, ..HELD });
        assert!(text.contains("seccomp filter is in force (Seccomp: 2)"), "{text}");
        let lockdown = Some("confidentiality".to_owned());
        let text = denied(Step::Load, Privileges { lockdown, ..HELD });
        assert!(text.contains("[confidentiality]"), "{text}");
        let text = denied(Step::Attach, Privileges { user_namespace: true, ..HELD });
        assert!(text.contains("user namespace"), "{text}");
    }

    #[test]
    fn a_queue_that_is_not_in_use_is_named() {
        let text = said(Step::Bind { queue: 40 }, libc::EINVAL, |s| s.rx_queues = 32);
        assert!(text.contains("the last one is 31"), "{text}");
        assert!(text.contains("nic-queues.sh apply eth7 41"), "{text}");
    }

    #[test]
    fn the_files_of_proc_and_sys_are_read() {
        let status = "Name:\tx\nCapEff:\t000000c000003000\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let read = Privileges::parse(
            status,
            Some("none [integrity] confidentiality\n"),
            Some("         0       1000          1\n"),
        );
        assert_eq!(
            read,
            Privileges {
                effective: 0xc0_0000_3000,
                seccomp: 2,
                lockdown: Some("integrity".to_owned()),
                user_namespace: true,
            }
        );
        assert!(read.missing().is_empty());
        let initial = Privileges::parse("", None, Some("         0          0 4294967295\n"));
        assert_eq!(initial, Privileges::default());
        assert_eq!(initial.missing(), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_NET_RAW"]);
    }

    #[test]
    fn the_verifier_is_quoted_by_its_last_words() {
        let log = "0: r0 = 1\n1: exit\nR1 invalid mem access\nverification time 2 usec\nstack depth 8\nprocessed 2 insns\n";
        assert!(verifier_excerpt(log).ends_with("R1 invalid mem access"));
        assert_eq!(verifier_excerpt(""), "");
    }
}
