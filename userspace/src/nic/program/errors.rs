//! What can go wrong with the kernel half, and how it is told.

use std::error::Error;
use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

use super::{Mode, Settings};
use crate::nic::attached::Attached;
use crate::nic::blocklist::AddError;
use crate::nic::diagnosis::{self, Privileges, Scene, Step};
use crate::nic::facts::NicFacts;

/// Why the kernel half could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A setting outside its range.
    #[error("{key} is {seen}; wanted {least} to {most}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        seen: u64,
        /// Least value.
        least: u64,
        /// Largest value.
        most: u64,
    },
    /// The object is not a Veltrix kernel half of this version.
    #[error(
        "the eBPF object is not of this build: {what}; build it again with `cargo xtask build-ebpf`"
    )]
    Object {
        /// What is missing or wrong.
        what: String,
    },
    /// The kernel refused it.
    #[error("{message}")]
    Refused {
        /// The whole diagnosis.
        message: String,
        /// What the kernel answered.
        errno: i32,
    },
}

impl LoadError {
    /// What the kernel answered, if it was asked.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Setting { .. } | Self::Object { .. } => None,
        }
    }
}

/// Why the program could not be attached or detached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error("{message}")]
    Refused {
        /// The whole diagnosis.
        message: String,
        /// What the kernel answered.
        errno: i32,
    },
    /// The program is attached already.
    #[error("the XDP program is attached to `{interface}` already; detach it first")]
    Already {
        /// The interface.
        interface: String,
    },
    /// The kernel took the program in a way that does not clean up after a
    /// crash, or in another mode; it was detached again.
    #[error(
        "attaching the XDP program to `{interface}` (driver {driver}, mode {wanted}) ended {found}, which Veltrix does \
         not accept, so it was detached again; wanted a bpf link in mode {wanted}: {cure}"
    )]
    Unproven {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// Mode asked for.
        wanted: &'static str,
        /// What was found.
        found: String,
        /// What may help.
        cure: String,
    },
    /// What is attached could not be read back; it was detached again.
    #[error(
        "reading back what is attached to `{interface}` failed, so it was detached again: {source}"
    )]
    ReadBack {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AttachError {
    /// What the kernel answered, if it refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::ReadBack { source, .. } => source.raw_os_error(),
            Self::Already { .. } | Self::Unproven { .. } => None,
        }
    }
}

/// A map of the kernel half could not be read or written.
#[derive(Debug, Error)]
#[error("map {map} of the kernel half: {action} failed: {source}")]
pub struct MapAccessError {
    pub(super) map: &'static str,
    pub(super) action: String,
    pub(super) source: MapError,
}

/// Why a prefix was not blocked.
#[derive(Debug, Error)]
pub enum BlockError {
    /// The program was loaded without the blocklist.
    #[error("the blocklist is off; switch it on in the configuration and restart")]
    Off,
    /// The entry is not acceptable.
    #[error(transparent)]
    Entry(#[from] AddError),
    /// The kernel refused the write.
    #[error(transparent)]
    Map(#[from] MapAccessError),
}

/// The error number at the root of an aya error, if there is one.
pub(super) fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        next = error.source();
    }
    None
}

pub(super) fn refused_load(error: &(dyn Error + 'static), settings: &Settings) -> LoadError {
    let Some(errno) = errno_of(error) else {
        return LoadError::Object { what: error.to_string() };
    };
    let privileges = Privileges::read();
    let queues = settings.queues;
    let cure = diagnosis::load(errno, &privileges);
    let mut message = format!("loading the XDP program for {queues} queues failed: {cure}");
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref() {
        let words = diagnosis::verifier_excerpt(&verifier_log.to_string());
        if !words.is_empty() {
            message.push_str("\n  the verifier says:\n  ");
            message.push_str(&words);
        }
    }
    LoadError::Refused { message, errno }
}

pub(super) fn refused_attach(
    error: &(dyn Error + 'static),
    nic: &NicFacts,
    mode: Mode,
) -> AttachError {
    let errno = errno_of(error).unwrap_or(libc::EIO);
    // Only named in the message; without it the message is still right.
    let programs = Attached::read(&nic.name).map(|a| a.programs).unwrap_or_default();
    let scene = Scene {
        interface: &nic.name,
        mode: mode.name(),
        driver: &nic.driver,
        rx_queues: nic.queues.rx,
        tx_queues: nic.queues.tx,
        programs: &programs,
        privileges: &Privileges::read(),
    };
    AttachError::Refused { message: diagnosis::explain(Step::Attach, errno, &scene), errno }
}
