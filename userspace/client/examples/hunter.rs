//! Puts tickets onto ten cells of hunt 42, then plays for player 7, who claims them
//! through a session: one step with its typed answer, the rest under way together,
//! still in order, and at the end what the player owns.
//!
//! ```text
//! veltrix format --data /tmp/hunt && veltrix run --data /tmp/hunt
//! cargo run -p veltrix-client --example hunter          # in a second terminal
//! ```

use veltrix_client::{Claimed, Client, Done, Event, Hotspot, HotspotKind};

const MASTER: u64 = 1;
const HUNTER: u64 = 7;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect("127.0.0.1:4747").await?;
    let hunt = client.domain(42);
    let ticket =
        Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 100, lifetime_s: 600 };
    for cell in 0..10 {
        hunt.send(Event::spawn(MASTER, cell, &ticket)?).await?;
    }

    let hunter = hunt.session(HUNTER);
    let claimed = hunter.claim(0).await?;
    match claimed.outcome {
        Claimed::Won => println!("cell 0: won at epoch {}", claimed.epoch),
        Claimed::AlreadyClaimed => println!("cell 0: somebody was first"),
        other => println!("cell 0: {}", other.outcome().label()),
    }

    let mut under_way = Vec::new();
    for cell in 1..10 {
        under_way.push((cell, hunter.submit(Event::claim(HUNTER, cell)).await?));
    }
    for (cell, receipt) in under_way {
        let claimed: Done<Claimed> = receipt.await?.into();
        println!("cell {cell}: {}", claimed.outcome.outcome().label());
    }

    // All of it is in what is read now.
    let me = hunter.me().await?;
    if let Some(row) = me.value {
        println!("epoch {}: wallet {}, rank {}", me.epoch, row.wallet, row.rank);
    }
    client.close().await;
    Ok(())
}
