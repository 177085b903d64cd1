//! `veltrix block add|list|del`: the blocklist of a running server.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::status::Table;
use super::{CliError, ExitStatus, ServerArgs, json_line, print};
use crate::admin::protocol::{Blocked, Reply, Request};
use crate::admin::server::check_block;
use crate::nic::blocklist::Prefix;

/// Block sources of datagrams, list and unblock them.
///
/// The XDP program drops what a blocked source sends, before any other work;
/// `drop_blocked` counts it. A running server takes changes at once and
/// forgets them when it stops.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix block add 203.0.113.0/24 --ttl 15m --reason flood
  veltrix block add 2001:db8::7 --ttl forever --reason 'ticket 4711'
  veltrix block list
  veltrix block del 203.0.113.0/24")]
pub struct BlockArgs {
    #[command(subcommand)]
    command: BlockCommand,
}

#[derive(Debug, Subcommand)]
enum BlockCommand {
    /// Block a prefix, or give a blocked one another time and reason.
    Add {
        /// Address or prefix: 203.0.113.7, 203.0.113.0/24, 2001:db8::/32.
        #[arg(value_name = "CIDR")]
        cidr: Prefix,
        /// How long: 90s, 15m, 2h, 7d, or forever.
        #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
        ttl: Ttl,
        /// Why, for whoever lists it later; at most 40 bytes.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        server: ServerArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List what is blocked, soonest to expire first.
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Unblock a prefix, written as it was blocked.
    Del {
        /// Address or prefix.
        #[arg(value_name = "CIDR")]
        cidr: Prefix,
        #[command(flatten)]
        server: ServerArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Seconds to block for; `None` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ttl(Option<u64>);

fn parse_ttl(text: &str) -> Result<Ttl, String> {
    if text == "forever" {
        return Ok(Ttl(None));
    }
    let wanted = "wanted whole seconds with a unit, such as 90s, 15m, 2h or 7d, or forever";
    let time = humantime::parse_duration(text).map_err(|e| format!("{e}; {wanted}"))?;
    if time.subsec_nanos() != 0 {
        return Err(wanted.to_owned());
    }
    Ok(Ttl(Some(time.as_secs())))
}

/// Runs the command.
///
/// # Errors
///
/// No server, a refusal, or arguments that make no sense.
pub fn run(args: BlockArgs) -> Result<ExitStatus, CliError> {
    let (request, server, json) = match args.command {
        BlockCommand::Add { cidr, ttl: Ttl(ttl_s), reason, server, json } => {
            check_block(ttl_s, &reason).map_err(|why| CliError::new(ExitStatus::Usage, why))?;
            (Request::BlockAdd { cidr, ttl_s, reason }, server, json)
        }
        BlockCommand::List { server, json } => (Request::BlockList, server, json),
        BlockCommand::Del { cidr, server, json } => (Request::BlockDel { cidr }, server, json),
    };
    let text = match server.ask(&request)? {
        Reply::Done(sentence) if json => json_line(&serde_json::json!({ "done": sentence }))?,
        Reply::Done(sentence) => sentence + "\n",
        Reply::Blocks(blocks) if json => json_line(&blocks)?,
        Reply::Blocks(blocks) => list(blocks),
        other => {
            let text = format!("the server answered something else: {other:?}");
            return Err(CliError::new(ExitStatus::Error, text));
        }
    };
    print(&text)?;
    Ok(ExitStatus::Ok)
}

fn list(mut blocks: Vec<Blocked>) -> String {
    if blocks.is_empty() {
        return "nothing is blocked\n".into();
    }
    blocks.sort_by_key(|blocked| (blocked.expires_in_s.unwrap_or(u64::MAX), blocked.cidr));
    let mut table = Table::new(&["prefix", "expires in", "reason"], &[0, 2]);
    for blocked in blocks {
        let expires = blocked.expires_in_s.map_or_else(
            || "never".to_owned(),
            |s| humantime::format_duration(Duration::from_secs(s)).to_string(),
        );
        table.row(vec![blocked.cidr.to_string(), expires, blocked.reason]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(parse_ttl("15m"), Ok(Ttl(Some(900))));
        assert_eq!(parse_ttl("1h 30m"), Ok(Ttl(Some(5_400))));
        assert_eq!(parse_ttl("forever"), Ok(Ttl(None)));
        for bad in ["", "15", "1500 ms", "-1s", "soon"] {
            assert!(parse_ttl(bad).unwrap_err().contains("forever"), "{bad}");
        }
    }

    #[test]
    fn the_list_begins_with_what_expires_first() {
        let blocked = |cidr: &str, expires_in_s, reason: &str| Blocked {
            cidr: cidr.parse().unwrap(),
            expires_in_s,
            reason: reason.into(),
        };
        let text = list(vec![
            blocked("2001:db8::/32", None, "ticket 4711"),
            blocked("203.0.113.0/24", Some(905), "flood"),
        ]);
        expect_test::expect![[r#"
            prefix          expires in  reason
            203.0.113.0/24      15m 5s  flood
            2001:db8::/32        never  ticket 4711
        "#]]
        .assert_eq(&text);
        assert_eq!(list(Vec::new()), "nothing is blocked\n");
    }
}
