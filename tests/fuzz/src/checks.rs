//! What must hold of the decoders on any bytes at all.
//!
//! Each check takes an input as it comes, panics when a rule is broken, and
//! gives the verdict on the input: the word in the names of corpus files.
//! Checks that a random input would never pass (magic, CRC32C) are also made
//! on a copy in which they are mended, so that the code behind them is reached.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use veltrix::config::load::ErrorKind;
use veltrix::config::{Inputs, resolve, show};
use veltrix_abi::frame::{Datagram, Family, accept, accept_redirected, parse};
use veltrix_abi::limits::{EVENT_PAYLOAD_BYTES_MAX, HEADER_BYTES, TAG_BYTES};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::query::{
    CellRow, ENTRY_FIXED_BYTES, Entries, Entry, HuntRow, PlayerRow, QUERY_BYTES, QUERY_HEAD_BYTES,
    Queries, Query, QueryKind, RankRow, Row, row_bytes, write_answer_head,
};
use veltrix_abi::wire::{
    self, AckEntry, Acks, CRC_FROM, FLAG_SEALED, HELLO_BODY_BYTES, Header, Kind, MAGIC,
    PING_BODY_BYTES, Pong, Reply, ReplyError, Request, VERSION, Welcome, decode, decode_reply,
    decode_visiting,
};
use veltrix_abi::{Action, Exit};

/// The port that is ours.
pub const PORT: u16 = 4_747;

/// Largest payload taken, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1_232;

/// Verdict on a frame that goes on to a lane.
pub const ACCEPTED: &str = "accepted";

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The frame decoder. Verdict: [`ACCEPTED`], or the label of the exit.
pub fn frame(bytes: &[u8]) -> &'static str {
    let repeated = accept_redirected(bytes, PORT, PAYLOAD_BYTES_MAX);
    match accept(bytes, PORT, PAYLOAD_BYTES_MAX) {
        Ok(datagram) => {
            assert_eq!(repeated, Ok(datagram), "the lane's repetition differs");
            accepted(bytes, &datagram);
            ACCEPTED
        }
        Err(exit) => {
            assert!(matches!(exit.action(), Action::Pass | Action::Drop), "{exit:?}");
            if exit == Exit::DropNotUnicast {
                let mut unicast = bytes.to_vec();
                unicast[0] &= !1;
                assert_eq!(accept(&unicast[..], PORT, PAYLOAD_BYTES_MAX), repeated);
            } else {
                assert_eq!(repeated, Err(exit), "the lane's repetition differs");
            }
            if exit == Exit::DropMagic {
                let datagram = parse(bytes, PORT).expect("it was found before its magic was read");
                let mut mended = bytes.to_vec();
                mended[datagram.payload..][..MAGIC.len()].copy_from_slice(&MAGIC);
                assert_eq!(accept(&mended[..], PORT, PAYLOAD_BYTES_MAX), Ok(datagram));
                accepted(&mended, &datagram);
            }
            exit.label()
        }
    }
}

/// An accepted frame: every offset inside it, in order, and where the bytes say.
fn accepted(bytes: &[u8], datagram: &Datagram) {
    let Datagram { family, l3, udp, payload, payload_bytes } = *datagram;
    let end = payload + payload_bytes;
    assert!([14, 18, 22].contains(&l3), "{datagram:?}");
    let (version, header_bytes) = match family {
        Family::V4 => (4, usize::from(bytes[l3] & 0x0f) * 4),
        Family::V6 => (6, 40),
    };
    assert_eq!((bytes[l3] >> 4, l3 + header_bytes), (version, udp), "{datagram:?}");
    assert_eq!(payload, udp + 8, "{datagram:?}");
    assert!(end <= bytes.len(), "{datagram:?} in {} bytes", bytes.len());
    assert!((HEADER_BYTES..=PAYLOAD_BYTES_MAX).contains(&payload_bytes), "{datagram:?}");
    assert_eq!(bytes[udp + 2..udp + 4], PORT.to_be_bytes());
    assert_eq!(bytes[payload..][..MAGIC.len()], MAGIC);

    // Padding behind the datagram means nothing; a byte less is too few.
    assert_eq!(accept(&bytes[..end], PORT, PAYLOAD_BYTES_MAX), Ok(*datagram));
    assert_eq!(accept(&bytes[..end - 1], PORT, PAYLOAD_BYTES_MAX), Err(Exit::DropUdpLength));

    // What a lane does with it next.
    request(&bytes[payload..end]);
}

/// The decoder of requests. Verdict: the kind, or the label of the exit.
pub fn request(datagram: &[u8]) -> &'static str {
    if let Some(mended) = mended(datagram) {
        one_request(&mended);
    }
    one_request(datagram)
}

/// The decoder of replies. Verdict: the kind, or the error.
pub fn reply(datagram: &[u8]) -> &'static str {
    if let Some(mended) = mended(datagram) {
        one_reply(&mended);
    }
    one_reply(datagram)
}

/// The datagram with magic and CRC32C as they should be; `None` when it has no
/// room for them.
fn mended(datagram: &[u8]) -> Option<Vec<u8>> {
    let mut out = datagram.to_vec();
    let head = out.first_chunk_mut::<HEADER_BYTES>()?;
    head[..MAGIC.len()].copy_from_slice(&MAGIC);
    let sealed = head[8] == VERSION && head[11] & FLAG_SEALED != 0;
    let tag_bytes = if sealed { TAG_BYTES } else { 0 };
    let end = datagram.len().checked_sub(tag_bytes).filter(|end| *end >= HEADER_BYTES)?;
    wire::finish(&mut out[..end], crc);
    Some(out)
}

/// Whether a datagram says that it is a reply: its kind keeps its place in
/// all versions.
fn is_answer(datagram: &[u8]) -> bool {
    let kind = datagram.get(CRC_FROM + 1).and_then(|code| Kind::from_code(*code));
    !matches!(kind, None | Some(Kind::Events | Kind::Ping | Kind::Query | Kind::Hello))
}

fn one_request(datagram: &[u8]) -> &'static str {
    let mut shown = Vec::new();
    match decode_visiting(datagram, crc, |event| shown.push(*event)) {
        Ok((header, request)) => {
            if let Request::Events(_, events) = request {
                assert!(events.eq(shown), "the events shown are not those that are there");
            } else {
                assert!(shown.is_empty(), "events shown of {request:?}");
            }
            assert!(!is_answer(datagram), "a reply was taken for a request");
            assert!(decode_reply(datagram, crc).is_err(), "both a request and a reply");
            let (rebuilt, kind) = rebuilt(&header, &request, &datagram[HEADER_BYTES..]);
            // The magic is looked at before, by the frame decoder, and no CRC covers it.
            assert_eq!(rebuilt[MAGIC.len()..], datagram[MAGIC.len()..], "{header:?}");
            kind
        }
        Err(exit) => {
            let short = datagram.len() < HEADER_BYTES;
            assert_eq!(exit == Exit::DropHeaderShort, short, "{exit:?}");
            assert!(short || !exit.is_xdp(), "{exit:?} is the kernel half's");
            let owed = exit.action() == Action::Reply;
            assert!(!(owed && is_answer(datagram)), "a reply would be answered: {exit:?}");
            exit.label()
        }
    }
}

/// A request written again from what was read of it, and its kind.
fn rebuilt(header: &Header, request: &Request<'_>, body: &[u8]) -> (Vec<u8>, &'static str) {
    let mut out = vec![0; HEADER_BYTES];
    header.write(&mut out);
    let kind = match *request {
        Request::Events(mode, events) => {
            assert_eq!(mode as u8, header.mode);
            assert_eq!(events.len(), usize::from(header.count));
            for event in events {
                assert!(event.payload.len() <= EVENT_PAYLOAD_BYTES_MAX);
                let start = out.len();
                out.resize(start + event.wire_bytes(), 0xee);
                assert_eq!(event.write(&mut out[start..]), event.wire_bytes());
            }
            "events"
        }
        Request::Ping(sent_ns) => {
            assert_eq!(body.len(), PING_BODY_BYTES);
            out.extend(sent_ns.to_le_bytes());
            out.extend(&body[8..]);
            "ping"
        }
        Request::Hello => {
            assert_eq!(body.len(), HELLO_BODY_BYTES);
            out.extend(body);
            "hello"
        }
        Request::Query(queries) => {
            assert_eq!(queries.iter().len(), usize::from(header.count));
            out.extend(queried(&queries, body.len()));
            "query"
        }
    };
    wire::finish(&mut out, crc);
    (out, kind)
}

/// The body of queries written again, and what must hold of each query.
fn queried(queries: &Queries<'_>, body_bytes: usize) -> Vec<u8> {
    assert_eq!(queries.body_bytes, body_bytes);
    let mut out = vec![0xee; QUERY_HEAD_BYTES];
    Queries::write_head(&mut out, queries.min_epoch);
    for query in queries.iter() {
        let start = out.len();
        out.resize(start + QUERY_BYTES, 0xee);
        query.write(&mut out[start..]);
        let bytes_max = query.answer_bytes_max();
        let Some(wanted) = query.wanted() else {
            assert_eq!(bytes_max, ENTRY_FIXED_BYTES, "{query:?}");
            continue;
        };
        let again = Query { tag: query.tag, ..Query::of(&wanted) };
        assert_eq!(again.wanted(), Some(wanted), "{query:?}");
        // Rank 0 is another word for rank 1.
        let is_first = query.kind == QueryKind::Top.code() && query.a == 0;
        assert_eq!(Query { a: if is_first { 0 } else { again.a }, ..again }, query);
        let rows_bytes = bytes_max - ENTRY_FIXED_BYTES;
        assert!(rows_bytes > 0 && rows_bytes.is_multiple_of(row_bytes(query.kind)), "{query:?}");
    }
    assert!(out.len() <= body_bytes);
    out.resize(body_bytes, 0);
    out
}

fn one_reply(datagram: &[u8]) -> &'static str {
    match decode_reply(datagram, crc) {
        Ok((header, reply)) => {
            let exit = decode(datagram, crc).err();
            let silent = exit.is_some_and(|exit| exit.action() == Action::Silent);
            assert!(silent, "a server that gets this reply leaves by {exit:?}");
            understood(&header, &reply, &datagram[HEADER_BYTES..])
        }
        Err(ReplyError::NotOurs) => "not_ours",
        Err(ReplyError::Checksum) => "checksum",
        Err(ReplyError::Unknown) => "unknown",
        Err(ReplyError::Malformed) => "malformed",
    }
}

/// A reply says the same when it is written again from what was read of it.
/// Fields that are reserved may hold anything: a newer server may use them.
fn understood(header: &Header, reply: &Reply<'_>, body: &[u8]) -> &'static str {
    match *reply {
        Reply::Ack(acks) => {
            acknowledged(header, acks, body.len());
            "ack"
        }
        Reply::Pong(pong) => {
            let mut out = [0; PING_BODY_BYTES];
            pong.write(&mut out);
            assert_eq!((&out[..], Pong::read(&out)), (body, pong));
            "pong"
        }
        Reply::Welcome(welcome) => {
            let mut out = [0; HELLO_BODY_BYTES];
            welcome.write(&mut out);
            assert_eq!(Welcome::read(&out), welcome);
            "welcome"
        }
        Reply::Answer(entries) => {
            answered(header, entries, body);
            "answer"
        }
        Reply::Busy { retry_after_us } => {
            assert_eq!(retry_after_us.to_le_bytes(), body[..4]);
            "busy"
        }
        Reply::Refused { reason, version_min, version_max } => {
            assert_eq!([reason, version_min, version_max], body[..3]);
            "refused"
        }
    }
}

fn acknowledged(header: &Header, acks: Acks<'_>, body_bytes: usize) {
    let mut out = vec![0; HEADER_BYTES];
    header.write(&mut out);
    let mut entries = Vec::new();
    for entry in acks {
        let epochs: Vec<u64> = entry.duplicate_epochs().collect();
        let marked = entry.outcomes.iter().filter(|o| **o & DUPLICATE_BIT != 0).count();
        assert_eq!(epochs.len(), marked, "{entry:?}");
        let start = out.len();
        out.resize(start + AckEntry::wire_bytes(entry.outcomes.len(), 0), 0);
        let AckEntry { sequence, epoch, mode, outcomes, .. } = entry;
        AckEntry::write(&mut out[start..], sequence, epoch, mode, outcomes, epochs.len() as u16);
        out.extend(epochs.iter().flat_map(|epoch| epoch.to_le_bytes()));
        entries.push(entry);
    }
    assert_eq!(entries.len(), usize::from(header.count));
    assert_eq!(out.len(), HEADER_BYTES + body_bytes);
    wire::finish(&mut out, crc);
    match decode_reply(&out, crc) {
        Ok((again, Reply::Ack(acks))) => {
            assert_eq!(again, *header);
            assert!(acks.eq(entries));
        }
        other => panic!("an ack written again is {other:?}"),
    }
}

fn answered(header: &Header, entries: Entries<'_>, body: &[u8]) {
    let mut out = vec![0xee; QUERY_HEAD_BYTES];
    write_answer_head(&mut out, entries.epoch, entries.age_ns);
    let mut heads = Vec::new();
    for entry in entries {
        let start = out.len();
        out.resize(start + ENTRY_FIXED_BYTES, 0xee);
        entry.head.write(&mut out[start..]);
        out.extend(rows_again(&entry));
        heads.push(entry.head);
    }
    assert_eq!(heads.len(), usize::from(header.count));
    assert_eq!(out.len(), body.len());
    let again = Entries::check(&out, header.count).expect("an answer written again");
    assert!(again.map(|entry| entry.head).eq(heads));
    assert_eq!(Entries::check(&out, header.count.wrapping_add(1)).map(Iterator::count), None);
}

/// The rows of an entry, read and written twice: the second time nothing changes.
fn rows_again(entry: &Entry<'_>) -> Vec<u8> {
    fn of<R: Row>(entry: &Entry<'_>) -> Vec<u8> {
        let mut out = vec![0xee; usize::from(entry.head.rows) * R::BYTES];
        let mut count = 0;
        for (row, place) in entry.rows::<R>().zip(out.chunks_exact_mut(R::BYTES)) {
            row.write(place);
            let first = place.to_vec();
            R::read(place).write(place);
            assert_eq!(first, place);
            count += 1;
        }
        assert_eq!(count, usize::from(entry.head.rows));
        assert_eq!(entry.rows::<R>().count(), count);
        out
    }
    match QueryKind::from_code(entry.head.kind) {
        Some(QueryKind::Player) => of::<PlayerRow>(entry),
        Some(QueryKind::Cell | QueryKind::CellsInBox | QueryKind::NearestCells) => {
            of::<CellRow>(entry)
        }
        Some(QueryKind::Top | QueryKind::Rank) => of::<RankRow>(entry),
        Some(QueryKind::Hunt) => of::<HuntRow>(entry),
        None => {
            assert_eq!(entry.head.rows, 0);
            Vec::new()
        }
    }
}

/// Settings from a file with these bytes. Verdict: `ok` or `bad`.
pub fn config(bytes: &[u8]) -> &'static str {
    let file = TemporaryFile::new(bytes);
    match resolve(&inputs(&file)) {
        Ok(resolved) => {
            // `config show` promises a file that can be saved and loaded again.
            let shown = show::effective(&resolved);
            let again = TemporaryFile::new(shown.as_bytes());
            match resolve(&inputs(&again)) {
                Ok(again) => assert_eq!(again.config, resolved.config, "{shown}"),
                Err(error) => panic!("what `config show` prints is refused: {error}\n{shown}"),
            }
            let _ = show::effective_json(&resolved);
            "ok"
        }
        Err(error) => {
            assert_eq!(error.kind, ErrorKind::Bad, "{error}");
            assert!(!error.problems.is_empty(), "refused without a reason");
            assert!(error.problems.iter().all(|problem| !problem.is_empty()), "{error:?}");
            "bad"
        }
    }
}

fn inputs(file: &TemporaryFile) -> Inputs {
    Inputs { file: Some(file.0.clone()), ..Inputs::default() }
}

/// A file that is gone when dropped: settings are read from files only.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(bytes: &[u8]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("veltrix-config-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes)
            .unwrap_or_else(|e| panic!("{}: {e}: set TMPDIR to a writable place", path.display()));
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
