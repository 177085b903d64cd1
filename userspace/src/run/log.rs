//! What a running server says, on standard error: lines for people, or JSON
//! lines for machines. Never from a lane.

use crate::base::clock::unix_ns;

/// How to say it.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// One JSON object a line.
    pub json: bool,
}

impl Log {
    /// Something an operator may want to know.
    pub fn info(&self, message: &str) {
        self.say("info", message);
    }

    /// Something an operator should act on.
    pub fn warn(&self, message: &str) {
        self.say("warning", message);
    }

    fn say(&self, level: &str, message: &str) {
        if self.json {
            let unix_ms = unix_ns() / 1_000_000;
            eprintln!(
                "{}",
                serde_json::json!({ "unix_ms": unix_ms, "level": level, "message": message })
            );
        } else if level == "info" {
            eprintln!("veltrix: {message}");
        } else {
            eprintln!("veltrix: {level}: {message}");
        }
    }
}
