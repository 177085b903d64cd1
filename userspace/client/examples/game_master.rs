//! Opens a small hunt in teams, plays it, and prints what became of each step: a
//! ticket two players want, the bank their team saves in, a quest, a reward, the end.
//!
//! ```text
//! veltrix format --data /tmp/hunt && veltrix run --data /tmp/hunt
//! cargo run -p veltrix-client --example game_master     # in a second terminal
//! ```

use veltrix_client::{Client, Event, Hotspot, HotspotKind, HuntSetup, QuestPay};

const MASTER: u64 = 1;
const ANNA: u64 = 7;
const BO: u64 = 8;
/// Cells are 60-bit ids of the game's making.
const SQUARE: u64 = 0x100;
const BRIDGE: u64 = 0x200;
/// Code of the game type in teams, see `userspace/docs/GAMES.md`.
const TEAM_HUNT: u8 = 3;
const QUEST: u64 = 1;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder().connect("127.0.0.1:4747").await?;
    let hunt = client.domain(42);
    let ticket =
        Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 100, lifetime_s: 600 };
    let setup = HuntSetup { game: TEAM_HUNT, length_s: 3_600, settings: 0 };
    let pay = QuestPay { node: 5, end: 50 };
    let steps = [
        ("the hunt is opened for an hour, in teams", Event::open(MASTER, &setup)?),
        (
            "a quest: gate, then well or mill",
            Event::quest(MASTER, QUEST, 3, &[(0, 1), (0, 2)], pay)?,
        ),
        ("Anna joins team 1", Event::join(ANNA, 1)),
        ("Bo joins team 2", Event::join(BO, 2)),
        ("a ticket worth 100 on the square", Event::spawn(MASTER, SQUARE, &ticket)?),
        ("another on the bridge", Event::spawn(MASTER, BRIDGE, &ticket)?),
        ("Anna claims the square", Event::claim(ANNA, SQUARE)),
        ("Bo claims it too", Event::claim(BO, SQUARE)),
        ("Anna takes 60 from the bank of team 1", Event::withdraw(ANNA, 60)),
        ("Bo wants some of team 2's, which has none", Event::withdraw(BO, 1)),
        ("Anna pays Bo 30", Event::transfer(ANNA, BO, 30)),
        ("Bo pays Anna more than he has", Event::transfer(BO, ANNA, u64::MAX)),
        ("Bo is at the well before the gate", Event::checkpoint(BO, QUEST, 1)?),
        ("Bo passes the gate", Event::checkpoint(BO, QUEST, 0)?),
        ("Bo passes the well, and the quest is paid", Event::checkpoint(BO, QUEST, 1)?),
        ("Bo is rewarded for it", Event::reward(BO, 1, 20)),
        ("a nervous back office rewards him again", Event::reward(BO, 1, 20)),
        ("the bridge is closed", Event::expire(MASTER, BRIDGE)),
        ("Bo claims the bridge", Event::claim(BO, BRIDGE)),
        ("the hunt is closed", Event::close(MASTER)),
        ("Anna claims the bridge", Event::claim(ANNA, BRIDGE)),
        ("Anna spends what she has", Event::spend(ANNA, 30)),
    ];
    // One after the other: each step depends on the one before.
    for (what, event) in steps {
        let receipt = hunt.send(event).await?;
        println!("epoch {:>6}  {:<20} {what}", receipt.epoch, receipt.outcome.label());
    }
    if let Some(row) = hunt.summary().await?.value {
        println!("bank of team 1: {}; players: {}", row.banks[0], row.players);
    }
    client.close().await;
    Ok(())
}
