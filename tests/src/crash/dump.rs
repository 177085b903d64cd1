//! Reads `veltrix inspect log`: the node's events, and what became of each when
//! the log is judged again offline, a JSON line each.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use veltrix_abi::Outcome;

use super::judge::Kept;
use crate::bench::service::binary;
use crate::lab::{Lab, Side};
use crate::server::finish;

/// A line of a dump; it has more fields than are needed here.
#[derive(Deserialize)]
struct Line {
    key: String,
    epoch: u64,
    outcome: Option<String>,
    #[serde(default)]
    duplicate: bool,
}

/// Every event of the log in `data`, whose server has ended: judged again where
/// that can be done.
///
/// # Errors
///
/// When the log is not sound, or a line cannot be read.
pub fn outcomes(lab: &Lab, data: &Path) -> Result<Vec<Kept>> {
    let mut kept = read(&dump(lab, data, "--outcomes")?)?;
    let judged: HashSet<_> = kept.iter().map(|kept| (kept.key, kept.epoch)).collect();
    let all = read(&dump(lab, data, "--events")?)?;
    kept.extend(all.into_iter().filter(|event| !judged.contains(&(event.key, event.epoch))));
    Ok(kept)
}

fn dump(lab: &Lab, data: &Path, what: &str) -> Result<String> {
    let mut command = Command::new(binary()?);
    command.args(["inspect", "log", what, "--json", "--data"]).arg(data);
    let finished = finish(lab, Side::Server, command)?;
    ensure!(
        finished.code == Some(0),
        "veltrix inspect log {what} ended with {:?}: {}",
        finished.code,
        finished.err
    );
    Ok(finished.out)
}

fn read(text: &str) -> Result<Vec<Kept>> {
    let lines = text.lines().filter(|line| line.contains("\"key\""));
    lines.map(|line| one(line).with_context(|| format!("the dump says {line}"))).collect()
}

fn one(line: &str) -> Result<Kept> {
    let line: Line = serde_json::from_str(line)?;
    let outcome = match line.outcome {
        None => None,
        Some(label) => {
            let outcome = Outcome::ALL.iter().find(|outcome| outcome.label() == label);
            Some(*outcome.context("no such outcome")?)
        }
    };
    let key = uuid::Uuid::parse_str(&line.key)?.into_bytes();
    Ok(Kept { key, epoch: line.epoch, outcome, duplicate: line.duplicate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_by_name() {
        let text = "{\"epoch\":7,\"slot\":0,\"key\":\"00000000-0001-7000-8000-000000000002\",\
                    \"outcome\":\"already-claimed\",\"duplicate\":true,\"first_epoch\":5}\n\
                    {\"events\":1}\n";
        let kept = read(text).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].epoch, kept[0].duplicate), (7, true));
        assert_eq!(kept[0].outcome, Some(Outcome::AlreadyClaimed));
        assert_eq!(kept[0].key[5..7], [1, 0x70]);
        assert!(read("{\"key\":1}").is_err());
    }
}
