//! Prints the ten best players of a hunt every second, with the epoch the board
//! is of and how old that is.
//!
//! `cargo run -p veltrix-client --example leaderboard_watcher -- [ADDR] [HUNT] [ROUNDS]`
//! beside a running `veltrix run --data DIR`; 127.0.0.1:4747, 42 and 10 unless given.

use std::time::Duration;

use veltrix_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:4747".into());
    let key = args.next().map_or(Ok(42), |hunt| hunt.parse())?;
    let rounds: u32 = args.next().map_or(Ok(10), |rounds| rounds.parse())?;

    let client = Client::connect(addr).await?;
    let hunt = client.domain(key);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..rounds {
        second.tick().await;
        let board = hunt.top(1, 10).await?;
        println!("hunt {key} at epoch {}, at most {:?} old", board.epoch, board.age);
        for row in board.value.rows {
            println!("{:>6}  player {:<20} {:>16}", row.rank, row.player, row.score);
        }
    }
    client.close().await;
    Ok(())
}
