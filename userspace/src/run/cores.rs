//! Which core each lane runs on.

use crate::config::Cores;

/// Where the lanes go, and what an operator should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Core of lane n; as many as there are lanes.
    pub cores: Vec<usize>,
    /// Remarks: lanes that share a core, lanes on an interrupt's core.
    pub remarks: Vec<String>,
}

/// Chooses a core for each of `lanes`.
///
/// `auto` takes the cores this process may use, last first, since interrupts
/// and other work gather on the first, and leaves out `irq_cores` unless
/// `allow_irq_cores`. A list is taken as it stands.
///
/// # Errors
///
/// A listed core that the process may not use, or one that serves the NIC's
/// interrupts while `allow_irq_cores` is off; no other core to choose.
pub fn place(
    lanes: usize,
    wanted: &Cores,
    allowed: &[usize],
    irq_cores: &[usize],
    allow_irq_cores: bool,
) -> Result<Placement, String> {
    let mut remarks = Vec::new();
    let candidates = match wanted {
        Cores::Auto => {
            let free: Vec<usize> = allowed
                .iter()
                .rev()
                .copied()
                .filter(|core| allow_irq_cores || !irq_cores.contains(core))
                .collect();
            if free.is_empty() {
                return Err(format!(
                    "lanes.cores: every core this process may use ({allowed:?}) serves the NIC's interrupts; move those to one core, or set lanes.allow_irq_cores = true"
                ));
            }
            free
        }
        Cores::List(list) => {
            if let Some(core) = list.iter().find(|core| !allowed.contains(core)) {
                return Err(format!(
                    "lanes.cores: core {core} was named; this process may use {allowed:?} (`taskset -pc $$` shows and sets it)"
                ));
            }
            if let Some(core) = list.iter().find(|core| irq_cores.contains(core))
                && !allow_irq_cores
            {
                return Err(format!(
                    "lanes.cores: core {core} serves the NIC's interrupts (cores {irq_cores:?}); name others, or set lanes.allow_irq_cores = true"
                ));
            }
            list.clone()
        }
    };
    if candidates.is_empty() {
        return Err("no core is known that this process may use".into());
    }
    if lanes > candidates.len() {
        remarks.push(format!(
            "{lanes} lanes share {} cores {candidates:?}: each lane should have one of its own",
            candidates.len()
        ));
    }
    let cores = candidates.iter().cycle().take(lanes).copied().collect();
    Ok(Placement { cores, remarks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_last_cores_and_avoids_interrupts() {
        let p = place(2, &Cores::Auto, &[0, 1, 2, 3], &[3], false).unwrap();
        assert_eq!(p, Placement { cores: vec![2, 1], remarks: vec![] });
        let refused = place(1, &Cores::Auto, &[0, 1], &[0, 1], false).unwrap_err();
        assert!(refused.contains("lanes.allow_irq_cores"), "{refused}");
        assert_eq!(place(1, &Cores::Auto, &[0, 1], &[0, 1], true).unwrap().cores, [1]);
    }

    #[test]
    fn more_lanes_than_cores_share_and_say_so() {
        let p = place(3, &Cores::Auto, &[0, 1], &[], false).unwrap();
        assert_eq!(p.cores, [1, 0, 1]);
        assert!(p.remarks[0].contains("3 lanes share 2 cores"));
    }

    #[test]
    fn a_list_is_checked() {
        let list = |l: &[usize]| Cores::List(l.to_vec());
        assert!(place(1, &list(&[7]), &[0, 1], &[], false).unwrap_err().contains("core 7"));
        assert!(place(1, &list(&[0]), &[0, 1], &[0], false).unwrap_err().contains("interrupts"));
        assert_eq!(place(1, &list(&[0]), &[0, 1], &[0], true).unwrap().cores, [0]);
    }
}
