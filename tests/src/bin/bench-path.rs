//! `cargo xtask bench path`: see `veltrix_tests::bench`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use veltrix::nic::program::{KernelHalf, RATE_BURST_MAX, Rate};
use veltrix_tests::bench::report::Report;
use veltrix_tests::bench::rig::{self, PORT, Rig};
use veltrix_tests::bench::service::{self, Provider};
use veltrix_tests::bench::throughput::{self, BATCHES, Rate as Throughput};
use veltrix_tests::bench::{drain, external};
use veltrix_tests::lab::{GENERATED_PORT, Vary};
use veltrix_tests::testrun;

/// Measures a packet's way through Veltrix beside raw AF_XDP and a kernel
/// socket, in one run, on the veth lab.
#[derive(Parser)]
struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Measure one part only: no verdict is given then.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Measure the receiving half on this interface instead, with traffic
    /// from outside.
    #[arg(long, value_name = "IF")]
    nic: Option<String>,
    /// Queue counts to measure with --nic; scripts/nic-queues.sh sets each and
    /// in the end what was before.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    queues: Vec<u32>,
    /// Seconds of one measurement with --nic.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The kernel half by TEST_RUN.
    Ebpf,
    /// Time a frame, drained from a full ring.
    Drain,
    /// Frames a second: kernel socket, raw AF_XDP, lane.
    Receive,
    /// Frames a second with replies: raw echo, lane.
    Reply,
    /// The real binary: pings, restart.
    Service,
}

/// Events of a full datagram of 1,232 bytes.
const EVENTS_FULL: u16 = 24;

/// A raw rate under so many times the kernel socket's means that the lab was
/// disturbed: nothing else in the run can be trusted.
const RAW_OVER_KERNEL_LEAST: f64 = 3.0;

/// Rounds of the TEST_RUN measurement.
const EBPF_ROUNDS: u32 = 5;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(nic) = &args.nic {
        let mut queue_setter = external::QueueSetter::new(nic);
        for queues in &args.queues {
            queue_setter.set(*queues)?;
            let figures = external::receive(nic, *queues, Duration::from_secs(args.seconds))?;
            println!("{figures}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::new();
    report.set_value("machine", machine());
    let rig = Rig::new()?;
    let wants = |part: Part| args.only.is_none_or(|only| only == part);
    let say = |what: &str| eprintln!("bench path: {what}");
    if wants(Part::Ebpf) {
        say("kernel half by TEST_RUN");
        ebpf(&rig, &mut report)?;
    }
    if wants(Part::Drain) {
        say("time a frame, drained from a full ring");
        drains(&rig, &mut report)?;
    }
    if wants(Part::Receive) {
        say("frames a second: kernel socket, raw AF_XDP, lane");
        receive_rates(&rig, &mut report)?;
    }
    if wants(Part::Reply) {
        say("frames a second with replies: raw echo, lane");
        reply_rates(&rig, &mut report)?;
    }
    drop(rig);
    if wants(Part::Service) {
        say("the real binary: pings, restart");
        real_binary(&mut report)?;
    }

    print!("{}", report.table());
    if args.only.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let missed = report.missed();
    if !missed.is_empty() {
        println!("missed: {}", missed.join(", "));
    }
    let raw_over_kernel = report.get("raw_drop_mpps") / report.get("kernel_udp_mpps");
    report.set("raw_over_kernel", raw_over_kernel);
    let void = raw_over_kernel < RAW_OVER_KERNEL_LEAST;
    report.set_value("void", json!(void));
    report.set_value("missed", json!(missed));
    if void {
        println!(
            "VOID: raw AF_XDP took {raw_over_kernel:.1} times what the kernel socket did, under {RAW_OVER_KERNEL_LEAST}: the host was disturbed"
        );
    }
    if args.json {
        println!("{}", report.json());
    }
    Ok(if void { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
    json!({
        "cpu": model.trim_start_matches([' ', '\t', ':']),
        "cores": veltrix::base::cpu::allowed_cores().len(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

fn ebpf(rig: &Rig, report: &mut Report) -> Result<()> {
    // A limit that is kept and never reached.
    let rate = Rate::Enforce { per_s: u32::MAX, burst: RATE_BURST_MAX };
    let mut half = KernelHalf::load(&rig.object, &rig::settings(1, rate))?;
    let _socket = testrun::occupy(&mut half)?;
    let frame = rig::event_templates(1)?;
    let cost = testrun::ns_over_empty(&rig.object, &half, frame[0].bytes(), EBPF_ROUNDS)?;
    report.set("ebpf_ns_over_empty", cost.over_empty_ns() as f64);
    report.set("ebpf_insns", f64::from(half.facts()?.instructions));
    Ok(())
}

fn drains(rig: &Rig, report: &mut Report) -> Result<()> {
    let mut single = rig.generator(rig::event_templates(1)?, Vary::default())?;
    let mut full = rig.generator(rig::event_templates(EVENTS_FULL)?, Vary::default())?;
    let mut raw = drain::Cost { tenth_ns: f64::INFINITY, median_ns: f64::INFINITY };
    for batch in BATCHES {
        let cost = drain::raw(rig, &mut single, batch)?;
        eprintln!(
            "  raw AF_XDP, batch {batch:>3}: {:.2} ns a frame, median {:.2}",
            cost.tenth_ns, cost.median_ns
        );
        raw.tenth_ns = raw.tenth_ns.min(cost.tenth_ns);
        raw.median_ns = raw.median_ns.min(cost.median_ns);
    }
    let lane = drain::lane(rig, &mut single)?;
    let full = drain::lane(rig, &mut full)?;
    report.set("raw_ns_per_frame", raw.tenth_ns);
    report.set("lane_ns_per_frame", lane.tenth_ns);
    report.set("lane_minus_raw_ns", lane.tenth_ns - raw.tenth_ns);
    report.set("lane_minus_raw_ns_median", lane.median_ns - raw.median_ns);
    report.set("lane_ns_per_event", full.tenth_ns / f64::from(EVENTS_FULL));
    report.set("lane_ns_per_event_median", full.median_ns / f64::from(EVENTS_FULL));
    Ok(())
}

/// Runs a baseline with every batch size, prints the sweep, gives the best.
fn best(name: &str, mut run: impl FnMut(usize) -> Result<Throughput>) -> Result<Throughput> {
    let mut best = Throughput::default();
    for batch in BATCHES {
        let rate = run(batch)?;
        eprintln!(
            "  {name}, batch {batch:>3}: {:.3} of {:.3} Mpps offered",
            rate.mpps, rate.offered_mpps
        );
        if rate.mpps > best.mpps {
            best = rate;
        }
    }
    Ok(best)
}

fn receive_rates(rig: &Rig, report: &mut Report) -> Result<()> {
    let mut generator = rig.generator(rig::event_templates(1)?, Vary::default())?;
    let kernel = best("kernel socket", |b| throughput::kernel_udp(rig, &mut generator, b))?;
    let raw = best("raw AF_XDP", |b| throughput::raw(rig, &mut generator, b, false))?;
    let lane = throughput::lane(rig, &mut generator, true)?;
    eprintln!("  lane: {:.3} of {:.3} Mpps offered", lane.mpps, lane.offered_mpps);
    report.set("kernel_udp_mpps", kernel.mpps);
    report.set("raw_drop_mpps", raw.mpps);
    report.set("lane_mpps", lane.mpps);
    report.set("lane_over_kernel", lane.mpps / kernel.mpps);
    report.add("unaccounted_frames", lane.unaccounted as f64);
    report.add("fallback_frames", lane.fallback as f64);
    Ok(())
}

fn reply_rates(rig: &Rig, report: &mut Report) -> Result<()> {
    // Replies end at the lab's sink, all alike: the lane's go to the generated
    // port, the raw loop's, whose ports are not swapped, to the server's.
    let ports = PORT..=GENERATED_PORT;
    let sink = veltrix_tests::lab::Sink::attach(&rig.lab, Some(ports))?;
    let mut pings = rig.generator(vec![rig::ping_template()?], Vary::default())?;
    let echo = best("raw echo", |b| throughput::raw(rig, &mut pings, b, true))?;
    let reply = throughput::lane(rig, &mut pings, false)?;
    eprintln!("  lane, pings: {:.3} of {:.3} Mpps offered", reply.mpps, reply.offered_mpps);
    let mut single = rig.generator(rig::event_templates(1)?, Vary::default())?;
    let acked = throughput::lane(rig, &mut single, false)?;
    let mut full = rig.generator(rig::event_templates(EVENTS_FULL)?, Vary::default())?;
    let acked_full = throughput::lane(rig, &mut full, false)?;
    drop(sink);
    report.set("raw_echo_mpps", echo.mpps);
    report.set("reply_mpps", reply.mpps);
    report.set("reply_over_raw_echo", reply.mpps / echo.mpps);
    report.set("acked_mpps", acked.mpps);
    report.set("acked_events_per_s", acked_full.mpps * 1e6 * f64::from(EVENTS_FULL));
    report.set("syscalls_per_1k_packets", acked.syscalls as f64 * 1e3 / acked.frames as f64);
    report.set("reply_syscalls_per_1k_packets", reply.syscalls as f64 * 1e3 / reply.frames as f64);
    let runs = [reply, acked, acked_full];
    let sum = |of: fn(&Throughput) -> u64| runs.iter().map(of).sum::<u64>() as f64;
    report.add("unaccounted_frames", sum(|r| r.unaccounted));
    report.add("fallback_frames", sum(|r| r.fallback));
    Ok(())
}

fn real_binary(report: &mut Report) -> Result<()> {
    let binary = service::binary()?;
    let lab = veltrix_tests::lab::Lab::new(veltrix_tests::lab::LabSpec::with_queues(1))?;
    let xdp = service::ping_ns(&lab, &binary, Provider::Xdp).context("pings by AF_XDP")?;
    let udp = service::ping_ns(&lab, &binary, Provider::Udp).context("pings by sockets")?;
    report.set_value("ping_ns", percentiles(&xdp));
    report.set_value("ping_ns_udp", percentiles(&udp));
    report.set("restart_gap_ms", service::restart_gap_ms(&lab, &binary)?);
    Ok(())
}

fn percentiles(h: &Histogram<u64>) -> Value {
    json!({
        "p50": h.value_at_quantile(0.5),
        "p99": h.value_at_quantile(0.99),
        "p999": h.value_at_quantile(0.999),
        "max": h.max(),
    })
}
