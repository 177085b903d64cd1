//! Values of settings: how one is written, what is accepted, how it is shown.
//!
//! A [`Rule`] says what a key accepts, in one place: the parser obeys it, and
//! the words of an error, of `config reference` and of `docs/CONFIG.md` come
//! from it. A [`Setting`] is a Rust type that a key can have; those that are
//! one of several words stand in [`super::words`].

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

/// Longest path of a Unix socket, bytes: `sun_path` is 108 with its final zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest interface name, bytes: `IFNAMSIZ` is 16 with its final zero.
pub const INTERFACE_BYTES_MAX: usize = 15;

/// How a value was written. A file has types; an environment variable and a
/// flag are text, and the key's rule decides what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw<'a> {
    /// Environment variable or flag.
    Argument(Cow<'a, str>),
    /// Quoted, in a file.
    Text(Cow<'a, str>),
    /// A whole number in a file, in decimal.
    Integer(i128),
    /// `true` or `false` in a file.
    Bool(bool),
    /// A list of whole numbers in a file.
    Integers(Vec<i128>),
    /// Anything else in a file: its type and text.
    Other(&'static str, String),
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(text) => write!(f, "`{text}`"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integers(list) => write!(f, "{list:?}"),
            Self::Other(kind, text) if text.is_empty() => write!(f, "{kind}"),
            Self::Other(kind, text) => write!(f, "{kind} {text}"),
        }
    }
}

/// Step of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Any whole number.
    One,
    /// 1, 2, 4, 8 ...
    PowerOfTwo,
    /// Multiples of 8.
    Eight,
}

/// Unit a duration is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Nanoseconds.
    Ns,
    /// Microseconds: what the kernel's busy-poll options take.
    Us,
}

impl TimeUnit {
    const fn ns(self) -> u128 {
        match self {
            Self::Ns => 1,
            Self::Us => 1_000,
        }
    }
}

/// What a key accepts.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// `true` or `false`.
    Switch,
    /// A whole number; `k` and `M` multiply by 1,000 and 1,000,000.
    Count {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// What is counted; empty for a number that counts nothing.
        unit: &'static str,
        /// Which numbers between.
        step: Step,
    },
    /// A size with its unit.
    Bytes {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// A duration with its unit; bounds and value in `unit`.
    Time {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// What bounds and value are counted in.
        unit: TimeUnit,
    },
    /// One of several words.
    Words(&'static [(&'static str, &'static str)]),
    /// Name of a network interface.
    Interface,
    /// Address and UDP port; port 0 takes a free one.
    Address,
    /// `off`, or an address with its TCP port; port 0 takes a free one.
    AddressOrOff,
    /// Path of a Unix socket.
    SocketPath,
    /// Path of a file.
    File,
    /// Path of a directory.
    Directory,
    /// Host names with commas between.
    Names,
    /// `auto`, or a number up to the bound.
    AutoCount(u16),
    /// `auto`, or a list of core ids up to the bound.
    AutoCores(usize),
}

impl Rule {
    /// What is accepted, in words that follow "wanted".
    #[must_use]
    pub fn wanted(&self) -> String {
        match self {
            Self::Switch => "true or false".into(),
            Self::Count { min, max, unit, step } => {
                let (min, max) = (show_count(*min), show_count(*max));
                match step {
                    Step::One if unit.is_empty() => format!("a whole number, {min} to {max}"),
                    Step::One => format!("a whole number of {unit}, {min} to {max}"),
                    Step::PowerOfTwo => format!("a power of two, {min} to {max} {unit}"),
                    Step::Eight => format!("a multiple of 8, {min} to {max} {unit}"),
                }
            }
            Self::Bytes { min, max } => {
                format!("a size with its unit, {} to {}", show_bytes(*min), show_bytes(*max))
            }
            Self::Time { min, max, unit } => format!(
                "a duration with its unit, {} to {}",
                show_time(*min, *unit),
                show_time(*max, *unit)
            ),
            Self::Words(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::Interface => {
                format!("the name of a network interface, 1 to {INTERFACE_BYTES_MAX} bytes")
            }
            Self::Address => {
                "an IP address with a port, such as 127.0.0.1:4747 or [::1]:4747".into()
            }
            Self::AddressOrOff => {
                "\"off\", or an IP address with a port, such as 127.0.0.1:4780 or [::1]:4780".into()
            }
            Self::File => "the path of a file".into(),
            Self::SocketPath => {
                format!("an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes")
            }
            Self::Directory => "the path of a directory".into(),
            Self::Names => {
                "host names with commas between, such as \"game.example, stats.example\"".into()
            }
            Self::AutoCount(max) => format!("\"auto\" or a whole number, 1 to {max}"),
            Self::AutoCores(max) => {
                let max = show_count(*max as u64);
                format!("\"auto\" or a list of distinct core ids below {max}, such as [2, 3]")
            }
        }
    }

    /// The type's name in tables.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Count { .. } => "count",
            Self::Bytes { .. } => "size",
            Self::Time { .. } => "duration",
            Self::Words(_) => "word",
            Self::Interface => "interface",
            Self::Address => "address",
            Self::AddressOrOff => "address or off",
            Self::SocketPath => "path",
            Self::File => "file",
            Self::Directory => "directory",
            Self::Names => "names",
            Self::AutoCount(_) => "count or auto",
            Self::AutoCores(_) => "cores or auto",
        }
    }

    /// The unit in which JSON gives the value, where it has one.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        match self {
            Self::Count { unit: "", .. } => None,
            Self::Count { unit, .. } => Some(unit),
            Self::Bytes { .. } => Some("bytes"),
            Self::Time { unit: TimeUnit::Ns, .. } => Some("ns"),
            Self::Time { unit: TimeUnit::Us, .. } => Some("us"),
            _ => None,
        }
    }

    /// Whether a file writes the value in quotes.
    const fn is_quoted(&self) -> bool {
        matches!(
            self,
            Self::Bytes { .. }
                | Self::Time { .. }
                | Self::Words(_)
                | Self::Interface
                | Self::Address
                | Self::AddressOrOff
                | Self::File
                | Self::SocketPath
                | Self::Directory
                | Self::Names
        )
    }

    /// A shown value as a TOML file writes it.
    #[must_use]
    pub fn toml(&self, shown: &str) -> String {
        let bare = !self.is_quoted()
            && (shown.starts_with('[')
                || matches!(shown, "true" | "false")
                || shown.bytes().all(|b| b.is_ascii_digit()));
        if bare { shown.to_owned() } else { toml::Value::from(shown).to_string() }
    }
}

/// Why a value was not accepted: what stands after "wanted ...:".
pub type Refusal = Cow<'static, str>;

/// A type that a key can have.
pub trait Setting: Sized {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or an empty text when the rule's own words say all.
    fn parse(raw: &Raw<'_>, rule: &Rule) -> Result<Self, Refusal>;

    /// The value as an operator writes it; empty when there is none.
    fn show(&self, rule: &Rule) -> String;

    /// The value for programs: numbers in [`Rule::unit`].
    fn json(&self, rule: &Rule) -> serde_json::Value {
        let shown = self.show(rule);
        if shown.is_empty() { serde_json::Value::Null } else { shown.into() }
    }
}

/// The text of a value that a file writes in quotes.
pub(super) fn text<'a>(raw: &'a Raw<'_>) -> Result<&'a str, Refusal> {
    match raw {
        Raw::Argument(text) | Raw::Text(text) if text.is_empty() => Err("it is empty".into()),
        Raw::Argument(text) | Raw::Text(text) => Ok(text),
        Raw::Integer(_) => Err("a bare number has no unit or quotes".into()),
        Raw::Bool(_) | Raw::Integers(_) | Raw::Other(..) => Err("it is not text in quotes".into()),
    }
}

fn in_range(value: u64, min: u64, max: u64) -> Result<u64, Refusal> {
    if value == 0 && min > 0 {
        Err("zero does not mean \"off\" or \"unlimited\" here".into())
    } else if value < min {
        Err("it is too small".into())
    } else if value > max {
        Err("it is too large".into())
    } else {
        Ok(value)
    }
}

/// A whole number, with `_` between digits and a final `k` or `M` if text.
fn whole_number(raw: &Raw<'_>) -> Result<u64, Refusal> {
    let written = match raw {
        Raw::Integer(number) => {
            return u64::try_from(*number).map_err(|_| "it is out of range".into());
        }
        Raw::Argument(text) => text,
        // In a file a number stands without quotes unless a suffix needs them.
        Raw::Text(text) if text.ends_with(['k', 'M']) => text,
        Raw::Text(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            return Err("a number stands without quotes".into());
        }
        Raw::Text(_) | Raw::Bool(_) | Raw::Integers(_) | Raw::Other(..) => {
            return Err("it is not a whole number".into());
        }
    };
    let (digits, factor) = match written.strip_suffix('k') {
        Some(digits) => (digits, 1_000),
        None => match written.strip_suffix('M') {
            Some(digits) => (digits, 1_000_000),
            None => (written.as_ref(), 1),
        },
    };
    let digits = digits.trim_end().replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("it is not a whole number".into());
    }
    let number: u64 = digits.parse().map_err(|_| Refusal::from("it is too large"))?;
    number.checked_mul(factor).ok_or_else(|| "it is too large".into())
}

/// Refuses a number that stands alone, which the unit parsers would guess at.
fn needs_unit(text: &str) -> Result<(), Refusal> {
    if text.bytes().any(|b| b.is_ascii_alphabetic()) || text.contains('µ') {
        Ok(())
    } else {
        Err("it has no unit".into())
    }
}

fn number(raw: &Raw<'_>, rule: &Rule) -> Result<u64, Refusal> {
    match *rule {
        Rule::Count { min, max, step, .. } => {
            let value = in_range(whole_number(raw)?, min, max)?;
            match step {
                Step::PowerOfTwo if !value.is_power_of_two() => Err("it is not one".into()),
                Step::Eight if value % 8 != 0 => Err("it is not one".into()),
                _ => Ok(value),
            }
        }
        Rule::Bytes { min, max } => {
            let text = text(raw)?;
            needs_unit(text)?;
            let size: ByteSize = text.parse().map_err(|_| Refusal::from("it is not a size"))?;
            in_range(size.as_u64(), min, max)
        }
        Rule::Time { min, max, unit } => {
            let text = text(raw)?;
            needs_unit(text)?;
            let time = parse_time(text)?;
            if !time.as_nanos().is_multiple_of(unit.ns()) {
                return Err("it is no whole number of microseconds".into());
            }
            let value = u64::try_from(time.as_nanos() / unit.ns())
                .map_err(|_| Refusal::from("it is too large"))?;
            in_range(value, min, max)
        }
        _ => Err("the key does not hold a number".into()),
    }
}

fn parse_time(text: &str) -> Result<Duration, Refusal> {
    humantime::parse_duration(text).map_err(|e| e.to_string().into())
}

fn show_number(value: u64, rule: &Rule) -> String {
    match *rule {
        Rule::Bytes { .. } => show_bytes(value),
        Rule::Time { unit, .. } => show_time(value, unit),
        _ => value.to_string(),
    }
}

/// A number with commas between thousands: `1,234,567`.
#[must_use]
pub fn show_count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size in the largest unit that divides it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// A duration in the largest unit that divides it.
fn show_time(value: u64, unit: TimeUnit) -> String {
    let ns = u128::from(value) * unit.ns();
    let units = [(60_000_000_000, "min"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    for (each, name) in units {
        if ns >= each && ns.is_multiple_of(each) {
            return format!("{} {name}", ns / each);
        }
    }
    format!("{ns} ns")
}

macro_rules! number_settings {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn parse(raw: &Raw<'_>, rule: &Rule) -> Result<Self, Refusal> {
                Self::try_from(number(raw, rule)?).map_err(|_| "it is too large".into())
            }

            fn show(&self, rule: &Rule) -> String {
                show_number(*self as u64, rule)
            }

            fn json(&self, _: &Rule) -> serde_json::Value {
                (*self as u64).into()
            }
        }
    )*};
}

number_settings!(u16, u32, u64, usize);

impl Setting for bool {
    fn parse(raw: &Raw<'_>, _: &Rule) -> Result<Self, Refusal> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Argument(text) if text == "true" => Ok(true),
            Raw::Argument(text) if text == "false" => Ok(false),
            Raw::Text(text) if text == "true" || text == "false" => {
                Err("it stands without quotes".into())
            }
            _ => Err("".into()),
        }
    }

    fn show(&self, _: &Rule) -> String {
        self.to_string()
    }

    fn json(&self, _: &Rule) -> serde_json::Value {
        (*self).into()
    }
}

/// A network interface; `None` when there is none.
impl Setting for Option<String> {
    fn parse(raw: &Raw<'_>, _: &Rule) -> Result<Self, Refusal> {
        let name = text(raw)?;
        if name.len() > INTERFACE_BYTES_MAX {
            return Err("it is too long".into());
        }
        if name.contains('/') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("an interface name has no `/` and no blank".into());
        }
        Ok(Some(name.to_owned()))
    }

    fn show(&self, _: &Rule) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Setting for SocketAddr {
    fn parse(raw: &Raw<'_>, _: &Rule) -> Result<Self, Refusal> {
        text(raw)?.parse().map_err(|_| "names are not resolved, and the port must be there".into())
    }

    fn show(&self, _: &Rule) -> String {
        self.to_string()
    }
}

/// An address, or `off`.
impl Setting for Option<SocketAddr> {
    fn parse(raw: &Raw<'_>, rule: &Rule) -> Result<Self, Refusal> {
        if text(raw)? == "off" {
            return Ok(None);
        }
        SocketAddr::parse(raw, rule).map(Some)
    }

    fn show(&self, _: &Rule) -> String {
        self.map_or_else(|| "off".into(), |address| address.to_string())
    }
}

impl Setting for PathBuf {
    fn parse(raw: &Raw<'_>, _: &Rule) -> Result<Self, Refusal> {
        let path = text(raw)?;
        if !path.starts_with('/') {
            return Err("it is relative".into());
        }
        if path.len() > SOCKET_PATH_BYTES_MAX || path.contains('\0') {
            return Err("it is too long or holds a zero byte".into());
        }
        Ok(Self::from(path))
    }

    fn show(&self, _: &Rule) -> String {
        self.display().to_string()
    }
}

/// A directory or file; `None` when there is none.
impl Setting for Option<PathBuf> {
    fn parse(raw: &Raw<'_>, _: &Rule) -> Result<Self, Refusal> {
        let path = text(raw)?;
        if path.is_empty() || path.contains('\0') {
            return Err("it is empty or holds a zero byte".into());
        }
        Ok(Some(PathBuf::from(path)))
    }

    fn show(&self, _: &Rule) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// How many lanes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneCount {
    /// One for each active queue of the NIC; one on UDP sockets.
    Auto,
    /// So many.
    Exactly(u16),
}

impl Setting for LaneCount {
    fn parse(raw: &Raw<'_>, rule: &Rule) -> Result<Self, Refusal> {
        if is_auto(raw) {
            return Ok(Self::Auto);
        }
        let Rule::AutoCount(max) = rule else {
            return Err("the key does not hold a count of lanes".into());
        };
        let count = in_range(whole_number(raw)?, 1, u64::from(*max))?;
        u16::try_from(count).map(Self::Exactly).map_err(|_| "it is too large".into())
    }

    fn show(&self, _: &Rule) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Exactly(count) => count.to_string(),
        }
    }

    fn json(&self, _: &Rule) -> serde_json::Value {
        match self {
            Self::Auto => "auto".into(),
            Self::Exactly(count) => (*count).into(),
        }
    }
}

/// Cores for the lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Chosen at start from those the process may use.
    Auto,
    /// Lane n runs on the n-th.
    List(Vec<usize>),
}

impl Setting for Cores {
    fn parse(raw: &Raw<'_>, rule: &Rule) -> Result<Self, Refusal> {
        if is_auto(raw) {
            return Ok(Self::Auto);
        }
        let Rule::AutoCores(below) = *rule else {
            return Err("the key does not hold cores".into());
        };
        let ids: Vec<i128> = match raw {
            Raw::Integers(ids) => ids.clone(),
            Raw::Argument(text) => text
                .trim_start_matches('[')
                .trim_end_matches(']')
                .split(',')
                .map(|id| id.trim().parse().map_err(|_| Refusal::from("it is not such a list")))
                .collect::<Result<_, _>>()?,
            _ => return Err("it is not such a list".into()),
        };
        let mut cores = Vec::with_capacity(ids.len());
        for id in ids {
            let core = usize::try_from(id)
                .ok()
                .filter(|core| *core < below)
                .ok_or_else(|| Refusal::from(format!("{id} is not a core id")))?;
            if cores.contains(&core) {
                return Err(format!("core {core} is named twice").into());
            }
            cores.push(core);
        }
        if cores.is_empty() { Err("the list is empty".into()) } else { Ok(Self::List(cores)) }
    }

    fn show(&self, _: &Rule) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::List(cores) => format!("{cores:?}"),
        }
    }

    fn json(&self, _: &Rule) -> serde_json::Value {
        match self {
            Self::Auto => "auto".into(),
            Self::List(cores) => cores.clone().into(),
        }
    }
}

fn is_auto(raw: &Raw<'_>) -> bool {
    matches!(raw, Raw::Argument(text) | Raw::Text(text) if text == "auto")
}

/// The name that `written` was probably meant to be.
#[must_use]
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
