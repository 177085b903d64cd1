//! Player 7 hunts in hunt 42: claims the tickets on ten cells, one behind the
//! other, says what became of each, and what the player owns afterwards.
//!
//! ```text
//! veltrix format --data /tmp/hunt && veltrix run --data /tmp/hunt
//! cargo run -p veltrix-client --example game_master     # sets up and plays hunt 42
//! cargo run -p veltrix-client --example hunter
//! ```

use veltrix_client::{Claimed, Client, Done, Event};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect("127.0.0.1:4747").await?;
    let hunter = client.domain(42).session(7);

    // One step at a time, each with an answer of its own type.
    let claimed = hunter.claim(0x100).await?;
    match claimed.outcome {
        Claimed::Won => println!("0x100: won at epoch {}", claimed.epoch),
        Claimed::AlreadyClaimed => println!("0x100: somebody was first"),
        other => println!("0x100: {}", other.outcome().label()),
    }

    // Many steps under way, still applied in this order.
    let mut under_way = Vec::new();
    for cell in 0x101..0x10a {
        let step = hunter.submit(Event::claim(hunter.player(), cell)).await?;
        under_way.push((cell, step));
    }
    for (cell, step) in under_way {
        let claimed: Done<Claimed> = step.await?.into();
        println!("{cell:#x}: {}", claimed.outcome.outcome().label());
    }

    // Everything above is in what is read now.
    let me = hunter.me().await?;
    match me.value {
        Some(row) => println!(
            "at epoch {}: wallet {}, score {}, rank {}",
            me.epoch, row.wallet, row.score, row.rank
        ),
        None => println!("at epoch {}: nothing in this hunt yet", me.epoch),
    }
    client.close().await;
    Ok(())
}
