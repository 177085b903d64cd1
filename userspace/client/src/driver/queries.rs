//! Queries in the driver: sent at once, tried again like events, and again
//! when the server says "not yet".

use std::time::Instant;

use veltrix_abi::query::Entries;

use super::Driver;
use crate::codec;
use crate::error::QueryError;
use crate::flight::{Asker, Cargo, Flight};
use crate::query::{PutOff, Read, Rows, Verdict, read_answer};
use crate::stats::add;

impl Driver {
    /// Sends queries, which [`crate::Domain::query`] has checked.
    pub(super) async fn ask(&mut self, domain: u64, asker: Asker) {
        let Asker { wanted, min_epoch, .. } = &asker;
        add(&self.counters.queries_submitted, wanted.len());
        let bytes_max = self.settings.datagram_bytes_max;
        let Some(datagram) = codec::query(self.session, domain, *min_epoch, wanted, bytes_max)
        else {
            add(&self.counters.queries_failed, wanted.len());
            let (queries, bytes) = (wanted.len(), bytes_max);
            let datagram_bytes_max = bytes_max;
            asker.finish(Err(QueryError::DatagramTooSmall { queries, bytes, datagram_bytes_max }));
            return;
        };
        let deadline = Instant::now() + self.settings.deadline;
        let cargo = Cargo::Queries(asker);
        let mut flight = Flight::new(datagram, cargo, deadline, self.settings.retry_base);
        self.try_once(&mut flight).await;
        self.flights.insert(flight);
    }

    pub(super) fn on_answer(&mut self, sequence: u64, answer: Entries<'_>) {
        let Some((id, flight)) = self.flights.find(sequence) else {
            add(&self.counters.replies_late, 1);
            return;
        };
        let Cargo::Queries(asker) = &mut flight.cargo else {
            add(&self.counters.replies_invalid, 1);
            return;
        };
        match read_answer(&asker.wanted, answer, flight.datagram.len()) {
            Verdict::Whole(read) => self.hand_out(id, Ok(read)),
            Verdict::Failed(error) => self.hand_out(id, Err(error)),
            // The retry that is planned in case of loss comes after the wait
            // that the server asks for.
            Verdict::Later(why) => asker.put_off = Some(why),
            Verdict::Misfit => add(&self.counters.replies_invalid, 1),
        }
    }

    fn hand_out(&mut self, id: u64, result: Result<Read<Vec<Rows>>, QueryError>) {
        if let Some(Flight { cargo: Cargo::Queries(asker), .. }) = self.flights.remove(id) {
            let counter = match &result {
                Ok(_) => &self.counters.queries_answered,
                Err(_) => &self.counters.queries_failed,
            };
            add(counter, asker.wanted.len());
            asker.finish(result);
        }
    }
}

impl Asker {
    /// Gives the result; a caller that stopped waiting is not owed it.
    pub(super) fn finish(self, result: Result<Read<Vec<Rows>>, QueryError>) {
        let _ = self.reply.send(result);
    }

    /// What the deadline makes of it: the last "not yet" says more than silence.
    pub(super) const fn overdue(&self, tries: u32, busy: u32) -> QueryError {
        match self.put_off {
            Some(PutOff::Behind { epoch }) => {
                QueryError::Behind { min_epoch: self.min_epoch, epoch, tries }
            }
            Some(PutOff::Moving) => QueryError::Moving { tries },
            None => QueryError::Deadline { tries, busy },
        }
    }
}
