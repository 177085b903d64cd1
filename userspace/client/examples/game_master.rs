//! Sets up a small hunt, plays it, and prints what became of each step: a
//! ticket two players want, a payment between them, a hotspot ended early.
//!
//! ```text
//! veltrix format --data /tmp/hunt && veltrix run --data /tmp/hunt
//! cargo run -p veltrix-client --example game_master     # in a second terminal
//! ```

use veltrix_client::{Client, Event, Hotspot, HotspotKind};

const MASTER: u64 = 1;
const ANNA: u64 = 7;
const BO: u64 = 8;
/// Cells are 60-bit ids of the game's making.
const SQUARE: u64 = 0x100;
const BRIDGE: u64 = 0x200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder().connect("127.0.0.1:4747").await?;
    let hunt = client.domain(42);
    let ticket =
        Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 100, lifetime_s: 600 };
    let steps = [
        ("a ticket worth 100 on the square", Event::spawn(MASTER, SQUARE, &ticket)?),
        ("another on the bridge", Event::spawn(MASTER, BRIDGE, &ticket)?),
        ("Anna claims the square", Event::claim(ANNA, SQUARE)),
        ("Bo claims it too", Event::claim(BO, SQUARE)),
        ("Anna pays Bo 30", Event::transfer(ANNA, BO, 30)),
        ("Bo pays Anna more than he has", Event::transfer(BO, ANNA, u64::MAX)),
        ("the bridge is closed", Event::expire(MASTER, BRIDGE)),
        ("Bo claims the bridge", Event::claim(BO, BRIDGE)),
    ];
    // One after the other: each step depends on the one before.
    for (what, event) in steps {
        let receipt = hunt.send(event).await?;
        println!("epoch {:>6}  {:<20} {what}", receipt.epoch, receipt.outcome.label());
    }
    client.close().await;
    Ok(())
}
