//! Reads through the whole appliance: the SDK in one namespace, the real binary with
//! XDP on two queues in the other, so that lanes get queries for partitions of each
//! other.

use std::net::SocketAddr;
use std::process::Command;

use veltrix_abi::Exit;
use veltrix_abi::query::Wanted;
use veltrix_client::{Client, Event, Hotspot, HotspotKind, Outcome, Rows};
use veltrix_tests::bench::rig::PORT;
use veltrix_tests::bench::service::{Provider, TempDir, binary};
use veltrix_tests::lab::{Lab, LabSpec, SERVER_IPV4};
use veltrix_tests::server::{Server, require};

const HUNTS: u64 = 24;
const PLAYERS: u64 = 3;

fn ticket(reward: u32) -> Hotspot {
    Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward, lifetime_s: 0 }
}

/// Player `n` claims a ticket worth `10 * n` in each hunt; gives the last epoch.
async fn play(client: &Client) -> u64 {
    let mut epoch = 0;
    for key in 0..HUNTS {
        let hunt = client.domain(key);
        for player in 1..=PLAYERS {
            let spawned = hunt.send(Event::spawn(0, player, &ticket(10 * player as u32)).unwrap());
            assert_eq!(spawned.await.unwrap().outcome, Outcome::Applied);
            let claimed = hunt.send(Event::claim(player, player)).await.unwrap();
            assert_eq!(claimed.outcome, Outcome::Applied);
            epoch = epoch.max(claimed.epoch);
        }
    }
    epoch
}

/// Reads every hunt in every way, after what was told at `epoch`.
async fn read(client: &Client, epoch: u64) {
    for key in 0..HUNTS {
        let hunt = client.domain(key).at_least(epoch);
        let top = hunt.top(1, 10).await.unwrap();
        assert!(top.epoch >= epoch, "hunt {key}: {top:?}");
        let seen: Vec<_> = top.value.rows.iter().map(|row| (row.player, row.score)).collect();
        assert_eq!(seen, [(3, 30), (2, 20), (1, 10)], "hunt {key}");
        let player = hunt.player(2).await.unwrap().value.unwrap();
        assert_eq!((player.wallet, player.score, player.rank), (20, 20, 2));
        let near = hunt.nearest_cells(3, 2).await.unwrap().value;
        assert_eq!(near.rows.iter().map(|row| row.cell).collect::<Vec<_>>(), [3, 1]);
        let both = hunt.query(&[Wanted::Cell(1), Wanted::Hunt]).await.unwrap();
        let [Rows::Cell(Some(cell)), Rows::Hunt(Some(summary))] = both.value[..] else {
            panic!("hunt {key}: {both:?}")
        };
        assert_eq!((cell.claimed_by, cell.claimed), (1, true));
        assert_eq!((summary.cells, summary.players, summary.ranked), (3, 3, 3));
    }
}

fn in_client<R: Send>(lab: &Lab, work: impl Future<Output = R> + Send) -> R {
    lab.client(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    })
}

#[test]
fn every_hunt_can_be_read_whichever_lane_is_asked() {
    if !require("every_hunt_can_be_read_whichever_lane_is_asked") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    let dir = TempDir::new().unwrap();
    let data = dir.0.join("data").display().to_string();
    let small = ["--yes", "--segment-bytes", "4194304", "--segments", "8", "--partitions", "8"];
    let capacities = ["--cells-max", "10000", "--players-max", "10000", "--hunts-max", "64"];
    let mut format = Command::new(binary().unwrap());
    format.args(["format", "--data", &data]).args(small).args(capacities);
    let formatted = format.output().unwrap();
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    let server = Server::start(&lab, Provider::Xdp, &["--data", &data]).unwrap();
    let address = SocketAddr::from((SERVER_IPV4, PORT));
    let epoch = in_client(&lab, async move {
        let player = Client::connect(address).await.unwrap();
        assert!(player.server().answers_queries());
        play(&player).await
    });
    let rounds = |rounds: u64| {
        in_client(&lab, async move {
            for _ in 0..rounds {
                read(&Client::connect(address).await.unwrap(), epoch).await;
            }
        });
    };
    rounds(4);
    // Wherever a partition goes, reads find it.
    for partition in 0..8 {
        let number = partition.to_string();
        let moved = server.cli(&lab, &["partition", "move", &number, "--lane", "1"]).unwrap();
        assert_eq!(moved.code, Some(0), "{}", moved.err);
        rounds(1);
    }
    let status = server.settled().unwrap();
    let count = |exit: Exit| -> u64 {
        status.lanes.iter().filter_map(|lane| lane.exits.get(exit.label())).sum()
    };
    assert!(count(Exit::Query) >= 12 * 4 * HUNTS, "{status:?}");
    assert!(status.accounting.closes, "{:?}", status.accounting);
}
