//! Single-producer, single-consumer rings as AF_XDP lays them out, by role.
//!
//! ```text
//!   consumer cursor ──┐                 ┌── producer cursor
//!   ... | taken | taken | ready | ready | free | free ...      index = cursor & (size - 1)
//! ```
//!
//! Cursors are free-running `u32`s that wrap; their difference is the number
//! of entries ready. Each side writes one cursor and reads the other's:
//! a release store hands entries over, an acquire load takes them.
//! [`Producer`] and [`Consumer`] are different types over the same
//! [`RingMemory`], so that neither can do the other's part; the tests run them
//! against a scripted peer over plain memory, and under loom.

/// The memory of one ring: two cursors and a power of two of entries.
pub trait RingMemory {
    /// One entry: a frame address or a descriptor.
    type Entry: Copy;

    /// Entries, a power of two.
    fn size(&self) -> u32;
    /// Producer cursor, acquire.
    fn load_producer(&self) -> u32;
    /// Consumer cursor, acquire.
    fn load_consumer(&self) -> u32;
    /// Producer cursor, release.
    fn store_producer(&mut self, cursor: u32);
    /// Consumer cursor, release.
    fn store_consumer(&mut self, cursor: u32);
    /// Entry at `cursor & (size - 1)`; the caller holds the consumer's claim to it.
    fn read(&self, cursor: u32) -> Self::Entry;
    /// Writes the entry; the caller holds the producer's claim to it.
    fn write(&mut self, cursor: u32, entry: Self::Entry);
    /// Whether the kernel asked for a system call to go on.
    fn needs_wakeup(&self) -> bool;
}

/// The side that fills a ring (FILL, TX).
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    /// Next cursor to write; at or ahead of what was published.
    next: u32,
    published: u32,
    /// Consumer cursor as last read.
    consumer: u32,
}

impl<M: RingMemory> Producer<M> {
    /// Takes over the producing side where its cursor stands.
    pub fn new(memory: M) -> Self {
        let next = memory.load_producer();
        let consumer = memory.load_consumer();
        Self { memory, next, published: next, consumer }
    }

    /// Entries that can be pushed before the other side takes more.
    #[inline]
    pub fn room(&mut self) -> u32 {
        self.consumer = self.memory.load_consumer();
        self.known_room()
    }

    #[inline(always)]
    fn known_room(&self) -> u32 {
        // A consumer cursor ahead of ours, or more than a ring behind, cannot
        // come from a sound peer; it grants no room.
        let used = self.next.wrapping_sub(self.consumer);
        self.memory.size().saturating_sub(used)
    }

    /// Adds an entry; false when the ring is full. The other side sees it
    /// after [`Self::publish`].
    #[inline(always)]
    #[must_use]
    pub fn push(&mut self, entry: M::Entry) -> bool {
        if self.known_room() == 0 && self.room() == 0 {
            return false;
        }
        self.memory.write(self.next, entry);
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Hands over all that was pushed; false when there was nothing.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.next == self.published {
            return false;
        }
        self.memory.store_producer(self.next);
        self.published = self.next;
        true
    }

    /// Whether published entries wait for a system call.
    #[inline(always)]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.memory.needs_wakeup()
    }

    /// Entries published and not yet taken by the other side.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.published.wrapping_sub(self.memory.load_consumer()).min(self.memory.size())
    }
}

/// The side that empties a ring (RX, COMPLETION).
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    /// Next cursor to read; at or ahead of what was released.
    next: u32,
    released: u32,
    /// Producer cursor as last read.
    producer: u32,
}

impl<M: RingMemory> Consumer<M> {
    /// Takes over the consuming side where its cursor stands.
    pub fn new(memory: M) -> Self {
        let next = memory.load_consumer();
        let producer = memory.load_producer();
        Self { memory, next, released: next, producer }
    }

    /// Entries ready to be popped.
    #[inline(always)]
    pub fn ready(&mut self) -> u32 {
        self.producer = self.memory.load_producer();
        self.ahead(self.producer)
    }

    /// Entries between ours and the producer's cursor. One more than a ring
    /// ahead, or behind ours, cannot come from a sound peer; it gives nothing.
    #[inline(always)]
    fn ahead(&self, producer: u32) -> u32 {
        let ahead = producer.wrapping_sub(self.next);
        if ahead <= self.memory.size() { ahead } else { 0 }
    }

    /// Entries ready, without keeping the cursor read.
    #[must_use]
    pub fn peek_ready(&self) -> u32 {
        self.ahead(self.memory.load_producer())
    }

    /// The entry `ahead` of the next one, to look at; it is only as good as
    /// [`Self::ready`] exceeds `ahead`.
    #[inline(always)]
    #[must_use]
    pub fn peek(&self, ahead: u32) -> M::Entry {
        self.memory.read(self.next.wrapping_add(ahead))
    }

    /// Takes an entry that [`Self::ready`] reported; `None` when all are taken.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<M::Entry> {
        if self.ahead(self.producer) == 0 {
            return None;
        }
        let entry = self.memory.read(self.next);
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of all popped entries back to the other side.
    #[inline]
    pub fn release(&mut self) {
        if self.next != self.released {
            self.memory.store_consumer(self.next);
            self.released = self.next;
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
