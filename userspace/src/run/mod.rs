//! The running server: start, control loop, way down.
//!
//! ```text
//!   control core:  this loop - control socket, HTTP, alarms       (tokio, current thread)
//!   lane cores:    one thread a lane, started by `start`, joined by `stop`
//!   fallback:      one lane on the kernel socket, beside XDP
//! ```

pub mod alarms;
pub mod cores;
pub mod http;
pub mod lanes;
pub mod log;
pub mod server;
pub mod start;
pub mod state;

use std::rc::Rc;
use std::time::Duration;

use crate::admin::server::{ControlSocket, serve};
use crate::cli::{CliError, ExitStatus};
use crate::config::Config;
use http::{Http, Served};
use log::Log;
use server::Server;
use start::{Running, start};
use state::Live;

/// Pause between two looks at what changes by itself.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two looks at log time and snapshots.
const TEND_LOG_INTERVAL: Duration = Duration::from_millis(100);

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
///
/// What kept it from starting, with the command that mends it; or a lane's
/// unexpected end.
pub fn run(config: Config, log: Log) -> Result<ExitStatus, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(ExitStatus::Error, format!("control loop: {e}")))?;
    // Before the NIC is touched: a second server is refused here.
    let control = ControlSocket::bind(&config.server.control_socket).map_err(|e| {
        let status = match e {
            crate::admin::server::BindError::NotPermitted(..) => ExitStatus::NotPermitted,
            _ => ExitStatus::HostNotReady,
        };
        CliError::new(status, e.to_string())
    })?;
    let http = Http::bind(&config.http)?;
    let http_address = http.as_ref().map(Http::address);
    let mut running = start(&config, &log)?;
    let local = tokio::task::LocalSet::new();
    // From here on probes are answered: while the log is replayed, that it is.
    let http = {
        let _guard = runtime.enter();
        http.map(Http::serve).transpose()?
    };
    let live = match running.state.take() {
        Some(parts) => {
            let starting = Live::start(parts, config.log.snapshot_at_percent, log);
            Some(local.block_on(&runtime, starting)?)
        }
        None => None,
    };
    running.let_in()?;
    announce(&running, &control, &log);
    if let Some(address) = http_address {
        log.info(&format!("HTTP on http://{address}"));
    }
    let served = http.inspect(|http| begin(http, &running));
    let server = Rc::new(Server::new(running, live, config, log));
    let served = local.block_on(&runtime, control_loop(&control, Rc::clone(&server), served));
    let ended = served.as_ref().map_or_else(|e| e.to_string(), |why| (*why).to_owned());
    log.info(&format!("{ended}: stopping"));
    let lanes_alive = server.lanes_alive();
    let log_ended = server.log_ended();
    server.close_gates();
    local.block_on(&runtime, server.settle());
    // The control loop's tasks are gone with it; ours is the last handle.
    drop(local);
    drop(runtime);
    let in_order = Rc::into_inner(server).is_some_and(Server::stop);
    served?;
    if let Some(why) = log_ended {
        return Err(CliError::new(ExitStatus::Error, format!("the log has ended: {why}")));
    }
    if lanes_alive && in_order {
        log.info("stopped");
        Ok(ExitStatus::Ok)
    } else {
        Err(CliError::new(
            ExitStatus::Error,
            "a lane ended before it was told to; its last words stand above",
        ))
    }
}

/// Lets HTTP ask the state, and names where its events go.
fn begin(http: &Served, running: &Running) {
    http.begin(match &running.kernel {
        None => Ok(http::events::loopback_of(running.address)),
        Some(kernel) => Err(format!(
            "this server takes packets off the queues of `{}` by XDP, where its own host cannot reach it: no events over HTTP",
            kernel.nic.name
        )),
    });
}

async fn control_loop(
    control: &ControlSocket,
    server: Rc<Server>,
    served: Option<Served>,
) -> Result<&'static str, CliError> {
    let failed = |e: std::io::Error| CliError::new(ExitStatus::Error, format!("control loop: {e}"));
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut ticks = tokio::time::interval(TEND_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut often = tokio::time::interval(TEND_LOG_INTERVAL);
    often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut serving = std::pin::pin!(serve(control, Rc::clone(&server)));
    let (asks, samples) = served.map(|http| (http.asks, http.samples)).unzip();
    let mut asking = std::pin::pin!(http::asks::answer(asks, Rc::clone(&server)));
    let mut telling = std::pin::pin!(http::stream::tell(samples, Rc::clone(&server)));
    let mut log = std::pin::pin!(server.serve_log());
    let mut walking = std::pin::pin!(server.walk_hunts());
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok("interrupt"),
            _ = terminate.recv() => return Ok("terminate"),
            served = &mut serving => {
                served.map_err(failed)?;
                return Ok("control socket closed");
            }
            () = &mut asking => return Ok("HTTP closed"),
            () = &mut telling => return Ok("HTTP closed"),
            () = &mut walking => return Ok("log closed"),
            served = &mut log => {
                served.map_err(failed)?;
                return Ok("log closed");
            }
            _ = often.tick() => {
                server.tend_log().await;
                if server.log_ended().is_some() {
                    return Ok("the log has ended");
                }
            }
            _ = ticks.tick() => {
                server.tend();
                if !server.lanes_alive() {
                    return Ok("a lane has ended");
                }
            }
        }
    }
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, CliError> {
    tokio::signal::unix::signal(kind)
        .map_err(|e| CliError::new(ExitStatus::Error, format!("waiting for signals: {e}")))
}

/// What runs, where, and how: the facts an operator would ask for first.
fn announce(running: &Running, control: &ControlSocket, log: &Log) {
    match &running.kernel {
        Some(kernel) => {
            let program = kernel.half.facts().ok();
            log.info(&format!(
                "XDP on `{}` (driver {}), mode {}, {} queues; {} instructions, verified in {:.1} ms",
                kernel.nic.name,
                kernel.nic.driver,
                kernel.mode.name(),
                kernel.nic.queues.rx,
                program.as_ref().map_or(0, |p| p.instructions),
                program.as_ref().map_or(0.0, |p| p.verified_in.as_secs_f64() * 1e3),
            ));
        }
        None => log.info(&format!("UDP sockets: {}", running.reason)),
    }
    for (i, lane) in running.lanes.iter().enumerate() {
        let f = &lane.facts;
        log.info(&format!(
            "lane {i}: {}core {}, {}, wait {}, {} KiB of {} pages",
            f.queue.map_or(String::new(), |q| format!("queue {q}, ")),
            f.core.map_or_else(|| "any".into(), |c| c.to_string()),
            match (f.queue, f.zero_copy) {
                (None, _) => "kernel socket",
                (_, true) => "zero-copy",
                (_, false) => "copy mode",
            },
            f.wait,
            f.memory_bytes / 1024,
            f.pages,
        ));
    }
    for remark in &running.remarks {
        log.warn(remark);
    }
    log.info(&format!(
        "serving UDP port {} on {}; control socket {}",
        running.address.port(),
        match &running.kernel {
            Some(kernel) => format!("`{}` (fallback socket {})", kernel.nic.name, running.address),
            None => running.address.to_string(),
        },
        control.path().display(),
    ));
}
