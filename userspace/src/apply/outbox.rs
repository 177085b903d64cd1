//! What a partition owes others: requests that wait for their reply, replies that wait
//! for delivery.
//!
//! ```text
//!   home of the player                              region of the cell
//!   requests: key reserved, kept until replied  -->  judged, once by its key
//!   settled or refunded, acknowledged           <--  replies: kept until the entry that delivers them
//! ```
//!
//! Both are rings of fixed size in the state of the partition: replicated, captured,
//! replayed. A lane sends what lies in them, again and again if need be; that each
//! request is judged once and each reply taken once is decided here and in
//! [`super::effects`], from the state alone. What was sent already is no part of the
//! state.

use std::io;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::base::table::Table;

/// Requests, and replies, that one partition may owe at a time.
pub const EFFECTS_MAX: usize = 2_048;

/// The datagram that asked: a batch that a lane sealed in some life of the server, and
/// the slot of the event in it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Asker {
    /// See [`crate::batch::format::BatchHeader::life`].
    pub life: u64,
    /// Number of the batch.
    pub batch: u64,
    /// The lane.
    pub lane: u32,
    /// Slot of the event.
    pub slot: u32,
}

/// Something that a player at home here wants of another region.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Request {
    /// Counted by the partition, from 1.
    pub number: u64,
    /// Domain key of the region that is asked.
    pub to: u64,
    /// Domain key of the home.
    pub home: u64,
    /// Who asks.
    pub player: u64,
    /// Idempotency key of the event.
    pub key: [u8; 16],
    /// The cell, or the player to be paid.
    pub subject: u64,
    /// What was reserved: an amount.
    pub amount: u64,
    /// Whoever waits for the answer.
    pub asker: Asker,
    /// Code of the event's kind.
    pub kind: u16,
    /// What was reserved: an item type, plus 1; 0 for none.
    pub item: u8,
    /// 1 until the reply has come.
    pub waits: u8,
    pub(super) zero: [u8; 4],
}

/// What became of a request.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Reply {
    /// Counted by the partition, from 1.
    pub number: u64,
    /// [`Request::number`].
    pub request: u64,
    /// Domain key of the home.
    pub home: u64,
    /// Domain key of the region that answers.
    pub from: u64,
    /// Who asked.
    pub player: u64,
    /// Idempotency key of the event.
    pub key: [u8; 16],
    /// Points it pays.
    pub points: u64,
    /// Currency it pays.
    pub currency: u64,
    /// Code of the outcome.
    pub outcome: u8,
    /// Item type it gives, plus 1; 0 for none.
    pub item: u8,
    pub(super) zero: [u8; 6],
}

/// Effects of one kind, oldest first.
#[derive(Debug)]
pub(super) struct Ring<T> {
    places: Table<T>,
    /// Number of the oldest.
    head: u64,
    /// Number of the next.
    tail: u64,
    /// Number of the next to be sent.
    sent: u64,
}

impl<T: FromZeros + Copy> Ring<T> {
    fn new() -> io::Result<Self> {
        Ok(Self { places: Table::new(EFFECTS_MAX)?, head: 1, tail: 1, sent: 1 })
    }

    pub(super) const fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    pub(super) const fn has_room(&self) -> bool {
        self.len() < EFFECTS_MAX
    }

    const fn place(number: u64) -> usize {
        number as usize % EFFECTS_MAX
    }

    /// Puts in what `make` makes for its number. The caller has seen that there is
    /// room.
    fn push(&mut self, make: impl FnOnce(u64) -> T) {
        debug_assert!(self.has_room(), "an effect without a place");
        self.places[Self::place(self.tail)] = make(self.tail);
        self.tail += 1;
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        (self.head..self.tail).contains(&number).then(|| &mut self.places[Self::place(number)])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        (self.head..self.tail).map(|number| &self.places[Self::place(number)])
    }

    /// Takes the oldest out up to the number `to`.
    fn drop_to(&mut self, to: u64) {
        self.head = self.head.max((to + 1).min(self.tail));
        self.sent = self.sent.max(self.head);
    }

    const fn has_unsent(&self) -> bool {
        self.sent < self.tail
    }

    /// Everything that is still here is to be sent again.
    fn send_again(&mut self) {
        self.sent = self.head;
    }

    /// The next to be sent.
    fn next_unsent(&self) -> Option<&T> {
        self.has_unsent().then(|| &self.places[Self::place(self.sent)])
    }
}

/// Somebody waits for this answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Who.
    pub asker: Asker,
    /// Code of the outcome.
    pub outcome: u8,
    /// Epoch at which it was settled.
    pub epoch: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) requests: Ring<Request>,
    pub(super) replies: Ring<Reply>,
    /// Answers of the entry that was applied last.
    settled: Vec<Settled>,
    /// Effects that were looked at and were nothing new, in this life.
    pub(super) repeated: u64,
}

/// Something to be sent: an effect, and where to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect<'a> {
    /// To the region that is asked.
    Request(&'a Request),
    /// To the home of the player, and a note for this partition that it was.
    Reply(&'a Reply),
}

impl Outbox {
    /// An empty one; reserves all that it will ever use.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to give as much memory.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            requests: Ring::new()?,
            replies: Ring::new()?,
            settled: Vec::with_capacity(EFFECTS_MAX),
            repeated: 0,
        })
    }

    /// Bytes that [`Self::new`] reserves.
    pub(super) const fn bytes() -> u64 {
        (EFFECTS_MAX * (size_of::<Request>() + size_of::<Reply>() + size_of::<Settled>())) as u64
    }

    /// Keeps a request, for which there is room.
    pub(super) fn ask(&mut self, request: Request) {
        self.requests.push(|number| Request { number, waits: 1, ..request });
    }

    /// Keeps a reply, for which there is room.
    pub(super) fn reply(&mut self, reply: Reply) {
        self.replies.push(|number| Reply { number, ..reply });
    }

    /// The request that a reply is for, if it is still waited for: it is not any more
    /// from here on.
    pub(super) fn take_request(
        &mut self,
        number: u64,
        player: u64,
        key: &[u8; 16],
    ) -> Option<Request> {
        let request = self.requests.get_mut(number)?;
        if request.waits == 0 || request.player != player || request.key != *key {
            return None;
        }
        request.waits = 0;
        let taken = *request;
        while let Some(oldest) = self.requests.get_mut(self.requests.head)
            && oldest.waits == 0
        {
            self.requests.drop_to(self.requests.head);
        }
        Some(taken)
    }

    /// An entry has delivered the replies `from` to `to`.
    pub(super) fn delivered(&mut self, from: u64, to: u64) {
        if from <= self.replies.head {
            self.replies.drop_to(to);
        }
    }

    /// Somebody may be waiting for this. Who finds no place asks again.
    pub(super) fn settle(&mut self, settled: Settled) {
        if self.settled.len() < self.settled.capacity() {
            self.settled.push(settled);
        }
    }

    /// Takes what was settled since the last call.
    pub(super) fn take_settled(&mut self, visit: impl FnMut(Settled)) {
        self.settled.drain(..).for_each(visit);
    }

    pub(super) const fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    /// Numbers of the oldest request and the oldest reply.
    pub(super) const fn oldest(&self) -> (u64, u64) {
        (self.requests.head, self.replies.head)
    }

    pub(super) const fn has_unsent(&self) -> bool {
        self.requests.has_unsent() || self.replies.has_unsent()
    }

    pub(super) fn send_stuck_again(&mut self, (request, reply): (u64, u64)) {
        if self.requests.head == request {
            self.requests.send_again();
        }
        if self.replies.head == reply {
            self.replies.send_again();
        }
    }

    /// Whether the reply to a request is kept.
    pub(super) fn has_reply(&self, home: u64, request: u64) -> bool {
        self.replies.iter().any(|reply| (reply.home, reply.request) == (home, request))
    }

    /// Hands out up to `most` effects that were not sent yet, replies first, until
    /// `send` refuses one; how many, requests that were replied meanwhile and are
    /// passed over among them.
    pub(super) fn send(&mut self, most: usize, mut send: impl FnMut(Effect<'_>) -> bool) -> usize {
        for sent in 0..most {
            if let Some(reply) = self.replies.next_unsent() {
                if !send(Effect::Reply(reply)) {
                    return sent;
                }
                self.replies.sent += 1;
            } else if let Some(request) = self.requests.next_unsent() {
                if request.waits == 1 && !send(Effect::Request(request)) {
                    return sent;
                }
                self.requests.sent += 1;
            } else {
                return sent;
            }
        }
        most
    }
}

/// Bytes before the effects: numbers of the oldest request, the next, the oldest reply,
/// the next.
const HEAD_BYTES: usize = 32;

/// Bytes of the longest [`Outbox::encode`].
pub(super) const IMAGE_BYTES: usize =
    HEAD_BYTES + EFFECTS_MAX * (size_of::<Request>() + size_of::<Reply>());

/// What is captured of it: numbers, then requests, then replies, oldest first.
impl Outbox {
    /// Writes it to `out`, instead of what is there.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let heads = [self.requests.head, self.requests.tail, self.replies.head, self.replies.tail];
        out.clear();
        out.extend_from_slice(heads.as_bytes());
        self.requests.iter().for_each(|request| out.extend_from_slice(request.as_bytes()));
        self.replies.iter().for_each(|reply| out.extend_from_slice(reply.as_bytes()));
    }

    /// Fills an empty one from such bytes; `None` when they contradict themselves.
    pub(super) fn decode(mut self, bytes: &[u8]) -> Option<Self> {
        let outbox = &mut self;
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let [first, next, first_reply, next_reply]: [u64; 4] = zerocopy::transmute!(*head);
        let len = |from: u64, to: u64| usize::try_from(to.checked_sub(from)?).ok();
        let (requests_len, replies_len) = (len(first, next)?, len(first_reply, next_reply)?);
        if first == 0 || first_reply == 0 || requests_len.max(replies_len) > EFFECTS_MAX {
            return None;
        }
        let (requests, replies) = rest.split_at_checked(requests_len * size_of::<Request>())?;
        if replies.len() != replies_len * size_of::<Reply>() {
            return None;
        }
        (outbox.requests.head, outbox.requests.tail, outbox.requests.sent) = (first, first, first);
        let replies_from = (first_reply, first_reply, first_reply);
        (outbox.replies.head, outbox.replies.tail, outbox.replies.sent) = replies_from;
        for (bytes, number) in requests.chunks_exact(size_of::<Request>()).zip(first..) {
            let request = Request::read_from_bytes(bytes).ok()?;
            // One that does not wait goes with the oldest: it cannot be the oldest.
            let waits = if number == first { 1..=1 } else { 0..=1 };
            if request.number != number || !waits.contains(&request.waits) || request.zero != [0; 4]
            {
                return None;
            }
            outbox.requests.push(|_| request);
        }
        for (bytes, number) in replies.chunks_exact(size_of::<Reply>()).zip(first_reply..) {
            let reply = Reply::read_from_bytes(bytes).ok()?;
            if reply.number != number || reply.zero != [0; 6] {
                return None;
            }
            outbox.replies.push(|_| reply);
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Outbox {
        Outbox::new().unwrap()
    }

    fn owes_nothing(outbox: &Outbox) -> bool {
        outbox.requests.len() + outbox.replies.len() == 0
    }

    fn send_again(outbox: &mut Outbox) {
        outbox.send_stuck_again(outbox.oldest());
    }

    fn request(player: u64) -> Request {
        Request { player, key: [player as u8; 16], ..Request::default() }
    }

    fn sent(outbox: &mut Outbox, most: usize) -> Vec<u64> {
        let mut players = Vec::new();
        outbox.send(most, |effect| {
            players.push(match effect {
                Effect::Request(request) => request.player,
                Effect::Reply(reply) => 1_000 + reply.player,
            });
            true
        });
        players
    }

    #[test]
    fn a_request_is_kept_until_it_is_replied() {
        let mut outbox = empty();
        (1..=4).for_each(|player| outbox.ask(request(player)));
        assert_eq!(sent(&mut outbox, 3), [1, 2, 3]);
        assert_eq!(sent(&mut outbox, 3), [4]);
        assert!(!outbox.has_unsent() && !owes_nothing(&outbox));
        assert_eq!(outbox.take_request(2, 3, &[3; 16]), None, "another player's");
        assert_eq!(outbox.take_request(2, 2, &[9; 16]), None, "another key");
        assert_eq!(outbox.take_request(2, 2, &[2; 16]).map(|r| r.player), Some(2));
        assert_eq!(outbox.take_request(2, 2, &[2; 16]), None, "once");
        send_again(&mut outbox);
        assert_eq!(sent(&mut outbox, 9), [1, 3, 4], "what was replied is not asked again");
        for player in [1, 4, 3] {
            assert!(outbox.take_request(player, player, &[player as u8; 16]).is_some());
        }
        assert!(owes_nothing(&outbox));
        assert_eq!(outbox.take_request(5, 5, &[5; 16]), None, "never asked");
    }

    #[test]
    fn replies_are_kept_until_an_entry_has_delivered_them() {
        let mut outbox = empty();
        (1..=5).for_each(|player| outbox.reply(Reply { player, ..Reply::default() }));
        outbox.ask(request(7));
        assert_eq!(sent(&mut outbox, 99), [1_001, 1_002, 1_003, 1_004, 1_005, 7]);
        outbox.delivered(3, 4);
        assert_eq!(outbox.replies.len(), 5, "those before them were not delivered");
        outbox.delivered(1, 2);
        assert_eq!(outbox.replies.len(), 3);
        outbox.delivered(1, 2);
        send_again(&mut outbox);
        assert_eq!(sent(&mut outbox, 99), [1_003, 1_004, 1_005, 7]);
        outbox.delivered(2, 99);
        assert_eq!(outbox.replies.len(), 0);
        outbox.reply(Reply { player: 6, ..Reply::default() });
        assert_eq!(outbox.replies.iter().map(|r| r.number).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn what_refuses_is_asked_again() {
        let mut outbox = empty();
        (1..=3).for_each(|player| outbox.ask(request(player)));
        let mut seen = 0;
        outbox.send(9, |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!(sent(&mut outbox, 9), [2, 3]);
    }

    #[test]
    fn an_image_is_the_same_outbox() {
        let mut outbox = empty();
        // Round the end of the ring.
        for player in 0..EFFECTS_MAX as u64 * 2 - 3 {
            outbox.ask(request(player));
            outbox.reply(Reply { player, ..Reply::default() });
            let number = player + 1;
            if player < EFFECTS_MAX as u64 * 2 - 9 {
                assert!(outbox.take_request(number, player, &[player as u8; 16]).is_some());
                outbox.delivered(number, number);
            }
        }
        let number = outbox.requests.head + 2;
        outbox.take_request(number, number - 1, &[(number - 1) as u8; 16]).unwrap();
        let mut image = vec![9; 3];
        outbox.encode(&mut image);
        let bytes = image.len();
        let mut again = empty().decode(&image).unwrap();
        let requests = |outbox: &Outbox| outbox.requests.iter().copied().collect::<Vec<_>>();
        let replies = |outbox: &Outbox| outbox.replies.iter().copied().collect::<Vec<_>>();
        assert_eq!(requests(&again), requests(&outbox));
        assert_eq!(replies(&again), replies(&outbox));
        assert_eq!(sent(&mut again, 99).len(), 11, "sent is no part of it");
        for (at, byte) in [(0, 0), (HEAD_BYTES, 99), (8, 255), (HEAD_BYTES + 93, 1)] {
            let mut torn = image.clone();
            torn[at] = byte;
            assert!(empty().decode(&torn).is_none(), "byte {at} is {byte}");
        }
        for len in [0, 31, bytes - 1] {
            assert!(empty().decode(&image[..len]).is_none(), "{len} bytes");
        }
        assert!(empty().decode(&[0; 32]).is_none());
        empty().encode(&mut image);
        assert!(owes_nothing(&empty().decode(&image).unwrap()));
    }
}
