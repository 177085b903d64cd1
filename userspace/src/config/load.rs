//! Reads settings from their sources, in order: default, file, environment,
//! flag. All problems are reported at once, each with its place.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Config, KEYS, Key, Preset, SECTIONS};
use super::paths::FILES;
use super::value::{Cores, LaneCount, Raw, nearest};
use super::words::{WaitMode, XdpMode, ZeroCopy};

/// Largest configuration file, bytes: far above any sensible one, so that a
/// wrong path is not read into memory whole.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The table of keys.
    Default,
    /// A file, at a line counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag, without its dashes.
    Flag(&'static str),
    /// Follows from the value of another key.
    Follows(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Follows(key) => write!(f, "follows {key}"),
        }
    }
}

/// Which file was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileTaken {
    /// The one that was named.
    Named(PathBuf),
    /// The first that exists of those looked for.
    Found(PathBuf),
    /// None exists of those looked for.
    None(Vec<PathBuf>),
}

impl fmt::Display for FileTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(path) => write!(f, "configuration file {} (named)", path.display()),
            Self::Found(path) => write!(f, "configuration file {} (found)", path.display()),
            Self::None(looked) => {
                let looked: Vec<_> = looked.iter().map(|p| p.display().to_string()).collect();
                write!(f, "no configuration file (none at {})", looked.join(", "))
            }
        }
    }
}

/// What to read settings from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// Files to look for when none is named, in order.
    pub look_for: Vec<PathBuf>,
    /// The environment; variables that are not ours are skipped.
    pub env: Vec<(OsString, OsString)>,
    /// Flags that were given, without dashes, and their values.
    pub flags: Vec<(&'static str, String)>,
}

impl Inputs {
    /// This process's environment and the usual files, or the one named.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Self {
        Self {
            file,
            look_for: FILES.iter().map(PathBuf::from).collect(),
            env: std::env::vars_os().collect(),
            flags,
        }
    }
}

/// Settings with their origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The settings.
    pub config: Config,
    /// The file that was read.
    pub file: FileTaken,
    /// Where each value came from, in the order of [`KEYS`].
    pub sources: Vec<Source>,
    /// What is accepted and yet probably not meant: for the operator's eye.
    pub remarks: Vec<String>,
}

impl Resolved {
    /// Where the value of `section.name` came from; `Default` for a name that
    /// is no key.
    #[must_use]
    pub fn source(&self, path: &str) -> &Source {
        position(path).map_or(&Source::Default, |at| &self.sources[at])
    }

    fn is_set(&self, path: &str) -> bool {
        *self.source(path) != Source::Default
    }
}

fn position(path: &str) -> Option<usize> {
    let (section, name) = path.split_once('.')?;
    KEYS.iter().position(|key| key.section == section && key.name == name)
}

/// What sort of failure it was; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file or variable holds something that is not accepted.
    Bad,
    /// Only flags are wrong.
    Flags,
    /// A file may not be read.
    NotPermitted,
}

/// Settings that cannot be used: every problem found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// One line each: place, key, what was found, what was wanted.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Collects problems while the sources are read.
struct Loader {
    config: Config,
    sources: Vec<Source>,
    problems: Vec<String>,
    only_flags: bool,
}

/// Reads all sources and checks that the values fit each other.
///
/// # Errors
///
/// Every problem of every source; nothing is ignored or replaced by a default.
pub fn resolve(inputs: &Inputs) -> Result<Resolved, ConfigError> {
    let mut loader = Loader {
        config: Config::unset(),
        sources: vec![Source::Default; KEYS.len()],
        problems: Vec::new(),
        only_flags: true,
    };
    loader.defaults();
    let (file, text) = read_file(inputs)?;
    if let (FileTaken::Named(path) | FileTaken::Found(path), Some(text)) = (&file, &text) {
        loader.file(path, text);
    }
    loader.env(&inputs.env);
    for (flag, value) in &inputs.flags {
        loader.flag(flag, value);
    }
    if !loader.problems.is_empty() {
        let kind = if loader.only_flags { ErrorKind::Flags } else { ErrorKind::Bad };
        return Err(ConfigError { kind, problems: loader.problems });
    }
    let Loader { config, sources, .. } = loader;
    let mut resolved = Resolved { config, file, sources, remarks: Vec::new() };
    agree(&mut resolved).map_err(|problems| ConfigError { kind: ErrorKind::Bad, problems })?;
    resolved.remarks = remarks(&resolved);
    Ok(resolved)
}

fn read_file(inputs: &Inputs) -> Result<(FileTaken, Option<String>), ConfigError> {
    let taken = match &inputs.file {
        Some(path) => FileTaken::Named(path.clone()),
        // `exists` would skip a file that may not be read, and run on defaults.
        None => match inputs.look_for.iter().find(|path| path.symlink_metadata().is_ok()) {
            Some(path) => FileTaken::Found(path.clone()),
            None => return Ok((FileTaken::None(inputs.look_for.clone()), None)),
        },
    };
    let (FileTaken::Named(path) | FileTaken::Found(path)) = &taken else {
        return Ok((taken, None));
    };
    match read_bounded(path) {
        Ok(text) => Ok((taken, Some(text))),
        Err(error) => {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::NotPermitted,
                _ => ErrorKind::Bad,
            };
            let problem = format!("{}: cannot be read: {error}", path.display());
            Err(ConfigError { kind, problems: vec![problem] })
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path)
}

impl Loader {
    fn problem(&mut self, source: &Source, text: impl fmt::Display) {
        self.only_flags &= matches!(source, Source::Flag(_));
        self.problems.push(match source {
            Source::Default => text.to_string(),
            source => format!("{source}: {text}"),
        });
    }

    fn set(&mut self, at: usize, raw: &Raw<'_>, source: Source) {
        let key = &KEYS[at];
        match (key.set)(&mut self.config, raw, &key.rule) {
            Ok(()) => self.sources[at] = source,
            Err(why) => {
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                let text =
                    format!("{}: found {raw}, wanted {}{why}", key.path(), key.rule.wanted());
                self.problem(&source, text);
            }
        }
    }

    fn defaults(&mut self) {
        for (at, key) in KEYS.iter().enumerate() {
            match key.default {
                Preset::Absent => {}
                Preset::Text(text) => self.set(at, &Raw::Argument(text.into()), Source::Default),
                Preset::Computed(_, value) => {
                    self.set(at, &Raw::Argument(value().into()), Source::Default);
                }
            }
        }
        // Computed defaults are overwritten below when they do not fit (a
        // runtime directory with a very long name), so name the way out.
        for problem in &mut self.problems {
            problem.push_str("; this is the default on this host: set the key");
        }
        self.only_flags &= self.problems.is_empty();
    }

    fn env(&mut self, env: &[(OsString, OsString)]) {
        for (name, value) in env {
            let Some(name) = name.to_str().filter(|name| is_our_variable(name)) else {
                continue;
            };
            let source = Source::Env(name.to_owned());
            let Some(at) = KEYS.iter().position(|key| key.env() == name) else {
                let names: Vec<_> = KEYS.iter().map(Key::env).collect();
                let near = meant(nearest(name, names.iter().map(String::as_str)));
                self.problem(&source, format!("no setting has this variable{near}"));
                continue;
            };
            match value.to_str() {
                Some(value) => self.set(at, &Raw::Argument(value.into()), source),
                None => self.problem(&source, "the value is not UTF-8"),
            }
        }
    }

    fn flag(&mut self, flag: &'static str, value: &str) {
        match KEYS.iter().position(|key| key.flag == flag && !flag.is_empty()) {
            Some(at) => self.set(at, &Raw::Argument(value.into()), Source::Flag(flag)),
            None => self.problem(&Source::Flag(flag), "no setting has this flag"),
        }
    }

    fn file(&mut self, path: &Path, text: &str) {
        let line_at = |offset: usize| {
            let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
            1 + before.iter().filter(|byte| **byte == b'\n').count()
        };
        let place = |offset: usize| Source::File(path.to_owned(), line_at(offset));
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = place(error.span().map_or(0, |span| span.start));
                self.problem(&at, format!("not TOML: {}", error.message()));
                return;
            }
        };
        for (name, value) in in_file_order(&table) {
            let source = place(name.span().start);
            let name = name.as_ref().as_ref();
            if !SECTIONS.iter().any(|(section, _)| *section == name) {
                self.problem(&source, unknown_section(name));
                continue;
            }
            let DeValue::Table(keys) = value.as_ref() else {
                let found = value.as_ref().type_str();
                self.problem(&source, format!("{name}: found {found}, wanted a section: [{name}]"));
                continue;
            };
            for (key, value) in in_file_order(keys) {
                let source = place(key.span().start);
                let key = key.as_ref().as_ref();
                match KEYS.iter().position(|row| row.section == name && row.name == key) {
                    Some(at) => self.set(at, &raw_of(value.as_ref()), source),
                    None => self.problem(&source, unknown_key(name, key)),
                }
            }
        }
    }
}

type Entry<'a, 'i> = (&'a Spanned<Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

/// Entries by their place: the parser keeps them by name.
fn in_file_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn raw_of<'a>(value: &'a DeValue<'_>) -> Raw<'a> {
    let integer = |value: &DeValue<'_>| match value {
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    match value {
        DeValue::String(text) => Raw::Text(text.as_ref().into()),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Integer(_) => integer(value)
            .map_or_else(|| Raw::Other("a very large number", String::new()), Raw::Integer),
        DeValue::Array(list) => list
            .iter()
            .map(|item| integer(item.as_ref()))
            .collect::<Option<Vec<_>>>()
            .map_or_else(|| Raw::Other("a list of other things", String::new()), Raw::Integers),
        DeValue::Float(number) => Raw::Other("the fraction", number.as_str().to_owned()),
        DeValue::Datetime(date) => Raw::Other("the date", date.to_string()),
        DeValue::Table(_) => Raw::Other("a table", String::new()),
    }
}

fn meant(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

fn unknown_section(name: &str) -> String {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("`{name}` stands under a section: [{}]", key.section);
    }
    let near = nearest(name, SECTIONS.iter().map(|(section, _)| *section));
    format!("no section `{name}`{}", meant(near))
}

fn unknown_key(section: &str, name: &str) -> String {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("no key `{section}.{name}`; it is `{}`", key.path());
    }
    let here = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let near = match nearest(name, here) {
        Some(near) => Some(format!("{section}.{near}")),
        None => nearest(name, KEYS.iter().map(|key| key.name))
            .and_then(|near| KEYS.iter().find(|key| key.name == near))
            .map(Key::path),
    };
    format!("no key `{section}.{name}`{}", meant(near.as_deref()))
}

/// Variables that begin like a setting's; others (`VELTRIX_EBPF_OBJECT` of the
/// build) are not ours to judge.
fn is_our_variable(name: &str) -> bool {
    name.strip_prefix("VELTRIX_").is_some_and(|rest| {
        SECTIONS.iter().any(|(section, _)| {
            rest.strip_prefix(&section.to_uppercase()).is_some_and(|key| key.starts_with('_'))
        })
    })
}

/// Makes values that depend on each other agree, or says which do not.
fn agree(resolved: &mut Resolved) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    agree_on_port(resolved, &mut problems);
    agree_on_http(resolved, &mut problems);
    let Config { lanes, xdp, .. } = &resolved.config;
    let mut conflict = |a: &str, b: &str, why: &str| {
        let with_source = |path: &str| format!("{path} ({})", resolved.source(path));
        problems.push(format!("{} and {}: {why}", with_source(a), with_source(b)));
    };
    if let (LaneCount::Exactly(count), Cores::List(cores)) = (lanes.count, &lanes.cores)
        && cores.len() != usize::from(count)
    {
        let why = format!("{count} lanes and {} cores; wanted one core a lane", cores.len());
        conflict("lanes.count", "lanes.cores", &why);
    }
    if xdp.mode == XdpMode::Generic && xdp.zero_copy == ZeroCopy::Require {
        let why = "generic mode is never zero-copy; wanted mode \"driver\", or zero_copy \"auto\"";
        conflict("xdp.mode", "xdp.zero_copy", why);
    }
    if u32::from(lanes.batch_frames) > xdp.rx_ring_frames {
        let why = format!(
            "a batch of {} does not fit a ring of {}; wanted at most the ring",
            lanes.batch_frames, xdp.rx_ring_frames
        );
        conflict("lanes.batch_frames", "xdp.rx_ring_frames", &why);
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// One port, whichever key names it.
fn agree_on_port(resolved: &mut Resolved, problems: &mut Vec<String>) {
    let has_listen = resolved.is_set("server.listen");
    let has_port = resolved.is_set("server.port");
    let server = &mut resolved.config.server;
    let mut follow = |path: &str, source| {
        if let Some(at) = position(path) {
            resolved.sources[at] = source;
        }
    };
    match (has_listen, has_port) {
        (true, true) if server.listen.port() != server.port => problems.push(format!(
            "server.listen ({}) names port {}, server.port ({}) is {}; wanted one of them, or the same port",
            resolved.source("server.listen"),
            resolved.config.server.listen.port(),
            resolved.source("server.port"),
            resolved.config.server.port,
        )),
        (true, false) if server.nic.is_none() => {
            server.port = server.listen.port();
            follow("server.port", Source::Follows("server.listen"));
        }
        (true, _) => {}
        (false, true) => {
            server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port));
            follow("server.listen", Source::Follows("server.port"));
        }
        (false, false) => {}
    }
}

/// Beyond loopback only with a token: there is no other check of who asks.
fn agree_on_http(resolved: &Resolved, problems: &mut Vec<String>) {
    let http = &resolved.config.http;
    if let Some(listen) = http.listen
        && !listen.ip().is_loopback()
        && http.token_file.is_none()
    {
        problems.push(format!(
            "http.listen ({}) is {listen}, which others can reach, and http.token_file is not set; wanted http.token_file = \"FILE\" with a secret, or a loopback address such as 127.0.0.1:{}",
            resolved.source("http.listen"),
            listen.port(),
        ));
    }
}

fn remarks(resolved: &Resolved) -> Vec<String> {
    let mut remarks = Vec::new();
    let config = &resolved.config;
    let listen = resolved.source("server.listen");
    if config.server.nic.is_some() && !matches!(listen, Source::Default | Source::Follows(_)) {
        remarks.push(format!(
            "server.listen ({listen}) is for UDP sockets; with server.nic the service is on that interface, port {}",
            config.server.port
        ));
    }
    if config.server.nic.is_none() {
        for key in KEYS.iter().filter(|key| key.section == "xdp") {
            if resolved.is_set(&key.path()) {
                remarks.push(format!(
                    "{} ({}) has no effect without server.nic",
                    key.path(),
                    resolved.source(&key.path())
                ));
            }
        }
    }
    let mut idle = |path: &str, why: &str| {
        remarks.push(format!("{path} ({}) has no effect {why}", resolved.source(path)));
    };
    let http = &config.http;
    if http.listen.is_none() && http.token_file.is_some() {
        idle("http.token_file", "while http.listen is \"off\"");
    }
    match http.listen {
        _ if http.names.is_empty() => {}
        None => idle("http.names", "while http.listen is \"off\""),
        Some(listen) if listen.ip().is_loopback() => {}
        Some(_) => idle("http.names", "beyond loopback, where the token is asked for instead"),
    }
    if config.xdp.wait != WaitMode::PreferBusy {
        for path in ["xdp.busy_poll", "xdp.busy_poll_budget"] {
            if resolved.is_set(path) && config.server.nic.is_some() {
                let source = resolved.source(path);
                remarks.push(format!(
                    "{path} ({source}) has no effect unless xdp.wait is \"prefer-busy\""
                ));
            }
        }
    }
    remarks
}

#[cfg(test)]
mod tests;
