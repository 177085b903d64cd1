//! A list of host names, as one text with commas between.

use super::value::{Raw, Refusal, Rule, Setting, text};

/// Longest host name, bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// Host names, in lower case; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// Those of a text with commas between, unchecked.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    /// Whether a name is one of them, in upper or lower case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Setting for Names {
    fn parse(raw: &Raw<'_>, _: &Rule) -> Result<Self, Refusal> {
        for name in text(raw)?.split(',').map(str::trim) {
            if name.is_empty() {
                return Err("a name is empty".into());
            }
            if name.len() > NAME_BYTES_MAX {
                return Err("a name is too long".into());
            }
            if name.contains([':', '/']) {
                return Err(format!("`{name}` has a port or a path; the name alone stands").into());
            }
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if !name.bytes().all(is_plain) {
                return Err(format!("`{name}` is no host name").into());
            }
        }
        Ok(Self::of(text(raw)?))
    }

    fn show(&self, _: &Rule) -> String {
        self.0.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Names, String> {
        Names::parse(&Raw::Text(text.into()), &Rule::Names).map_err(|why| why.to_string())
    }

    #[test]
    fn names_are_listed_with_commas() {
        let names = parse("game.example, Stats.example").unwrap();
        assert!(names.has("GAME.example") && names.has("stats.example"));
        assert!(!names.has("example") && !names.has(""));
        assert_eq!(names.show(&Rule::Names), "game.example, stats.example");
        assert_eq!(parse(&names.show(&Rule::Names)), Ok(names));
    }

    #[test]
    fn what_is_no_name_is_said() {
        for (text, word) in [
            ("", "empty"),
            ("a.example,,b.example", "empty"),
            ("a.example:80", "port"),
            ("http://a.example", "path"),
            ("a b", "no host name"),
            ("*.example", "no host name"),
        ] {
            assert!(parse(text).unwrap_err().contains(word), "{text}");
        }
        assert!(parse(&"a".repeat(254)).unwrap_err().contains("too long"));
    }
}
