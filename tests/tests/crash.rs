//! Kills of the real server at random moments under load: five here, as many as
//! wanted by `cargo xtask crash --kills N`.

use veltrix_tests::crash::{Spec, run};
use veltrix_tests::server::require;

#[test]
fn what_was_acknowledged_survives_kills() {
    if !require("what_was_acknowledged_survives_kills") {
        return;
    }
    let seed = veltrix_client::codec::random_u64();
    let spec = Spec { kills: 5, seed, snapshots: true };
    let verdict = run(&spec, &|_| {}).unwrap_or_else(|e| panic!("seed {seed}: {e:#}"));
    assert_eq!(verdict.faults, [], "seed {seed}: {verdict:#?}");
    assert_eq!(verdict.kills, 5);
    assert!(verdict.applied > 0 && verdict.judged > 0, "{verdict:#?}");
}
