//! The command line as an operator meets it: exit codes and words of the real
//! binary, in a lab so that ports and interfaces are nobody else's.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use veltrix_tests::bench::rig::PORT;
use veltrix_tests::bench::service::{Pinger, Provider, TempDir, binary};
use veltrix_tests::lab::{CLIENT_IPV4, Lab, LabSpec, SERVER_IPV4, Side};
use veltrix_tests::server::{Finished, Server, finish, programs, require};

/// A user of no rights; there is no need that it exists.
const NOBODY: u32 = 65_534;

/// The host's side of one test: a lab, and a directory for the control socket.
struct Host {
    lab: Lab,
    dir: TempDir,
}

impl Host {
    /// A lab of one queue, unless the test is skipped.
    fn new(test: &str) -> Option<Self> {
        if !require(test) {
            return None;
        }
        let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
        Some(Self { lab, dir: TempDir::new().unwrap() })
    }

    /// `veltrix` with these arguments and a control socket of its own, from
    /// a directory without a configuration file.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary().unwrap());
        command
            .args(arguments)
            .current_dir(&self.dir.0)
            .env("VELTRIX_SERVER_CONTROL_SOCKET", self.dir.0.join("control.sock"));
        command
    }

    fn veltrix(&self, arguments: &[&str]) -> Finished {
        finish(&self.lab, Side::Server, self.command(arguments)).unwrap()
    }

    /// Runs it; wants this exit code and these words on standard error.
    fn refused(&self, arguments: &[&str], code: i32, words: &[&str]) {
        check(&self.veltrix(arguments), code, words);
    }
}

fn check(ended: &Finished, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for word in words {
        assert!(ended.err.contains(word), "`{word}` is not in: {}", ended.err);
    }
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn an_unknown_interface_is_answered_with_the_nearest() {
    let Some(host) = Host::new("an_unknown_interface_is_answered_with_the_nearest") else { return };
    host.refused(
        &["run", "--nic", "veltrix-x"],
        3,
        &["interface `veltrix-x`", "did you mean `veltrix-s`?", "ip link"],
    );
}

#[test]
fn unequal_queue_counts_are_refused_with_the_command() {
    let Some(host) = Host::new("unequal_queue_counts_are_refused_with_the_command") else { return };
    let ethtool = ["-L", "veltrix-s", "rx", "2", "tx", "1"];
    let mut command = Command::new("ethtool");
    command.args(ethtool);
    let set = finish(&host.lab, Side::Server, command).unwrap();
    assert_eq!(set.code, Some(0), "{set:?}");
    host.refused(
        &["run", "--nic", "veltrix-s"],
        3,
        &["has 2 receive and 1 transmit queues", "scripts/nic-queues.sh apply veltrix-s 1"],
    );
    assert!(programs(&host.lab, Side::Server).unwrap().is_empty());
}

#[test]
fn an_interface_that_is_down_is_refused_with_the_command() {
    let Some(host) = Host::new("an_interface_that_is_down_is_refused_with_the_command") else {
        return;
    };
    let mut command = Command::new("ip");
    command.args(["link", "set", "dev", "veltrix-s", "down"]);
    assert_eq!(finish(&host.lab, Side::Server, command).unwrap().code, Some(0));
    let words = ["`veltrix-s` is down", "ip link set dev veltrix-s up"];
    host.refused(&["run", "--nic", "veltrix-s"], 3, &words);
}

/// The binary as a user without rights, in a directory that is theirs.
fn unprivileged(host: &Host, arguments: &[&str]) -> Command {
    let own = host.dir.0.join("nobody");
    if !own.exists() {
        std::fs::create_dir(&own).unwrap();
        // The binary may lie where others may not look.
        std::fs::copy(binary().unwrap(), own.join("veltrix")).unwrap();
        std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(&host.dir.0, open).unwrap();
    }
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--reuid={id}"), &format!("--regid={id}")])
        .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--"])
        .arg(own.join("veltrix"))
        .args(arguments)
        .current_dir(&own)
        .env("VELTRIX_SERVER_CONTROL_SOCKET", own.join("control.sock"));
    command
}

#[test]
fn without_privilege_the_missing_capability_is_named() {
    let Some(host) = Host::new("without_privilege_the_missing_capability_is_named") else { return };
    let run = unprivileged(&host, &["run", "--nic", "veltrix-s"]);
    let ended = finish(&host.lab, Side::Server, run).unwrap();
    check(&ended, 77, &["CAP_BPF", "CAP_NET_ADMIN", "setcap"]);
    assert!(programs(&host.lab, Side::Server).unwrap().is_empty());
}

#[test]
fn without_privilege_sockets_serve_and_others_may_not_ask() {
    let Some(host) = Host::new("without_privilege_sockets_serve_and_others_may_not_ask") else {
        return;
    };
    let listen = format!("{SERVER_IPV4}:{PORT}");
    let mut run = unprivileged(&host, &["run", "--listen", &listen]);
    run.stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = host.lab.spawn_server(run).unwrap();
    Pinger::new(&host.lab).unwrap().wait_for(&mut server).unwrap();
    let status = unprivileged(&host, &["status", "--json"]);
    let status = finish(&host.lab, Side::Server, status).unwrap();
    assert_eq!(status.code, Some(0), "{status:?}");
    assert_eq!(json(&status.out)["provider"], "udp");
    // Another user: neither the directory nor the socket is theirs.
    let socket = host.dir.0.join("nobody/control.sock");
    let mut other = Command::new("setpriv");
    other
        .args(["--reuid=65533", "--regid=65533", "--clear-groups", "--bounding-set=-all"])
        .args(["--inh-caps=-all", "--"])
        .arg(host.dir.0.join("nobody/veltrix"))
        .args(["status", "--control-socket"])
        .arg(&socket)
        .current_dir("/");
    let other = finish(&host.lab, Side::Server, other).unwrap();
    check(&other, 77, &["may not be used by this user", "as the user who runs the server"]);
}

#[test]
fn wrong_flags_and_wrong_settings_are_told_apart() {
    let Some(host) = Host::new("wrong_flags_and_wrong_settings_are_told_apart") else { return };
    host.refused(&["run", "--nik", "eth0"], 2, &["--nik", "--nic"]);
    host.refused(&["runn"], 2, &["runn", "run"]);
    host.refused(&["load", "--rate", "fast"], 2, &["--rate", "100k"]);
    host.refused(&["ping", "nowhere"], 2, &["wanted HOST:PORT", "127.0.0.1:4747"]);
    host.refused(&["block", "add", "10.0.0.1", "--reason", "x"], 2, &["--ttl"]);
    let file = host.dir.0.join("game.toml");
    std::fs::write(&file, "[server]\nprot = 5000\n").unwrap();
    let path = file.to_str().unwrap();
    host.refused(
        &["run", "--config", path],
        78,
        &["game.toml:2", "no key `server.prot`", "did you mean `server.port`?"],
    );
    host.refused(&["config", "check", path], 78, &["no key `server.prot`"]);
    std::fs::write(&file, "[lanes]\ndeadline = \"5 parsecs\"\n").unwrap();
    host.refused(&["run", "--config", path], 78, &["lanes.deadline", "5 parsecs"]);
    host.refused(&["run", "--config", "/nonexistent.toml"], 78, &["/nonexistent.toml"]);
    host.refused(&["run", "--wait", "soon"], 2, &["--wait", "soon", "wakeup", "prefer-busy"]);
    let mut by_env = host.command(&["run"]);
    by_env.env("VELTRIX_XDP_WAIT", "soon");
    let by_env = finish(&host.lab, Side::Server, by_env).unwrap();
    check(&by_env, 78, &["VELTRIX_XDP_WAIT", "soon", "wakeup", "prefer-busy"]);
    let help = host.veltrix(&["--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.out.contains("77") && help.out.contains("78"), "{}", help.out);
}

#[test]
fn a_port_that_is_taken_is_refused_with_the_command() {
    let Some(host) = Host::new("a_port_that_is_taken_is_refused_with_the_command") else { return };
    let _holder = host.lab.server(|| UdpSocket::bind(("0.0.0.0", PORT))).unwrap();
    let words = ["another process holds this port", "ss -ulpn", "--port"];
    let listen = format!("{SERVER_IPV4}:{PORT}");
    host.refused(&["run", "--listen", &listen], 3, &words);
    host.refused(&["run", "--nic", "veltrix-s"], 3, &words);
    assert!(programs(&host.lab, Side::Server).unwrap().is_empty());
    host.refused(&["run", "--listen", "192.0.2.7:4747"], 3, &["no interface has this address"]);
}

#[test]
fn without_a_server_status_and_block_say_how_to_start_one() {
    let Some(host) = Host::new("without_a_server_status_and_block_say_how_to_start_one") else {
        return;
    };
    let words = ["no server answers at", "veltrix run"];
    host.refused(&["status"], 3, &words);
    host.refused(&["block", "list"], 3, &words);
    let nobody = host.veltrix(&["ping", "127.0.0.1:4747", "--count", "3"]);
    assert_eq!(nobody.code, Some(10), "{nobody:?}");
    assert!(nobody.out.contains("nothing listens on that port"), "{}", nobody.out);
    // An address that swallows what it gets.
    let _silent = host.lab.server(|| UdpSocket::bind((SERVER_IPV4, 4_801))).unwrap();
    let silent = host.veltrix(&["ping", &format!("{SERVER_IPV4}:4801"), "--count", "2", "--json"]);
    assert_eq!(silent.code, Some(10), "{silent:?}");
    let report = json(&silent.out);
    assert_eq!((&report["sent"], &report["received"]), (&Value::from(2), &Value::from(0)));
}

#[test]
fn status_ping_and_load_of_a_healthy_server() {
    let Some(host) = Host::new("status_ping_and_load_of_a_healthy_server") else { return };
    let server = Server::start(&host.lab, Provider::Xdp, &[]).unwrap();
    let client = |arguments: &[&str]| {
        let ended = finish(&host.lab, Side::Client, host.command(arguments)).unwrap();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out
    };
    let address = format!("{SERVER_IPV4}:{PORT}");
    let ping = json(&client(&["ping", &address, "--count", "50", "--interval", "1ms", "--json"]));
    assert_eq!((&ping["received"], &ping["surplus"]), (&Value::from(50), &Value::from(0)));
    assert!(ping["rtt_ns"]["p50"].as_u64().unwrap() >= ping["server_ns"]["min"].as_u64().unwrap());
    assert!(client(&["ping", &address, "--count", "2"]).contains("2 answered, 0.0 % lost"));

    let hdr = host.dir.0.join("acks.hdr");
    let hdr = hdr.to_str().unwrap();
    let load = client(&["load", &address, "--rate", "50k", "--for", "1s", "--json", "--hdr", hdr]);
    let load = json(&load);
    let count = |key: &str| load[key].as_u64().unwrap_or_else(|| panic!("{key}: {load}"));
    assert!(count("events_sent") >= 40_000, "{load}");
    let ends = ["events_acked", "events_busy", "events_refused", "events_lost"];
    assert_eq!(count("events_sent"), ends.map(count).iter().sum::<u64>(), "{load}");
    assert!(count("events_acked") > 0 && count("events_lost") == 0, "{load}");
    assert!(std::fs::read_to_string(hdr).unwrap().contains("Percentile"));
    // Durable acks need the log: the server's facts say so before any is asked for.
    let durable = ["load", &address, "--rate", "1k", "--for", "200ms", "--mode", "durable"];
    let durable = finish(&host.lab, Side::Client, host.command(&durable)).unwrap();
    check(&durable, 1, &["gives no `durable` acks", "--mode"]);

    server.settled().unwrap();
    let status = server.cli(&host.lab, &["status", "--json"]).unwrap();
    assert_eq!(status.code, Some(0), "{status:?}");
    let status = json(&status.out);
    assert_eq!(status["provider"], "xdp");
    assert_eq!(status["nic"]["xdp_mode"], "driver");
    assert_eq!(status["accounting"]["closes"], true);
    assert_eq!(status["events"]["accepted"].as_u64().unwrap(), count("events_acked"));
    assert_eq!(status["fallback"]["frames"], 0);
    let text = server.cli(&host.lab, &["status"]).unwrap();
    assert_eq!(text.code, Some(0));
    assert!(
        text.out.contains("provider  AF_XDP") && text.out.ends_with("closes\n"),
        "{}",
        text.out
    );
    // The server knows of no other user of its address.
    assert!(!text.out.contains(&CLIENT_IPV4.to_string()));

    let ended = server.stop().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("stopped"), "{}", ended.err);
    assert!(programs(&host.lab, Side::Server).unwrap().is_empty(), "the program stayed");
}

#[test]
fn required_zero_copy_is_never_stepped_down() {
    let Some(host) = Host::new("required_zero_copy_is_never_stepped_down") else { return };
    let words = ["queue 0", "veltrix-s", "driver veth", "zero_copy"];
    host.refused(&["run", "--nic", "veltrix-s", "--zero-copy", "require"], 3, &words);
    assert!(programs(&host.lab, Side::Server).unwrap().is_empty(), "the program stayed");
    let server = Server::start(&host.lab, Provider::Xdp, &["--zero-copy", "auto"]).unwrap();
    assert!(!server.status().unwrap().lanes[0].zero_copy, "veth has no zero-copy");
    assert!(server.said().contains("copy mode"), "{}", server.said());
}

#[test]
fn generic_mode_serves_when_asked_for_and_says_so() {
    let Some(host) = Host::new("generic_mode_serves_when_asked_for_and_says_so") else { return };
    let server = Server::start(&host.lab, Provider::Xdp, &["--mode", "generic"]).unwrap();
    let mut pinger = Pinger::new(&host.lab).unwrap();
    for _ in 0..10 {
        assert!(pinger.ping(Duration::from_secs(1)).unwrap().is_some(), "{}", server.said());
    }
    let status = server.settled().unwrap();
    assert_eq!(status.nic.as_ref().unwrap().xdp_mode, "generic");
    assert_eq!((status.accounting.lane_exits, status.accounting.fallback_received), (10, 0));
    assert!(status.is_healthy(), "{status:#?}");
    assert!(server.said().contains("mode generic"), "{}", server.said());
    assert_eq!(server.stop().unwrap().code, Some(0));
    assert!(programs(&host.lab, Side::Server).unwrap().is_empty());
}

#[test]
fn run_without_arguments_serves_loopback_by_sockets() {
    let Some(host) = Host::new("run_without_arguments_serves_loopback_by_sockets") else { return };
    let dir = TempDir::new().unwrap();
    let mut command = Command::new(binary().unwrap());
    command
        .arg("run")
        .current_dir(&dir.0)
        .env("VELTRIX_SERVER_CONTROL_SOCKET", dir.0.join("control.sock"));
    let server = Server::adopt(&host.lab, command, dir).unwrap();
    assert!(server.said().contains("UDP sockets: no NIC was named"), "{}", server.said());
    // The default address of both commands is the same.
    let ping = host.veltrix(&["ping", "--count", "5", "--interval", "1ms"]);
    assert_eq!(ping.code, Some(0), "{ping:?}");
    assert!(ping.out.starts_with("127.0.0.1:4747: 5 sent, 5 answered"), "{}", ping.out);
    let status = server.settled().unwrap();
    assert_eq!((status.listen.as_str(), status.lanes.len()), ("127.0.0.1:4747", 1));
    assert_eq!(status.accounting.frames_in, 5);
    assert!(status.is_healthy(), "{status:#?}");
    let block = ["block", "add", "10.0.0.1", "--ttl", "1m", "--reason", "test"];
    let block = server.cli(&host.lab, &block).unwrap();
    check(&block, 1, &["UDP sockets", "--nic"]);
    assert_eq!(server.stop().unwrap().code, Some(0));
}
