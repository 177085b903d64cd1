//! Settings that are one of several words: each enum, its words and what they
//! mean, from one table.

use super::value::{Raw, Refusal, Rule, Setting, nearest, text};
use crate::base::mem::HugePages;

fn word<'a>(raw: &'a Raw<'_>, rule: &Rule) -> Result<&'a str, Refusal> {
    let written = text(raw)?;
    let Rule::Words(words) = rule else {
        return Err("the key does not hold a word".into());
    };
    match nearest(written, words.iter().map(|(word, _)| *word)) {
        _ if words.iter().any(|(word, _)| *word == written) => Ok(written),
        Some(near) => Err(format!("did you mean \"{near}\"?").into()),
        None => Err("".into()),
    }
}

/// Gives an enum its words: the one list that parses, shows and documents it.
macro_rules! words {
    ($type:ty, $table:ident { $($variant:ident = $word:literal, $doc:literal;)* }) => {
        #[doc = concat!("Words of [`", stringify!($type), "`] and what they mean.")]
        pub const $table: &[(&str, &str)] = &[$(($word, $doc),)*];

        impl Setting for $type {
            fn parse(raw: &Raw<'_>, rule: &Rule) -> Result<Self, Refusal> {
                match word(raw, rule)? {
                    $($word => Ok(<$type>::$variant),)*
                    _ => Err("".into()),
                }
            }

            fn show(&self, _: &Rule) -> String {
                match self { $(<$type>::$variant => $word.into(),)* }
            }
        }
    };
}

/// Where in the kernel the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Driver,
    /// After the kernel has built its own packet.
    Generic,
}

/// Whether the NIC writes straight into our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver can; shown in status.
    Auto,
    /// Refuse to start without it.
    Require,
    /// Never.
    Off,
}

/// How a lane waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Sleeps in the kernel when its rings are dry.
    Wakeup,
    /// Never sleeps.
    Spin,
    /// Drives the NIC's queue itself.
    PreferBusy,
}

/// What the rate limit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitMode {
    /// Nothing.
    Off,
    /// Counts and drops nothing.
    Observe,
    /// Drops.
    Enforce,
}

words!(XdpMode, XDP_MODES {
    Driver = "driver", "native XDP, in the driver; refused when the driver has none";
    Generic = "generic", "in the kernel's stack: works everywhere, several times slower, never zero-copy";
});
words!(ZeroCopy, ZERO_COPIES {
    Auto = "auto", "zero-copy where the driver has it, else copy; `status` says which";
    Require = "require", "refuse to start without zero-copy";
    Off = "off", "copy, even where zero-copy can be had";
});
words!(WaitMode, WAIT_MODES {
    Wakeup = "wakeup", "sleep in the kernel when the rings are dry; the choice when cores are shared";
    Spin = "spin", "never sleep: the lane uses its whole core";
    PreferBusy = "prefer-busy", "the lane itself drives the queue (SO_PREFER_BUSY_POLL): no interrupt under load";
});
words!(HugePages, HUGE_PAGES {
    Auto = "auto", "reserved 2 MiB pages, else transparent ones, else 4 KiB; `status` says which";
    Require = "require", "refuse to start without reserved 2 MiB pages";
    Off = "off", "4 KiB pages";
});
words!(RateLimitMode, RATE_LIMIT_MODES {
    Off = "off", "no bucket is kept, and the check is not in the loaded program";
    Observe = "observe", "count what would be dropped (`rate_observed`), drop nothing";
    Enforce = "enforce", "drop what exceeds the rate (`drop_rate`)";
});

impl XdpMode {
    /// The word of configuration and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        XDP_MODES[self as usize].0
    }
}

impl ZeroCopy {
    /// The word of configuration and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        ZERO_COPIES[self as usize].0
    }
}

impl WaitMode {
    /// The word of configuration and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        WAIT_MODES[self as usize].0
    }
}

impl RateLimitMode {
    /// The word of configuration and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        RATE_LIMIT_MODES[self as usize].0
    }
}
