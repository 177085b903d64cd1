//! `veltrix config check|show|reference`, and the flags that set keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CliError, ExitStatus, json_line, print};
use crate::config::load::ErrorKind;
use crate::config::{ConfigError, Inputs, Resolved, resolve, show};

/// Flags that set keys; each wins over the environment and the file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings (win over file and environment)")]
pub struct ConfigArgs {
    /// Configuration file [default: ./veltrix.toml, else /etc/veltrix/veltrix.toml, else none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Network interface to take over by XDP; without it UDP sockets
    #[arg(long, value_name = "IF")]
    pub nic: Option<String>,
    /// Data directory made by `veltrix format`; without it nothing is kept
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// UDP port [default: 4747]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Address and port of UDP sockets [default: 127.0.0.1:4747]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Cores of the lanes: auto, or a list such as 2,3 [default: auto]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,
    /// XDP mode: driver or generic [default: driver]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Zero-copy: auto, require or off [default: auto]
    #[arg(long, value_name = "WHETHER")]
    pub zero_copy: Option<String>,
    /// How lanes wait: wakeup, spin or prefer-busy [default: wakeup]
    #[arg(long, value_name = "HOW")]
    pub wait: Option<String>,
    /// Control socket for `status` and `block`
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<String>,
    /// Address and port of JSON over HTTP, or off [default: off]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<String>,
    /// Largest UDP payload accepted, bytes [default: 1232]
    #[arg(long, value_name = "BYTES")]
    pub payload_bytes_max: Option<String>,
}

impl ConfigArgs {
    /// Reads the settings of this process.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn resolve(self) -> Result<Resolved, CliError> {
        let flags = [
            ("nic", self.nic),
            ("data", self.data),
            ("port", self.port),
            ("listen", self.listen),
            ("cores", self.cores),
            ("mode", self.mode),
            ("zero-copy", self.zero_copy),
            ("wait", self.wait),
            ("control-socket", self.control_socket),
            ("http", self.http),
            ("payload-bytes-max", self.payload_bytes_max),
        ];
        let given = flags.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
        Ok(resolve(&Inputs::of_process(self.config, given.collect()))?)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let (status, cure) = match error.kind {
            ErrorKind::Bad => {
                (ExitStatus::BadConfig, "; `veltrix config reference` explains every key")
            }
            ErrorKind::Flags => (ExitStatus::Usage, "; `veltrix run --help` explains every flag"),
            ErrorKind::NotPermitted => (ExitStatus::NotPermitted, ""),
        };
        let what = match error.problems.len() {
            1 => "a setting is not accepted".to_owned(),
            n => format!("{n} settings are not accepted"),
        };
        Self::new(status, format!("{what}{cure}\n  {}", error.problems.join("\n  ")))
    }
}

/// Check, show and explain settings.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix config reference > veltrix.toml      a file with every key at its default
  veltrix config check veltrix.toml            exit 0, or 78 and every problem with its line
  veltrix config show --nic eth1               what `veltrix run --nic eth1` would use, and why")]
pub struct ConfigCommandArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Judge a file by itself, without environment and flags; changes nothing.
    Check {
        /// The file.
        file: PathBuf,
        /// Print the settings of the file as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show every value and where it came from; takes the flags of `run`.
    Show {
        #[command(flatten)]
        settings: Box<ConfigArgs>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a file with every key, its default and its meaning.
    Reference,
}

/// Runs the command.
///
/// # Errors
///
/// All that is wrong with the settings.
pub fn run(args: ConfigCommandArgs) -> Result<ExitStatus, CliError> {
    match args.command {
        ConfigCommand::Check { file, json } => {
            let resolved = resolve(&Inputs { file: Some(file), ..Inputs::default() })?;
            if json {
                print(&json_line(&show::effective_json(&resolved))?)?;
            } else {
                let notes: String =
                    resolved.remarks.iter().map(|remark| format!("note: {remark}\n")).collect();
                print(&format!("{}: accepted\n{notes}", resolved.file))?;
            }
        }
        ConfigCommand::Show { settings, json } => {
            let resolved = settings.resolve()?;
            if json {
                print(&json_line(&show::effective_json(&resolved))?)?;
            } else {
                print(&show::effective(&resolved))?;
            }
        }
        ConfigCommand::Reference => print(&show::reference())?,
    }
    Ok(ExitStatus::Ok)
}
