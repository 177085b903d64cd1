//! Attaching to an interface of the lab: proven mode, named refusals, nothing left behind.

use veltrix::nic::attached::{Attached, AttachedMode};
use veltrix::nic::facts::NicFacts;
use veltrix::nic::program::{KernelHalf, Mode, Settings};
use veltrix_tests::lab::{Lab, LabSpec, SERVER_INTERFACE, Side, require_privileges};
use veltrix_tests::testrun::require;

use super::plain;

/// Runs `f` on the lab's server side with the object, unless skipped.
fn on_server(name: &str, queues: u32, f: impl FnOnce(&Lab, &[u8]) + Send) {
    let Some(object) = require(name) else { return };
    if !require_privileges(name) {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(queues)).unwrap();
    lab.server(|| f(&lab, &object));
}

fn nic() -> NicFacts {
    NicFacts::read(SERVER_INTERFACE).unwrap()
}

fn attached() -> Attached {
    Attached::read(SERVER_INTERFACE).unwrap()
}

#[test]
fn the_mode_asked_for_is_the_mode_attached() {
    on_server("the_mode_asked_for_is_the_mode_attached", 2, |_, object| {
        for mode in [Mode::Driver, Mode::Generic] {
            let mut half = KernelHalf::load(object, &Settings { queues: 2, ..plain() }).unwrap();
            half.attach(&nic(), mode).unwrap();
            let facts = half.facts().unwrap();
            let (interface, seen) = facts.attached.unwrap();
            assert_eq!((interface.as_str(), seen.name()), (SERVER_INTERFACE, mode.name()));
            assert_eq!(attached().programs, [facts.id]);
            let again = half.attach(&nic(), mode).unwrap_err();
            assert!(again.to_string().contains("already"), "{again}");
            half.detach().unwrap();
            assert_eq!(attached().mode, AttachedMode::None);
            half.attach(&nic(), mode).unwrap();
            drop(half);
            assert_eq!(attached().mode, AttachedMode::None);
        }
    });
}

#[test]
fn a_second_program_is_refused_and_the_first_one_named() {
    on_server("a_second_program_is_refused_and_the_first_one_named", 1, |_, object| {
        let mut first = KernelHalf::load(object, &plain()).unwrap();
        first.attach(&nic(), Mode::Driver).unwrap();
        let id = first.facts().unwrap().id;
        for mode in [Mode::Driver, Mode::Generic] {
            let mut second = KernelHalf::load(object, &plain()).unwrap();
            let error = second.attach(&nic(), mode).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error.errno(), Some(libc::EBUSY | libc::EEXIST)), "{text}");
            for part in [
                &format!("id {id},"),
                "ip link set dev veltrix-s xdp off",
                "driver veth",
                &format!("mode {}", mode.name()),
                "1 rx and 1 tx",
            ] {
                assert!(text.contains(part), "{part} is missing: {text}");
            }
        }
        assert_eq!(attached().programs, [id]);
    });
}

#[test]
fn unequal_queue_counts_are_named() {
    on_server("unequal_queue_counts_are_named", 2, |lab, object| {
        lab.set_queues(Side::Client, 4).unwrap();
        let mut half = KernelHalf::load(object, &Settings { queues: 2, ..plain() }).unwrap();
        let error = half.attach(&nic(), Mode::Driver).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.errno(), Some(libc::ENOSPC), "{text}");
        assert!(text.contains("ethtool -L veltrix-s rx N tx N"), "{text}");
        assert_eq!(attached().mode, AttachedMode::None);
        // Generic mode is only ever asked for by name.
        half.attach(&nic(), Mode::Generic).unwrap();
        assert_eq!(attached().mode, AttachedMode::Generic);
    });
}

/// A driver's `EINVAL` makes aya attach by netlink without a word where that works.
#[test]
fn what_the_driver_refuses_is_refused() {
    on_server("what_the_driver_refuses_is_refused", 1, |_, object| {
        let mut half = KernelHalf::load(object, &plain()).unwrap();
        let mut gone = nic();
        gone.name = "veltrix-gone".to_owned();
        let error = half.attach(&gone, Mode::Driver).unwrap_err();
        assert!(error.to_string().contains("`veltrix-gone`"), "{error}");
        assert_eq!(half.facts().unwrap().attached, None);
    });
}
