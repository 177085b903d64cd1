//! A server on loopback that does what a script tells it, and the datagrams
//! a server writes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::query::{
    ENTRY_FIXED_BYTES, EntryHead, QUERY_HEAD_BYTES, Query, QueryStatus, Row, write_answer_head,
};
use veltrix_abi::wire::{
    self, AckEntry, HELLO_BODY_BYTES, Header, Kind, Mode, Request, SHORT_BODY_BYTES, Welcome,
};
use veltrix_client::{Outcome, Refusal};

/// An event datagram as the fake server got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub header: Header,
    pub mode: Mode,
    pub keys: Vec<[u8; 16]>,
    pub subjects: Vec<u64>,
}

/// A query datagram as the fake server got it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub header: Header,
    pub min_epoch: u64,
    pub queries: Vec<Query>,
    /// Of the whole datagram.
    pub bytes: usize,
}

/// Log time the fake server names: 2026-01-01T00:00:00Z.
pub const LOG_TIME_NS: u64 = 1_767_225_600_000_000_000;

pub struct Fake {
    pub addr: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// A server that welcomes with both modes and answers each event datagram
    /// with what `script` gives for it and all before it.
    pub async fn start(script: impl FnMut(&[Got]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::with_modes(3, script).await
    }

    pub async fn with_modes(
        modes: u8,
        script: impl FnMut(&[Got]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::serve(modes, script, |_| panic!("no query was expected")).await
    }

    /// A server that applies every event, and answers each query datagram with
    /// what `script` gives for it and all before it.
    pub async fn answering(script: impl FnMut(&[Asked]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::serve(3, |got| vec![applied(&got[got.len() - 1])], script).await
    }

    async fn serve(
        modes: u8,
        mut on_events: impl FnMut(&[Got]) -> Vec<Vec<u8>> + Send + 'static,
        mut on_queries: impl FnMut(&[Asked]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind loopback");
        let addr = socket.local_addr().expect("bound");
        let (got, asked) = (Arc::<Mutex<Vec<Got>>>::default(), Arc::<Mutex<Vec<Asked>>>::default());
        let (all_got, all_asked) = (got.clone(), asked.clone());
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((bytes, from)) = socket.recv_from(&mut buffer).await {
                let (header, request) = wire::decode(&buffer[..bytes], crc_fast::crc32_iscsi)
                    .expect("clients write sound datagrams");
                let replies = match request {
                    Request::Hello => vec![welcome(&header, modes)],
                    Request::Events(mode, events) => {
                        let (keys, subjects) = events.map(|e| (e.key, e.subject)).unzip();
                        let mut got = all_got.lock().expect("not poisoned");
                        got.push(Got { header, mode, keys, subjects });
                        on_events(&got)
                    }
                    Request::Query(body) => {
                        let (min_epoch, queries) = (body.min_epoch, body.iter().collect());
                        let mut asked = all_asked.lock().expect("not poisoned");
                        asked.push(Asked { header, min_epoch, queries, bytes });
                        on_queries(&asked)
                    }
                    other @ Request::Ping(_) => panic!("unexpected {other:?}"),
                };
                for reply in replies {
                    socket.send_to(&reply, from).await.expect("send on loopback");
                }
            }
        });
        Self { addr, got, asked, task }
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().expect("not poisoned").clone()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn finished(header: Header, body: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER_BYTES];
    header.write(&mut datagram);
    datagram.extend_from_slice(body);
    wire::finish(&mut datagram, crc_fast::crc32_iscsi);
    datagram
}

fn reply(kind: Kind, to: &Header) -> Header {
    Header { session: to.session, sequence: to.sequence, ..Header::new(kind) }
}

pub fn welcome(to: &Header, modes: u8) -> Vec<u8> {
    let mut body = [0; HELLO_BODY_BYTES];
    Welcome {
        log_time_ns: LOG_TIME_NS,
        epoch: 0,
        partitions: 64,
        lanes: 1,
        port_first: 4747,
        port_last: 4747,
        modes,
        version_min: 1,
        version_max: 1,
        role: 1,
        payload_bytes_max: 1232,
        events_max: 24,
        cookie: 0,
        cluster_id: 0,
        features: Welcome::FEATURE_QUERIES,
    }
    .write(&mut body);
    finished(reply(Kind::Welcome, to), &body)
}

pub fn busy(to: &Header, retry_after_us: u32) -> Vec<u8> {
    let mut body = [0; SHORT_BODY_BYTES];
    body[..4].copy_from_slice(&retry_after_us.to_le_bytes());
    finished(reply(Kind::Busy, to), &body)
}

pub fn refused(to: &Header, reason: Refusal) -> Vec<u8> {
    finished(reply(Kind::Refused, to), &[reason.code(), 1, 1, 0, 0, 0, 0, 0])
}

/// One ack over `entries`: the datagram answered, and its outcome bytes.
/// Duplicates carry epoch 5, the rest of the entry epoch 9.
pub fn ack(entries: &[(&Got, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (got, outcomes) in entries {
        let duplicates = outcomes.iter().filter(|o| **o & DUPLICATE_BIT != 0).count();
        let at = body.len();
        body.resize(at + AckEntry::wire_bytes(outcomes.len(), duplicates), 0);
        AckEntry::write(
            &mut body[at..],
            got.header.sequence,
            9,
            got.mode,
            outcomes,
            duplicates as u16,
        );
        let epochs = body.len() - 8 * duplicates;
        for chunk in body[epochs..].chunks_exact_mut(8) {
            chunk.copy_from_slice(&5_u64.to_le_bytes());
        }
    }
    let mut header = reply(Kind::Ack, &entries[0].0.header);
    header.count = entries.len() as u16;
    finished(header, &body)
}

/// An ack that says `applied` for every event of `got`.
pub fn applied(got: &Got) -> Vec<u8> {
    ack(&[(got, vec![Outcome::Applied.code(); got.keys.len()])])
}

/// One entry of an answer.
pub fn entry<R: Row>(to: &Query, status: QueryStatus, next: u64, rows: &[R]) -> Vec<u8> {
    let mut out = vec![0; ENTRY_FIXED_BYTES + R::BYTES * rows.len()];
    let head = EntryHead { kind: to.kind, status, rows: rows.len() as u16, tag: to.tag, next };
    head.write(&mut out);
    for (row, bytes) in rows.iter().zip(out[ENTRY_FIXED_BYTES..].chunks_exact_mut(R::BYTES)) {
        row.write(bytes);
    }
    out
}

/// An entry without rows.
pub fn bare(to: &Query, status: QueryStatus) -> Vec<u8> {
    entry::<veltrix_abi::query::HuntRow>(to, status, 0, &[])
}

/// An answer over `entries`, of epoch 9 and an age of 1.5 us.
pub fn answer(to: &Header, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0; QUERY_HEAD_BYTES];
    write_answer_head(&mut body, 9, 1_500);
    body.extend(entries.concat());
    let mut header = reply(Kind::Answer, to);
    header.count = entries.len() as u16;
    finished(header, &body)
}
