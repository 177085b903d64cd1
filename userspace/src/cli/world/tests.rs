use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: WorldArgs,
}

fn parsed(line: &str) -> Result<WorldArgs, clap::Error> {
    Line::try_parse_from(["world"].into_iter().chain(line.split_whitespace())).map(|line| line.args)
}

const SMALL: &str = "--cells 3k --hunts 20 --players 1k";

fn small() -> World {
    World::new(parsed(SMALL).unwrap().plan()).unwrap()
}

#[test]
fn numbers_take_their_suffixes() {
    let args = parsed("--cells 12M --hunts 1000 --players 10M --from cities").unwrap();
    assert_eq!((args.cells, args.hunts, args.players), (12_000_000, 1_000, 10_000_000));
    for bad in [
        "--cells 0",
        "--cells -1",
        "--hunts 1.5",
        "--players 99999G",
        "--from moons",
        "--connections 0",
    ] {
        // What is no number, or none that a world has.
        let refused = parsed(bad).map_or(true, |args| World::new(args.plan()).is_err());
        assert!(refused, "{bad}");
    }
}

#[test]
fn the_file_has_a_line_for_each_event_and_its_checksum_is_that_of_its_bytes() {
    let world = small();
    let mut bytes = Vec::new();
    let checksum = file::write(&world, &mut bytes).unwrap();
    assert_eq!(checksum, xxhash_rust::xxh3::xxh3_128(&bytes));
    assert_eq!(checksum, file::checksum(&world));
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next().map(|line| format!("{line}\n")).as_deref(), Some(file::HEADER));
    for (line, event) in lines.by_ref().zip(world.iter()) {
        let generator::WorldEvent { hunt, kind, player, subject, argument } = event;
        assert_eq!(line, format!("{hunt},{},{player},{subject},{argument}", kind.label()));
    }
    assert_eq!(lines.next(), None);
    assert_eq!(text.lines().count() as u64, 1 + world.events());
}

#[test]
fn chunks_hold_every_event_once_and_take_hunts_by_turns() {
    let world = small();
    for (phase, fill) in Phase::ALL.into_iter().flat_map(|phase| [(phase, 1), (phase, 24)]) {
        let chunks = Chunks::new(&world, phase, fill);
        let mut seen: Vec<Vec<bool>> = (0..world.hunts().len())
            .map(|hunt| vec![false; world.count_in(phase, hunt) as usize])
            .collect();
        let mut turns = 0;
        let mut before = usize::MAX;
        for k in 0..chunks.len() {
            let chunk = chunks.get(k).unwrap();
            assert!((1..=fill).contains(&chunk.count));
            for n in chunk.first..chunk.first + u64::from(chunk.count) {
                assert!(!std::mem::replace(&mut seen[chunk.hunt][n as usize], true));
            }
            turns += u64::from(chunk.hunt != before);
            before = chunk.hunt;
        }
        assert_eq!(chunks.get(chunks.len()), None);
        assert!(seen.iter().flatten().all(|seen| *seen), "{phase:?} {fill}");
        assert!(turns * 2 > chunks.len(), "{phase:?} {fill}: {turns} of {}", chunks.len());
    }
}

#[path = "server_tests.rs"]
mod server;
