//! Sources, their order, and what bad input gets.

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::config::show;

/// A file that is gone when the test ends.
struct Temp(PathBuf);

impl Temp {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("veltrix-{}-{n}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load(text: &str) -> Result<Resolved, ConfigError> {
    let file = Temp::new(text);
    resolve(&Inputs { file: Some(file.0.clone()), ..Inputs::default() })
}

/// The problems of a file, without the directory it happened to be in.
fn problems(text: &str) -> String {
    let error = load(text).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Bad);
    let lines: Vec<_> = error
        .problems
        .iter()
        .map(|p| p.split_once(".toml:").map_or(p.as_str(), |(_, rest)| rest))
        .collect();
    lines.join("\n")
}

#[test]
fn defaults_are_accepted_by_their_own_rules() {
    let resolved = resolve(&Inputs::default()).unwrap();
    let config = &resolved.config;
    assert_eq!(config.server.listen, SocketAddr::from((Ipv4Addr::LOCALHOST, 4747)));
    assert_eq!(config.server.payload_bytes_max, 1_232);
    assert_eq!(config.lanes.deadline_ns, 50_000_000);
    assert_eq!(config.xdp.busy_poll_us, 20);
    assert_eq!(config.rate_limit.datagrams_per_s, 100_000);
    assert_eq!(config.rate_limit.burst_datagrams, 10_000);
    assert_eq!(config.udp.receive_buffer_bytes, 4 << 20);
    assert!(resolved.sources.iter().all(|source| *source == Source::Default));
    assert!(resolved.remarks.is_empty());
}

#[test]
fn limits_of_the_contract_crate_are_the_defaults() {
    let config = resolve(&Inputs::default()).unwrap().config;
    let payload = veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
    assert_eq!(usize::from(config.server.payload_bytes_max), payload);
    assert_eq!(config.blocklist.entries_max, veltrix_abi::limits::BLOCK_ENTRIES_MAX_DEFAULT);
}

#[test]
fn the_later_source_wins_and_is_named() {
    let file =
        Temp::new("[server]\nport = 5000\npayload_bytes_max = 1024\n[xdp]\nwait = \"spin\"\n");
    let resolved = resolve(&Inputs {
        file: Some(file.0.clone()),
        look_for: Vec::new(),
        env: vec![
            ("VELTRIX_SERVER_PORT".into(), "5001".into()),
            ("VELTRIX_LANES_DEADLINE".into(), "7 ms".into()),
            ("VELTRIX_EBPF_OBJECT".into(), "/x".into()),
        ],
        flags: vec![("port", "5002".into()), ("cores", "2,3".into()), ("nic", "eth9".into())],
    })
    .unwrap();
    assert_eq!(resolved.config.server.port, 5002);
    assert_eq!(resolved.config.server.listen.port(), 5002);
    assert_eq!(resolved.config.lanes.deadline_ns, 7_000_000);
    assert_eq!(resolved.config.lanes.cores, Cores::List(vec![2, 3]));
    assert_eq!(resolved.config.xdp.wait, WaitMode::Spin);
    assert_eq!(*resolved.source("server.port"), Source::Flag("port"));
    assert_eq!(*resolved.source("server.listen"), Source::Follows("server.port"));
    assert_eq!(*resolved.source("server.payload_bytes_max"), Source::File(file.0.clone(), 3));
    let deadline = resolved.source("lanes.deadline").to_string();
    assert_eq!(deadline, "VELTRIX_LANES_DEADLINE");
}

#[test]
fn the_first_file_found_is_taken_and_a_named_one_must_exist() {
    let file = Temp::new("");
    let missing = PathBuf::from("/nonexistent/veltrix.toml");
    let look_for = vec![missing.clone(), file.0.clone()];
    let found = resolve(&Inputs { look_for, ..Inputs::default() }).unwrap();
    assert_eq!(found.file, FileTaken::Found(file.0.clone()));
    let none = resolve(&Inputs { look_for: vec![missing.clone()], ..Inputs::default() }).unwrap();
    assert_eq!(none.file, FileTaken::None(vec![missing.clone()]));
    let error = resolve(&Inputs { file: Some(missing), ..Inputs::default() }).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn unknown_names_get_the_nearest() {
    let text =
        "port = 1\n[servr]\n[server]\nprot = 1\nwait = \"spin\"\nzzz = 1\n[xdp]\nzero_cop = 1\n";
    expect_test::expect![[r#"
        1: `port` stands under a section: [server]
        2: no section `servr`; did you mean `server`?
        4: no key `server.prot`; did you mean `server.port`?
        5: no key `server.wait`; it is `xdp.wait`
        6: no key `server.zzz`
        8: no key `xdp.zero_cop`; did you mean `xdp.zero_copy`?"#]]
    .assert_eq(&problems(text));
}

#[test]
fn bad_values_say_what_was_wanted() {
    let text = r#"
[server]
nic = ""
listen = "localhost:1"
port = 0
control_socket = "x.sock"
partitions = 48
payload_bytes_max = 4096
[lanes]
count = 0
cores = [1, 1]
allow_irq_cores = "true"
deadline = 50
batch_frames = 2.5
[xdp]
mode = "drvier"
rx_ring_frames = "2048"
busy_poll = "1500 ns"
[rate_limit]
datagrams_per_s = "10x"
burst = -1
[udp]
receive_buffer = "4096"
send_buffer = "1 TiB"
"#;
    expect_test::expect![[r#"
        3: server.nic: found "", wanted the name of a network interface, 1 to 15 bytes: it is empty
        4: server.listen: found "localhost:1", wanted an IP address with a port, such as 127.0.0.1:4747 or [::1]:4747: names are not resolved, and the port must be there
        5: server.port: found 0, wanted a whole number, 1 to 65,535: zero does not mean "off" or "unlimited" here
        6: server.control_socket: found "x.sock", wanted an absolute path of at most 107 bytes: it is relative
        7: server.partitions: found 48, wanted a power of two, 1 to 4,096 partitions: it is not one
        8: server.payload_bytes_max: found 4096, wanted a multiple of 8, 608 to 3,456 bytes: it is too large
        10: lanes.count: found 0, wanted "auto" or a whole number, 1 to 512: zero does not mean "off" or "unlimited" here
        11: lanes.cores: found [1, 1], wanted "auto" or a list of distinct core ids below 8,192, such as [2, 3]: core 1 is named twice
        12: lanes.allow_irq_cores: found "true", wanted true or false: it stands without quotes
        13: lanes.deadline: found 50, wanted a duration with its unit, 1 us to 10 s: a bare number has no unit or quotes
        14: lanes.batch_frames: found the fraction 2.5, wanted a whole number of frames, 1 to 256: it is not a whole number
        16: xdp.mode: found "drvier", wanted one of "driver", "generic": did you mean "driver"?
        17: xdp.rx_ring_frames: found "2048", wanted a power of two, 64 to 32,768 frames: a number stands without quotes
        18: xdp.busy_poll: found "1500 ns", wanted a duration with its unit, 1 us to 10 ms: it is no whole number of microseconds
        20: rate_limit.datagrams_per_s: found "10x", wanted a whole number of datagrams a second, 1 to 100,000,000: it is not a whole number
        21: rate_limit.burst: found -1, wanted a whole number of datagrams, 1 to 4,194,303: it is out of range
        23: udp.receive_buffer: found "4096", wanted a size with its unit, 64 KiB to 1 GiB: it has no unit
        24: udp.send_buffer: found "1 TiB", wanted a size with its unit, 64 KiB to 1 GiB: it is too large"#]]
    .assert_eq(&problems(text));
}

#[test]
fn environment_and_flags_are_checked_too() {
    let env = vec![("VELTRIX_SERVER_PROT".into(), "1".into())];
    let error = resolve(&Inputs { env, ..Inputs::default() }).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Bad);
    assert_eq!(
        error.to_string(),
        "VELTRIX_SERVER_PROT: no setting has this variable; did you mean `VELTRIX_SERVER_PORT`?"
    );
    let flags = vec![("port", "70000".to_owned())];
    let error = resolve(&Inputs { flags, ..Inputs::default() }).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Flags);
    assert!(error.to_string().starts_with("--port: server.port: found `70000`"), "{error}");
}

#[test]
fn values_that_contradict_each_other_are_named_with_their_sources() {
    let text = "[server]\nlisten = \"0.0.0.0:1000\"\nport = 2000\n\
                [lanes]\ncount = 2\ncores = [1]\nbatch_frames = 128\n\
                [xdp]\nmode = \"generic\"\nzero_copy = \"require\"\nrx_ring_frames = 64\n";
    let problems = problems(text);
    for wanted in
        ["names port 1000", "2 lanes and 1 cores", "never zero-copy", "does not fit a ring"]
    {
        assert!(problems.contains(wanted), "{wanted}: {problems}");
    }
}

#[test]
fn http_beyond_loopback_wants_a_token() {
    let open = problems("[http]\nlisten = \"0.0.0.0:4780\"\n");
    assert!(open.contains("http.token_file = \"FILE\"") && open.contains("0.0.0.0:4780"), "{open}");
    let guarded = "[http]\nlisten = \"0.0.0.0:4780\"\ntoken_file = \"/etc/veltrix/token\"\n";
    let listen = load(guarded).unwrap().config.http.listen.unwrap();
    assert_eq!(listen, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 4_780)));
    assert!(load("[http]\nlisten = \"[::1]:0\"\n").unwrap().config.http.listen.is_some());
    let off = load("[http]\nlisten = \"off\"\ntoken_file = \"token\"\n").unwrap();
    assert_eq!(off.config.http.listen, None);
    assert!(off.remarks[0].contains("http.token_file"), "{:?}", off.remarks);
    assert!(problems("[http]\nlisten = \"on\"\n").contains("\"off\", or an IP address"));
}

#[test]
fn names_of_http_are_for_loopback() {
    let names = |listen: &str| {
        let text = format!(
            "[http]\nlisten = \"{listen}\"\ntoken_file = \"t\"\nnames = \"a.example, b\"\n"
        );
        load(&text).unwrap()
    };
    let loopback = names("127.0.0.1:4780");
    assert!(loopback.config.http.names.has("b") && loopback.remarks.is_empty());
    assert!(names("0.0.0.0:4780").remarks[0].contains("http.names"));
    assert!(names("off").remarks.iter().any(|remark| remark.contains("http.names")));
    assert!(problems("[http]\nnames = \"a.example:80\"\n").contains("host names with commas"));
    assert!(problems("[http]\nnames = [1]\n").contains("it is not text in quotes"));
}

#[test]
fn the_port_follows_the_address_on_sockets_only() {
    let sockets = load("[server]\nlisten = \"0.0.0.0:0\"\n").unwrap();
    assert_eq!(sockets.config.server.port, 0);
    let nic = load("[server]\nnic = \"eth9\"\nlisten = \"0.0.0.0:0\"\n").unwrap();
    assert_eq!(nic.config.server.port, 4747);
    assert_eq!(nic.remarks.len(), 1);
    let by_port = load("[server]\nnic = \"eth9\"\nport = 5000\n").unwrap();
    assert!(by_port.remarks.is_empty(), "nobody asked for an address: {:?}", by_port.remarks);
}

#[test]
fn what_is_not_toml_is_placed() {
    assert!(problems("[server]\nport = = 1\n").starts_with("2: not TOML: "));
    assert!(problems("[server]\nport = 1\nport = 2\n").starts_with("3: not TOML: "));
}

#[test]
fn show_can_be_loaded_again() {
    let first =
        load("[lanes]\ncores = [4, 5]\ndeadline = \"1500 us\"\n[rate_limit]\nburst = \"2k\"\n");
    let first = first.unwrap();
    let again = load(&show::effective(&first)).unwrap();
    assert_eq!(again.config, first.config);
}

#[test]
fn the_reference_is_the_default_configuration() {
    let reference = load(&show::reference()).unwrap();
    assert_eq!(reference.config, resolve(&Inputs::default()).unwrap().config);
}

#[test]
fn names_are_distinct_and_words_are_in_order() {
    for (i, key) in KEYS.iter().enumerate() {
        assert!(KEYS[..i].iter().all(|other| other.env() != key.env()), "{}", key.path());
        assert!(
            key.flag.is_empty() || KEYS[..i].iter().all(|other| other.flag != key.flag),
            "{}",
            key.flag
        );
    }
    assert_eq!(XdpMode::Generic.name(), "generic");
    assert_eq!(ZeroCopy::Off.name(), "off");
    assert_eq!(WaitMode::PreferBusy.name(), "prefer-busy");
    assert_eq!(crate::config::RateLimitMode::Enforce.name(), "enforce");
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn no_value_panics(key in 0..KEYS.len(), value in ".{0,20}|[0-9]{0,25} ?[a-zA-Z]{0,4}") {
        let env = vec![(KEYS[key].env().into(), value.into())];
        let _ = resolve(&Inputs { env, ..Inputs::default() });
    }
}
