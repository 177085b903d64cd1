//! Rings against a model over plain memory, against a peer whose cursors make
//! no sense, and under loom.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use super::{Consumer, Producer, RingMemory};

/// Two ends of one ring in one thread.
#[derive(Clone)]
struct PlainRing(Rc<Plain>);

struct Plain {
    producer: Cell<u32>,
    consumer: Cell<u32>,
    slots: Vec<Cell<u64>>,
    /// Whether accesses must keep to what the cursors allow: off while a test
    /// scrambles them.
    is_strict: Cell<bool>,
    reads: Cell<u32>,
    writes: Cell<u32>,
}

impl PlainRing {
    fn new(size: u32, cursor: u32) -> Self {
        Self(Rc::new(Plain {
            producer: Cell::new(cursor),
            consumer: Cell::new(cursor),
            slots: vec![Cell::new(0); size as usize],
            is_strict: Cell::new(true),
            reads: Cell::new(0),
            writes: Cell::new(0),
        }))
    }

    fn slot(&self, cursor: u32) -> &Cell<u64> {
        &self.0.slots[(cursor & (self.size() - 1)) as usize]
    }
}

impl RingMemory for PlainRing {
    type Entry = u64;

    fn size(&self) -> u32 {
        self.0.slots.len() as u32
    }

    fn load_producer(&self) -> u32 {
        self.0.producer.get()
    }

    fn load_consumer(&self) -> u32 {
        self.0.consumer.get()
    }

    fn store_producer(&mut self, cursor: u32) {
        self.0.producer.set(cursor);
    }

    fn store_consumer(&mut self, cursor: u32) {
        self.0.consumer.set(cursor);
    }

    fn read(&self, cursor: u32) -> u64 {
        self.0.reads.set(self.0.reads.get() + 1);
        let (consumer, producer) = (self.load_consumer(), self.load_producer());
        if self.0.is_strict.get() {
            assert!(
                cursor.wrapping_sub(consumer) < producer.wrapping_sub(consumer),
                "read of {cursor} outside {consumer}..{producer}"
            );
        }
        self.slot(cursor).get()
    }

    fn write(&mut self, cursor: u32, entry: u64) {
        self.0.writes.set(self.0.writes.get() + 1);
        let consumer = self.load_consumer();
        if self.0.is_strict.get() {
            assert!(
                cursor.wrapping_sub(consumer) < self.size(),
                "write of {cursor} over an entry not released, {consumer}"
            );
        }
        self.slot(cursor).set(entry);
    }

    fn needs_wakeup(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Publish,
    Room,
    Pending,
    Ready,
    PeekReady,
    Pop,
    Release,
    /// Both ends are made anew where the cursors stand: what was not handed
    /// over is forgotten, as when a process takes rings over.
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Push),
        3 => Just(Step::Publish),
        1 => Just(Step::Room),
        1 => Just(Step::Pending),
        3 => Just(Step::Ready),
        1 => Just(Step::PeekReady),
        8 => Just(Step::Pop),
        3 => Just(Step::Release),
        1 => Just(Step::TakeOver),
    ]
}

/// Cursors near the wrap, and anywhere.
fn cursor() -> impl Strategy<Value = u32> {
    prop_oneof![3 => (0u32..40).prop_map(|n| u32::MAX - n), 1 => any::<u32>()]
}

/// What a ring of `size` should do, with unbounded counters.
#[derive(Default)]
struct Model {
    pushed: VecDeque<u64>,
    published: VecDeque<u64>,
    /// Of `published`, those the consumer has asked for.
    known: usize,
    popped: usize,
}

impl Model {
    fn held(&self) -> usize {
        self.pushed.len() + self.published.len() + self.popped
    }
}

proptest! {
    #[test]
    fn a_ring_is_a_bounded_queue(
        order in 0u32..5,
        cursor in cursor(),
        steps in proptest::collection::vec(step(), 0..400),
    ) {
        let size = 1 << order;
        let ring = PlainRing::new(size, cursor);
        let mut producer = Producer::new(ring.clone());
        let mut consumer = Consumer::new(ring.clone());
        let mut model = Model::default();
        let mut value = 0;
        for step in steps {
            match step {
                Step::Push => {
                    value += 1;
                    let pushed = producer.push(value);
                    prop_assert_eq!(pushed, model.held() < size as usize);
                    if pushed {
                        model.pushed.push_back(value);
                    }
                }
                Step::Publish => {
                    prop_assert_eq!(producer.publish(), !model.pushed.is_empty());
                    model.published.append(&mut model.pushed);
                }
                Step::Room => {
                    prop_assert_eq!(producer.room() as usize, size as usize - model.held());
                }
                Step::Pending => {
                    let pending = model.published.len() + model.popped;
                    prop_assert_eq!(producer.pending() as usize, pending);
                }
                Step::Ready => {
                    model.known = model.published.len();
                    prop_assert_eq!(consumer.ready() as usize, model.known);
                }
                Step::PeekReady => {
                    prop_assert_eq!(consumer.peek_ready() as usize, model.published.len());
                }
                Step::Pop => {
                    let wanted = if model.known > 0 { model.published.pop_front() } else { None };
                    if wanted.is_some() {
                        model.known -= 1;
                        model.popped += 1;
                    }
                    prop_assert_eq!(consumer.pop(), wanted);
                }
                Step::Release => {
                    consumer.release();
                    model.popped = 0;
                }
                Step::TakeOver => {
                    consumer.release();
                    producer = Producer::new(ring.clone());
                    consumer = Consumer::new(ring.clone());
                    model.pushed.clear();
                    model.known = model.published.len();
                    model.popped = 0;
                }
            }
        }
    }

    /// A consumer whose cursor jumps anywhere: room and entries written stay
    /// within the ring, and a cursor that cannot be gives no room at all.
    #[test]
    fn an_insane_consumer_cursor_grants_no_room(
        order in 0u32..5,
        start in cursor(),
        jumps in proptest::collection::vec((cursor(), 0u32..40), 1..40),
    ) {
        let size = 1 << order;
        let ring = PlainRing::new(size, start);
        ring.0.is_strict.set(false);
        let mut producer = Producer::new(ring.clone());
        let mut next = start;
        for (cursor, pushes) in jumps {
            ring.0.consumer.set(cursor);
            let used = next.wrapping_sub(cursor);
            prop_assert_eq!(producer.room(), size.saturating_sub(used));
            let mut accepted = 0;
            for _ in 0..pushes {
                accepted += u32::from(producer.push(7));
            }
            prop_assert_eq!(accepted, pushes.min(size.saturating_sub(used)));
            next = next.wrapping_add(accepted);
            producer.publish();
            prop_assert!(producer.pending() <= size);
            prop_assert_eq!(ring.0.producer.get(), next);
        }
    }

    /// A producer whose cursor jumps anywhere: no more entries than the ring
    /// holds, and `ready` never promises what `pop` does not give.
    #[test]
    fn an_insane_producer_cursor_gives_no_entries(
        order in 0u32..5,
        start in cursor(),
        jumps in proptest::collection::vec((cursor(), 0u32..40), 1..40),
    ) {
        let size = 1 << order;
        let ring = PlainRing::new(size, start);
        ring.0.is_strict.set(false);
        let mut consumer = Consumer::new(ring.clone());
        let mut next = start;
        for (cursor, pops) in jumps {
            ring.0.producer.set(cursor);
            let ahead = cursor.wrapping_sub(next);
            let sane = if ahead <= size { ahead } else { 0 };
            prop_assert_eq!(consumer.peek_ready(), sane);
            prop_assert_eq!(consumer.ready(), sane);
            let reads = ring.0.reads.get();
            let popped = (0..pops).filter(|_| consumer.pop().is_some()).count() as u32;
            prop_assert_eq!(popped, pops.min(sane));
            prop_assert_eq!(ring.0.reads.get() - reads, popped, "no entry is read in vain");
            next = next.wrapping_add(popped);
            consumer.release();
            prop_assert_eq!(ring.0.consumer.get(), next);
        }
    }
}

#[test]
fn a_taken_over_ring_goes_on_where_it_stands() {
    let ring = PlainRing::new(4, u32::MAX - 1);
    let mut producer = Producer::new(ring.clone());
    for value in [1, 2, 3] {
        assert!(producer.push(value));
    }
    producer.publish();
    let mut consumer = Consumer::new(ring.clone());
    assert_eq!(consumer.pop(), Some(1), "what stood in the ring is known at once");
    consumer.release();
    let mut consumer = Consumer::new(ring.clone());
    let mut producer = Producer::new(ring);
    assert_eq!(producer.room(), 2);
    assert!(producer.push(4));
    producer.publish();
    assert_eq!(consumer.ready(), 3);
    assert_eq!([consumer.pop(), consumer.pop(), consumer.pop()], [Some(2), Some(3), Some(4)]);
    assert_eq!(consumer.pop(), None);
}

/// The two ends in two threads, every interleaving that loom finds.
mod threads {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};

    use super::super::{Consumer, Producer, RingMemory};

    const SIZE: u32 = 2;
    const ENTRIES: u64 = 3;

    struct Shared {
        producer: AtomicU32,
        consumer: AtomicU32,
        slots: [UnsafeCell<u64>; SIZE as usize],
        /// How a producer hands entries over, and a consumer slots.
        hand_over: Ordering,
    }

    // SAFETY: loom's cells report every access that two threads could make at
    // once, which is what these tests look for.
    unsafe impl Sync for Shared {}

    #[derive(Clone)]
    struct LoomRing(Arc<Shared>);

    impl LoomRing {
        fn new(hand_over: Ordering) -> Self {
            // One entry before the wrap.
            let cursor = u32::MAX;
            Self(Arc::new(Shared {
                producer: AtomicU32::new(cursor),
                consumer: AtomicU32::new(cursor),
                slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
                hand_over,
            }))
        }

        fn slot(&self, cursor: u32) -> &UnsafeCell<u64> {
            &self.0.slots[(cursor & (SIZE - 1)) as usize]
        }
    }

    impl RingMemory for LoomRing {
        type Entry = u64;

        fn size(&self) -> u32 {
            SIZE
        }

        fn load_producer(&self) -> u32 {
            self.0.producer.load(Ordering::Acquire)
        }

        fn load_consumer(&self) -> u32 {
            self.0.consumer.load(Ordering::Acquire)
        }

        fn store_producer(&mut self, cursor: u32) {
            self.0.producer.store(cursor, self.0.hand_over);
        }

        fn store_consumer(&mut self, cursor: u32) {
            self.0.consumer.store(cursor, self.0.hand_over);
        }

        fn read(&self, cursor: u32) -> u64 {
            // SAFETY: the cell lives as long as self; loom checks the access.
            self.slot(cursor).with(|p| unsafe { *p })
        }

        fn write(&mut self, cursor: u32, entry: u64) {
            // SAFETY: as in `read`.
            self.slot(cursor).with_mut(|p| unsafe { *p = entry });
        }

        fn needs_wakeup(&self) -> bool {
            false
        }
    }

    fn hand_over_entries(order: Ordering, publish_every: u64) {
        loom::model(move || {
            let ring = LoomRing::new(order);
            let mut consumer = Consumer::new(ring.clone());
            let producing = loom::thread::spawn(move || {
                let mut producer = Producer::new(ring);
                for value in 1..=ENTRIES {
                    while !producer.push(value) {
                        producer.publish();
                        loom::thread::yield_now();
                    }
                    if value % publish_every == 0 {
                        producer.publish();
                    }
                }
                producer.publish();
            });
            let mut wanted = 1;
            while wanted <= ENTRIES {
                if consumer.ready() == 0 {
                    loom::thread::yield_now();
                }
                while let Some(value) = consumer.pop() {
                    assert_eq!(value, wanted, "entries come in order, each once");
                    wanted += 1;
                }
                consumer.release();
            }
            assert_eq!(consumer.ready(), 0);
            producing.join().unwrap();
        });
    }

    #[test]
    fn entries_cross_in_order_and_without_a_race() {
        hand_over_entries(Ordering::Release, 1);
    }

    #[test]
    fn entries_published_together_cross_in_order_and_without_a_race() {
        hand_over_entries(Ordering::Release, 2);
    }

    /// The model would see a ring that hands over without release stores.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_relaxed_hand_over_is_caught() {
        hand_over_entries(Ordering::Relaxed, 1);
    }
}
