//! Claims ten cells for player 7 in hunt 42 and prints what became of them.
//!
//! `cargo run -p veltrix-client --example hunter` beside a running `veltrix run`.

use veltrix_client::{Client, Event, Mode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder().mode(Mode::None).connect("127.0.0.1:4747").await?;
    let hunt = client.domain(42);
    for result in hunt.send_all((0..10).map(|cell| Event::claim(7, cell))).await {
        println!("{}", result?.outcome.label());
    }
    println!("{:#?}", client.close().await);
    Ok(())
}
