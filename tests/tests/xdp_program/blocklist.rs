//! Blocked prefixes: hit, miss, expiry, and which of several prefixes counts.

use std::time::Duration;

use veltrix::base::clock::monotonic_ns;
use veltrix::nic::blocklist::{NEVER, Prefix};
use veltrix::nic::program::BlockError;
use veltrix_abi::Exit;
use veltrix_tests::testrun::{Runner, action};

use super::frames::Frame;
use super::{check, everything, plain, runner};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn exit_v4(runner: &mut Runner, address: [u8; 4]) -> Exit {
    let outcome = runner.frame(&Frame::from_v4(address).bytes()).unwrap();
    let blocked = outcome.exit == Exit::DropBlocked;
    assert_eq!(outcome.action == action::DROP, blocked, "{outcome:?}");
    outcome.exit
}

fn exit_v6(runner: &mut Runner, address: &str) -> Exit {
    runner.frame(&Frame::from_v6(address.parse().unwrap()).bytes()).unwrap().exit
}

#[test]
fn only_what_lies_in_a_prefix_is_blocked() {
    let name = "only_what_lies_in_a_prefix_is_blocked";
    let Some(mut runner) = runner(name, &everything()) else {
        return;
    };
    let now_ns = monotonic_ns();
    for text in ["10.1.2.3", "198.51.100.0/24", "2001:db8:1::/48", "2001:db8:2::5"] {
        runner.half.block_add(prefix(text), NEVER, "test", now_ns).unwrap();
    }
    for (address, blocked) in [
        ([10, 1, 2, 3], true),
        ([10, 1, 2, 2], false),
        ([198, 51, 100, 0], true),
        ([198, 51, 100, 255], true),
        ([198, 51, 101, 0], false),
        ([198, 51, 99, 255], false),
    ] {
        assert_eq!(exit_v4(&mut runner, address) == Exit::DropBlocked, blocked, "{address:?}");
    }
    for (address, blocked) in [
        ("2001:db8:1::", true),
        ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", true),
        ("2001:db8:2::", false),
        ("2001:db8:2::5", true),
        ("2001:db8:2::4", false),
    ] {
        assert_eq!(exit_v6(&mut runner, address) == Exit::DropBlocked, blocked, "{address}");
    }
    // A frame that is not ours or malformed leaves as what it is.
    let other = Frame::from_v4([10, 1, 2, 3]).with(|f| f.port += 1).bytes();
    assert_eq!(check(&mut runner, &other), Exit::PassOtherPort);
    assert!(runner.half.block_del(prefix("10.1.2.3")).unwrap());
    assert!(!runner.half.block_del(prefix("10.1.2.3")).unwrap());
    assert_eq!(exit_v4(&mut runner, [10, 1, 2, 3]), Exit::PassFallback);
    let listed: Vec<String> =
        runner.half.block_list().iter().map(|b| b.prefix.to_string()).collect();
    assert_eq!(listed, ["198.51.100.0/24", "2001:db8:1::/48", "2001:db8:2::5/128"]);
    runner.close().unwrap();
}

#[test]
fn a_block_ends_by_itself() {
    let Some(mut runner) = runner("a_block_ends_by_itself", &everything()) else {
        return;
    };
    let expires_ns = monotonic_ns() + 60_000_000;
    let short = prefix("10.1.2.0/24");
    runner.half.block_add(short, expires_ns, "short", monotonic_ns()).unwrap();
    assert_eq!(exit_v4(&mut runner, [10, 1, 2, 3]), Exit::DropBlocked);
    // The coarse clock is late by up to a tick, 10 ms at the slowest.
    std::thread::sleep(Duration::from_millis(80));
    assert_eq!(exit_v4(&mut runner, [10, 1, 2, 3]), Exit::PassFallback);
    assert_eq!(runner.half.block_purge_expired(expires_ns - 1).unwrap(), []);
    assert_eq!(runner.half.block_purge_expired(monotonic_ns()).unwrap(), [short]);
    assert_eq!(runner.half.block_list(), []);
    runner.close().unwrap();
}

#[test]
fn a_short_block_inside_a_long_one_opens_no_hole() {
    let name = "a_short_block_inside_a_long_one_opens_no_hole";
    // Both orders of insertion.
    for outer_first in [true, false] {
        let Some(mut runner) = runner(name, &everything()) else {
            return;
        };
        let soon_ns = monotonic_ns() + 20_000_000;
        let mut both = [(prefix("10.0.0.0/8"), NEVER), (prefix("10.1.0.0/16"), soon_ns)];
        if !outer_first {
            both.reverse();
        }
        for (prefix, expires_ns) in both {
            runner.half.block_add(prefix, expires_ns, "", monotonic_ns()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(exit_v4(&mut runner, [10, 1, 0, 1]), Exit::DropBlocked);
        runner.half.block_purge_expired(monotonic_ns()).unwrap();
        assert_eq!(exit_v4(&mut runner, [10, 1, 0, 1]), Exit::DropBlocked);
        assert!(runner.half.block_del(prefix("10.0.0.0/8")).unwrap());
        assert_eq!(exit_v4(&mut runner, [10, 1, 0, 1]), Exit::PassFallback);
        runner.close().unwrap();
    }
}

#[test]
fn a_full_list_says_so_and_holds_what_it_has() {
    let name = "a_full_list_says_so_and_holds_what_it_has";
    let settings = veltrix::nic::program::Settings { block_entries_max: 4, ..everything() };
    let Some(mut runner) = runner(name, &settings) else {
        return;
    };
    let now_ns = monotonic_ns();
    for last in 0..4u8 {
        let one = prefix(&format!("10.0.0.{last}"));
        runner.half.block_add(one, NEVER, "", now_ns).unwrap();
    }
    let full = runner.half.block_add(prefix("10.0.0.9"), NEVER, "", now_ns).unwrap_err();
    assert!(full.to_string().contains("holds 4 IPv4 prefixes"), "{full}");
    assert_eq!(exit_v4(&mut runner, [10, 0, 0, 9]), Exit::PassFallback);
    assert_eq!(exit_v4(&mut runner, [10, 0, 0, 3]), Exit::DropBlocked);
    // Replacing an entry needs no room.
    runner.half.block_add(prefix("10.0.0.3"), NEVER, "again", now_ns).unwrap();
    runner.close().unwrap();
}

#[test]
fn switched_off_it_blocks_nothing_and_says_so() {
    let name = "switched_off_it_blocks_nothing_and_says_so";
    let Some(mut runner) = runner(name, &plain()) else {
        return;
    };
    let refused = runner.half.block_add(prefix("10.0.0.1"), NEVER, "", monotonic_ns());
    assert!(matches!(refused, Err(BlockError::Off)));
    assert_eq!(exit_v4(&mut runner, [10, 0, 0, 1]), Exit::PassFallback);
}
