//! Proof that the program is attached as was asked.

use std::fs;
use std::io;

use super::{AttachError, Mode};
use crate::nic::attached::Attached;
use crate::nic::facts::NicFacts;

/// Proves that `program` is on `nic` by a bpf link and in `mode`.
pub(super) fn prove(program: u32, nic: &NicFacts, mode: Mode) -> Result<(), AttachError> {
    let read_back = |source| AttachError::ReadBack { interface: nic.name.clone(), source };
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
            format!("in mode {} with programs {:?}", attached.mode.name(), attached.programs),
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
