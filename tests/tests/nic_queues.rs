//! `scripts/nic-queues.sh` on real veth pairs, and on a stand-in for ethtool
//! where a veth has nothing to set (RSS table, hash fields, ntuple rules).
//!
//! Each test runs one shell in a network namespace without a name, made by
//! `unshare -n`: whichever way the shell ends, the namespace and its
//! interfaces end with it. State goes to a directory of the test's own.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use veltrix::nic::facts::{
    ChannelStyle, DRIVERS, NicError, NicFacts, QueueCounts, QueueSource, legal_queue_count,
};

/// Bits of the effective capability set (`linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Says whether this process may make namespaces and interfaces. When it may
/// not, the skip is named, or fails where every test is required to run.
fn can_make_interfaces(test: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let caps = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .expect("CapEff in /proc/self/status");
    let has = |bit: u32| caps >> bit & 1 == 1;
    if has(CAP_NET_ADMIN) && has(CAP_SYS_ADMIN) {
        return true;
    }
    assert!(
        std::env::var("VELTRIX_TEST_REQUIRE").as_deref() != Ok("1"),
        "{test}: needs root (CAP_NET_ADMIN), and VELTRIX_TEST_REQUIRE=1 forbids to skip"
    );
    // The harness captures the print macros of passing tests, not this.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: needs root (CAP_NET_ADMIN)");
    false
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script() -> PathBuf {
    manifest_dir().join("../scripts/nic-queues.sh")
}

/// A state directory and a shell in a namespace with `va` and `vb`, a pair of
/// up to 8 queues each way.
struct Bench {
    dir: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Bench {
    fn new(test: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("veltrix-nic-queues-{}-{test}", std::process::id()));
        fs::create_dir_all(dir.join("bin")).expect("a directory for the test");
        fs::create_dir_all(dir.join("nic")).expect("a directory for the stand-in");
        Self { dir }
    }

    /// Puts an executable before the real `ethtool` on the shell's PATH.
    fn fake_ethtool(&self, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.join("bin/ethtool");
        fs::write(&path, text).expect("the stand-in");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// The real ethtool with `before` run ahead of it; `real` calls it.
    fn wrapped_ethtool(&self, before: &str) {
        self.fake_ethtool(&format!(
            "#!/bin/bash\nPATH=${{PATH#*:}}\nreal() {{ ethtool \"$@\"; }}\n{before}\nreal \"$@\"\n"
        ));
    }

    fn physical_nic(&self) {
        let text = fs::read_to_string(manifest_dir().join("tests/nic_queues/ethtool"));
        self.fake_ethtool(&text.expect("the stand-in's source"));
    }

    /// Runs `body` with `set -e`; `$NQ` is the script.
    fn shell(&self, body: &str) -> Output {
        let prelude = "set -eu\n\
             status() { local s=0; \"$@\" || s=$?; echo \"status $s\"; }\n\
             ip link add va numtxqueues 8 numrxqueues 8 type veth \
                peer name vb numtxqueues 8 numrxqueues 8\n";
        let path = std::env::var("PATH").expect("PATH");
        Command::new("unshare")
            .args(["-n", "bash", "-c", &format!("{prelude}{body}")])
            .env("NQ", script())
            .env("VELTRIX_STATE_DIR", self.dir.join("state"))
            .env("FAKE_NIC", self.dir.join("nic"))
            .env("DIR", &self.dir)
            // Tools of the administrator are not on every user's PATH.
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.dir.join("bin").display()))
            .output()
            .expect("unshare")
    }

    /// As `shell`, and the shell must have come to its end.
    fn passes(&self, body: &str) -> String {
        let output = self.shell(body);
        let text = text_of(&output);
        assert!(output.status.success(), "{}\n{text}", output.status);
        text
    }
}

/// Both streams, for messages and for searching.
fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
fn assert_has(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "wanted {part:?} in:\n{text}");
    }
}

/// Runs the script directly: what it does before it looks at an interface.
fn plain(args: &[&str]) -> (i32, String) {
    let output = Command::new(script()).args(args).output().expect("the script");
    (output.status.code().expect("an exit code"), text_of(&output))
}

#[test]
fn usage_errors_name_what_was_found_and_wanted() {
    assert_eq!(plain(&["--help"]).0, 0);
    for (args, part) in [
        (&[][..], "wanted check, apply, undo or legal"),
        (&["chekc", "lo"], "'chekc'"),
        (&["check"], "there are: "),
        (&["check", "absent0"], "'absent0': not in this network namespace; there are: "),
        (&["apply", "lo", "0"], "found '0', wanted a number of at least 1"),
        (&["apply", "lo", "-1"], "option -1"),
        (&["apply", "lo", "4x"], "found '4x'"),
        (&["apply", "lo", "08"], "found '08'"),
        (&["apply", "lo", ""], "found ''"),
        (&["apply", "lo", "1", "2"], "one argument too many"),
        (&["apply", "lo", "--json"], "only check prints JSON"),
        (&["undo", "lo", "4"], "undo takes an interface only"),
        (&["check", "lo", "--dedicate", "9000"], "go together"),
        (&["check", "lo", "--dedicate", "70000", "--queues", "0"], "a port of 1 to 65535"),
        (&["check", "lo", "--dedicate", "9000", "--queues", "3-1"], "A <= B"),
        (&["check", "lo", "--dedicate"], "wanted a value"),
    ] {
        let (code, text) = plain(args);
        assert_eq!(code, 2, "{args:?}: {text}");
        assert_has(&text, &[part]);
    }
}

#[test]
fn script_and_library_agree_on_the_legal_count() {
    let drivers = DRIVERS.iter().map(|row| row.driver).chain(["mlx5_core"]);
    for driver in drivers {
        for (max, cpus) in [(1, 1), (2, 2), (5, 4), (8, 2), (32, 64), (64, 8)] {
            let (code, text) = plain(&["legal", driver, &max.to_string(), &cpus.to_string()]);
            assert_eq!(code, 0, "{text}");
            let legal = legal_queue_count(driver, max, cpus);
            let wanted = format!("{} {}\n", legal.least, legal.most);
            assert_eq!(text, wanted, "{driver} {max} {cpus}");
        }
    }
}

#[test]
fn check_finds_unequal_counts_apply_mends_and_undo_restores() {
    let test = "check_finds_unequal_counts_apply_mends_and_undo_restores";
    if !can_make_interfaces(test) {
        return;
    }
    let bench = Bench::new("cycle");
    let text = bench.passes(
        "ethtool -L va rx 3 tx 5; ethtool -L vb rx 8 tx 2
         status $NQ check va; status $NQ check va 4; echo applying; status $NQ apply va 4
         ethtool -l va | tail -5; echo checking; status $NQ check va 4; status $NQ check va
         status $NQ undo va; ethtool -l va | tail -5; status $NQ undo va",
    );
    let (before, rest) = text.split_once("applying").expect("a check, then an apply");
    assert_has(before, &["found: 3 rx, 5 tx; mend: ", "apply va 3", "apply va 4", "status 3\n"]);
    assert!(!before.contains("status 0"), "{before}");
    let (applied, rest) = rest.split_once("checking").expect("then a check");
    assert_has(
        applied,
        &[
            "+ ethtool -L va rx 4 tx 4",
            "RSS table: not supported by veth, skipped",
            "RX:\t\t4\nTX:\t\t4",
            "status 0",
        ],
    );
    assert_has(
        rest,
        &[
            "ok      queue-count      required: 4; found: 4 rx, 4 tx",
            "ok      queues-legal     required: 1 to 8",
            "+ ethtool -L va rx 3 tx 5",
            "RX:\t\t3\nTX:\t\t5",
            "nothing to undo",
        ],
    );
    assert!(!rest.contains("status 3"), "{rest}");
}

#[test]
fn check_sees_a_peer_that_sends_on_too_many_queues() {
    let test = "check_sees_a_peer_that_sends_on_too_many_queues";
    if !can_make_interfaces(test) {
        return;
    }
    let text = Bench::new("peer").passes(
        "ethtool -L va rx 2 tx 2; ethtool -L vb rx 2 tx 4
         status $NQ check va 2; status $NQ apply vb 2; status $NQ check va 2
         P=$(unshare -n sh -c 'sleep 20 >/dev/null 2>&1 & echo $!')
         ip link set vb netns $P; status $NQ check va 2; kill $P",
    );
    assert_has(
        &text,
        &[
            "peer vb, else attach gives ENOSPC; found: 4 tx; mend: ",
            "apply vb 2",
            "peer in another network namespace",
        ],
    );
    let codes: Vec<&str> = text.lines().filter(|l| l.starts_with("status")).collect();
    assert_eq!(codes, ["status 3", "status 0", "status 0", "status 0"], "{text}");
}

#[test]
fn apply_twice_changes_nothing_and_keeps_the_first_state() {
    let test = "apply_twice_changes_nothing_and_keeps_the_first_state";
    if !can_make_interfaces(test) {
        return;
    }
    let text = Bench::new("twice").passes(
        "S=$VELTRIX_STATE_DIR/nic-queues.va.state
         ethtool -L va rx 3 tx 5
         $NQ apply va 4; cp $S $DIR/first
         echo again; $NQ apply va 4; cmp $S $DIR/first
         echo other; $NQ apply va 2; cmp $S $DIR/first
         $NQ undo va; ethtool -l va | tail -5; test ! -e $S",
    );
    let again = text.split("again").nth(1).and_then(|t| t.split("other").next());
    assert!(!again.expect("the second run").contains("+ "), "{text}");
    assert_has(&text, &["+ ethtool -L va rx 2 tx 2", "RX:\t\t3\nTX:\t\t5"]);
}

#[test]
fn without_the_capability_check_works_and_apply_says_what_it_wants() {
    let test = "without_the_capability_check_works_and_apply_says_what_it_wants";
    if !can_make_interfaces(test) {
        return;
    }
    // Still uid 0, so that only the capability can tell.
    let text = Bench::new("privilege").passes(
        "less() { setpriv --bounding-set -net_admin --inh-caps -net_admin \"$@\"; }
         less id -u; status less $NQ check va 8; status less $NQ apply va 2; status less $NQ undo va
         test ! -e $VELTRIX_STATE_DIR",
    );
    assert_has(&text, &["wanted CAP_NET_ADMIN", "try: sudo "]);
    let codes: Vec<&str> = text.lines().filter(|l| l.starts_with("status")).collect();
    assert_eq!(codes, ["status 0", "status 77", "status 77"], "{text}");
}

#[test]
fn an_apply_killed_at_any_step_is_undone() {
    if !can_make_interfaces("an_apply_killed_at_any_step_is_undone") {
        return;
    }
    for (name, when) in
        [("before", "kill -9 $PPID; exit 1"), ("after", "real \"$@\"; kill -9 $PPID; exit 0")]
    {
        let bench = Bench::new(&format!("killed-{name}"));
        bench.wrapped_ethtool(&format!(
            "if [[ $1 == -L && -e $DIR/armed ]]; then rm $DIR/armed; {when}; fi"
        ));
        let text = bench.passes(
            "ethtool -L va rx 3 tx 5; touch $DIR/armed
             # What a kill within the save would leave behind.
             mkdir -p $VELTRIX_STATE_DIR; touch $VELTRIX_STATE_DIR/nic-queues.va.state.new.x
             status $NQ apply va 4 2>/dev/null; test ! -e $DIR/armed
             status $NQ undo va; ethtool -l va | tail -5
             test -z \"$(find $VELTRIX_STATE_DIR -name '*.state*' ! -name '*.lock')\"",
        );
        assert_has(&text, &["status 137", "status 0", "RX:\t\t3\nTX:\t\t5"]);
    }
}

#[test]
fn a_write_that_does_not_hold_is_an_error() {
    if !can_make_interfaces("a_write_that_does_not_hold_is_an_error") {
        return;
    }
    let bench = Bench::new("hold");
    bench.wrapped_ethtool("[[ $1 != -L || ! -e $DIR/armed ]] || exit 0");
    let text = bench.passes("ethtool -L va rx 3 tx 5; touch $DIR/armed; status $NQ apply va 4");
    assert_has(
        &text,
        &["did not hold: wanted rx 4 tx 4", "found rx 3 tx 5", "undo va", "status 1"],
    );
}

#[test]
fn state_of_another_device_or_version_is_refused() {
    if !can_make_interfaces("state_of_another_device_or_version_is_refused") {
        return;
    }
    let text = Bench::new("state").passes(
        "S=$VELTRIX_STATE_DIR/nic-queues.va.state
         $NQ apply va 4
         sed -i s/^version=.*/version=9/ $S; status $NQ undo va; sed -i s/^version=.*/version=1/ $S
         ip link del va
         ip link add va numtxqueues 8 numrxqueues 8 type veth peer name vb
         status $NQ undo va; status $NQ apply va 2; test -e $S",
    );
    assert_has(&text, &["version: found '9', wanted 1", "is of another device", "rm "]);
    assert_eq!(text.matches("status 1").count(), 3, "{text}");
}

#[test]
fn two_at_once_are_kept_apart() {
    if !can_make_interfaces("two_at_once_are_kept_apart") {
        return;
    }
    let text = Bench::new("lock").passes(
        "mkdir -p $VELTRIX_STATE_DIR; exec 8>$VELTRIX_STATE_DIR/nic-queues.va.state.lock
         flock 8; status $NQ apply va 4 8>&-; flock -u 8; status $NQ apply va 4 8>&-",
    );
    assert_has(&text, &["another nic-queues.sh is at work on va", "status 1", "status 0"]);
}

#[test]
fn too_many_queues_and_required_features_are_refused_unchanged() {
    let test = "too_many_queues_and_required_features_are_refused_unchanged";
    if !can_make_interfaces(test) {
        return;
    }
    let text = Bench::new("refused").passes(
        "ethtool -L va rx 3 tx 5
         status $NQ apply va 9; status $NQ apply va 4 --require; status $NQ check va 3 --require
         ethtool -l va | tail -5
         test ! -e $VELTRIX_STATE_DIR/nic-queues.va.state",
    );
    assert_has(
        &text,
        &[
            "found 9, wanted 1 to 8",
            "RSS table, hash of udp4, hash of udp6, not supported by veth",
            "nothing was changed",
            "RX:\t\t3\nTX:\t\t5",
            "status 2",
            "status 1",
            "status 3",
        ],
    );
}

#[test]
fn json_of_check_says_the_same() {
    if !can_make_interfaces("json_of_check_says_the_same") {
        return;
    }
    let bench = Bench::new("json");
    let output = bench.shell("ethtool -L va rx 3 tx 5; $NQ check va 4 --json");
    assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["interface"], "va");
    assert_eq!(json["driver"], "veth");
    assert_eq!(json["ready"], false);
    let conditions = json["conditions"].as_array().expect("conditions");
    let of = |name: &str| {
        conditions
            .iter()
            .find(|row| row["condition"] == name)
            .unwrap_or_else(|| panic!("no {name} in {json}"))
    };
    assert_eq!(of("queues-equal")["severity"], "error");
    assert_eq!(of("queues-equal")["found"], "3 rx, 5 tx");
    let mend = of("queues-equal")["mend"].as_str().expect("a command");
    assert!(mend.ends_with("nic-queues.sh apply va 4"), "{mend}");
    assert_eq!(of("rss-table")["severity"], "skipped");
    assert_eq!(of("queues-legal")["mend"], serde_json::Value::Null);
}

#[test]
fn a_physical_nic_gets_channels_table_and_hash_and_all_of_it_back() {
    let test = "a_physical_nic_gets_channels_table_and_hash_and_all_of_it_back";
    if !can_make_interfaces(test) {
        return;
    }
    let bench = Bench::new("physical");
    bench.physical_nic();
    // A table of the administrator's own, which forbids to shrink at first.
    let text = bench.passes(
        "snapshot() { ethtool -l va; ethtool -x va; ethtool -n va rx-flow-hash udp4; ethtool -n va; }
         ethtool -X va weight 4 4 4 4; snapshot >$DIR/before
         status $NQ check va; status $NQ apply va 8; status $NQ apply va 2; status $NQ check va 2
         echo again; $NQ apply va 2 --require; echo restoring; status $NQ undo va
         snapshot >$DIR/after; cmp $DIR/before $DIR/after",
    );
    assert_has(
        &text,
        &[
            "1 to 4 (ena takes an XDP program only at half of its 8 channels or fewer)",
            "found 8, wanted 1 to 4",
            "+ ethtool -X va equal 2\n+ ethtool -L va combined 2\n",
            "+ ethtool -N va rx-flow-hash udp4 sdfn",
            "+ ethtool -N va rx-flow-hash udp6 sdfn",
            "+ ethtool -L va combined 8",
            "+ ethtool -X va weight 4 4 4 4",
        ],
    );
    let codes: Vec<&str> = text.lines().filter(|l| l.starts_with("status")).collect();
    assert_eq!(codes, ["status 3", "status 2", "status 0", "status 0", "status 0"], "{text}");
    let again = text.split("again").nth(1).and_then(|t| t.split("restoring").next());
    assert!(!again.expect("the second run").contains("+ "), "{text}");
}

#[test]
fn a_driver_that_adds_queues_at_attach_gets_a_count_that_stays() {
    let test = "a_driver_that_adds_queues_at_attach_gets_a_count_that_stays";
    if !can_make_interfaces(test) {
        return;
    }
    let bench = Bench::new("virtio");
    bench.physical_nic();
    // More channels than any host has CPUs, so that too few can be asked for.
    let text = bench.passes(
        "export FAKE_DRIVER=virtio_net FAKE_MAX=100000; ethtool -L va combined 1
         status $NQ check va; status $NQ apply va 1; status $NQ apply va 100000; status $NQ check va",
    );
    assert_has(&text, &["virtio_net adds ", "found 1, wanted ", "+ ethtool -L va combined 100000"]);
    let codes: Vec<&str> = text.lines().filter(|l| l.starts_with("status")).collect();
    assert_eq!(codes, ["status 3", "status 2", "status 0", "status 0"], "{text}");
}

#[test]
fn dedicated_queues_are_steered_to_and_given_back() {
    if !can_make_interfaces("dedicated_queues_are_steered_to_and_given_back") {
        return;
    }
    for (queues, rss, target) in [
        ("0-1", "+ ethtool -X va start 2 equal 2", "context 1"),
        ("3", "+ ethtool -X va equal 3", "action 3"),
    ] {
        let bench = Bench::new(&format!("dedicated-{queues}"));
        bench.physical_nic();
        // A rule that is not ours must survive, on the same port too.
        let text = bench.passes(&format!(
            "snapshot() {{ ethtool -l va; ethtool -x va; ethtool -n va; ethtool -k va; ls $FAKE_NIC/context.* || true; }}
             ethtool -K va ntuple on; ethtool -N va flow-type udp4 dst-port 9000 action 5; ethtool -K va ntuple off
             A='va 4 --dedicate 9000 --queues {queues}'
             snapshot >$DIR/before 2>&1
             status $NQ check $A; status $NQ apply $A; status $NQ check $A
             echo again; $NQ apply $A; echo restoring; status $NQ undo va
             snapshot >$DIR/after 2>&1; cmp $DIR/before $DIR/after"
        ));
        assert_has(
            &text,
            &[
                rss,
                "+ ethtool -K va ntuple on",
                &format!("+ ethtool -N va flow-type udp4 dst-port 9000 {target}"),
                &format!("+ ethtool -N va flow-type udp6 dst-port 9000 {target}"),
            ],
        );
        let codes: Vec<&str> = text.lines().filter(|l| l.starts_with("status")).collect();
        assert_eq!(codes, ["status 3", "status 0", "status 0", "status 0"], "{text}");
        let again = text.split("again").nth(1).and_then(|t| t.split("restoring").next());
        assert!(!again.expect("the second run").contains("+ "), "{text}");
    }
}

#[test]
fn without_ntuple_filters_every_queue_stays_in_the_table() {
    if !can_make_interfaces("without_ntuple_filters_every_queue_stays_in_the_table") {
        return;
    }
    let bench = Bench::new("no-ntuple");
    bench.physical_nic();
    let text = bench.passes(
        "echo 'off [fixed]' >$FAKE_NIC/ntuple
         status $NQ apply va 4 --dedicate 9000 --queues 0; ethtool -x va
         status $NQ apply va 4 --dedicate 9000 --queues 0 --require",
    );
    assert_has(
        &text,
        &[
            "dedicated queues (ntuple filters): not supported by ena, skipped",
            "    0:      0     1     2     3",
            "status 0",
            "status 1",
        ],
    );
}

#[test]
fn dedicated_queues_must_leave_the_host_a_block() {
    if !can_make_interfaces("dedicated_queues_must_leave_the_host_a_block") {
        return;
    }
    let bench = Bench::new("blocks");
    bench.physical_nic();
    let text = bench.passes(
        "for q in 0-3 1-2 3-4; do status $NQ apply va 4 --dedicate 9000 --queues $q; done
         test ! -e $VELTRIX_STATE_DIR/nic-queues.va.state",
    );
    assert_eq!(text.matches("status 2").count(), 3, "{text}");
}

/// Set in the shell that this test starts itself in again.
const INSIDE: &str = "VELTRIX_TEST_INSIDE";

#[test]
fn facts_of_a_veth_agree_with_ethtool() {
    let test = "facts_of_a_veth_agree_with_ethtool";
    if std::env::var_os(INSIDE).is_some() {
        facts_inside();
        return;
    }
    if !can_make_interfaces(test) {
        return;
    }
    let exe = std::env::current_exe().expect("this test");
    let text = Bench::new("facts").passes(&format!(
        "ethtool -L va rx 3 tx 5; ip link set va up; ip link set vb up
         ip addr add 192.0.2.7/24 dev va; ip -6 addr add 2001:db8::7/64 dev va nodad
         {INSIDE}=1 {} --exact {test} --nocapture",
        exe.display()
    ));
    assert_has(&text, &["facts hold"]);
}

fn facts_inside() {
    let facts = NicFacts::read("va").expect("va");
    assert_eq!((facts.queues.rx, facts.queues.tx), (3, 5));
    assert_eq!((facts.queues.rx_max, facts.queues.tx_max), (8, 8));
    assert_eq!(facts.queues.source, QueueSource::Channels(ChannelStyle::Separate));
    assert_eq!(facts.active_queues().sockets, 3);
    assert!(facts.active_queues().unequal);
    assert_eq!(facts.driver, "veth");
    assert_eq!(facts.mtu, 1500);
    assert!(facts.up && facts.running);
    assert!(facts.mac.is_some_and(|mac| mac != [0; 6]));
    assert!(facts.irqs.is_empty() && facts.irq_cores().is_empty());
    assert_eq!(facts.legal_queues().most, 8);

    // The counts follow the interface, without a trace of the old ones.
    let run = |args: &[&str]| Command::new("ethtool").args(args).status().expect("ethtool");
    assert!(run(&["-L", "va", "rx", "4", "tx", "4"]).success());
    let counts = QueueCounts::read("va").expect("va");
    assert_eq!((counts.rx, counts.tx), (4, 4));
    assert!(!counts.active_queues().unequal);

    let error = NicFacts::read("vaa").expect_err("there is no vaa");
    assert!(
        matches!(&error, NicError::Unknown { known, nearest: Some(near), .. }
            if near == "va" && known.iter().any(|name| name == "vb")),
        "{error}"
    );
    println!("facts hold");
}
