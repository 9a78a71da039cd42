//! Logins and departures that wait until the peers confirm them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::clock::Stamp;
use super::frame::Departure;
use super::id::{Ticket, UidKey};

/// One login or departure that waits.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    /// The batch that announces it. `None` until it is sent.
    batch: Option<u64>,
    until: Duration,
    departure: Option<UidKey>,
}

/// A departure that waits, by its uid.
#[derive(Debug)]
struct Leaving {
    ticket: Ticket,
    stamp: Stamp,
    /// The departures with a later stamp that were heard of meanwhile.
    later: u32,
}

/// A login or departure that waits no longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) ticket: Ticket,
    /// True if all peers confirmed, false if the time was over.
    pub(super) is_complete: bool,
    /// For a departure: the uid, and the number of departures with a later stamp, which count as present.
    pub(super) departure: Option<(UidKey, u32)>,
}

/// All that waits, in the order of announcement. Bounded by the number of connections: each waits at most once.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    waiting: VecDeque<Waiting>,
    leaving: HashMap<UidKey, Vec<Leaving>>,
}

impl Confirmations {
    /// Adds what was noted since the last batch.
    pub(super) fn add(&mut self, ticket: Ticket, until: Duration, departure: Option<Departure>) {
        self.waiting.push_back(Waiting { ticket, batch: None, until, departure: departure.map(|it| it.key) });
        if let Some(Departure { key, stamp }) = departure {
            self.heard(Departure { key, stamp });
            self.leaving.entry(key).or_default().push(Leaving { ticket, stamp, later: 0 });
        }
    }

    /// Notes a departure on this or another node.
    pub(super) fn heard(&mut self, departure: Departure) {
        if self.leaving.is_empty() {
            return;
        }
        for leaving in self.leaving.get_mut(&departure.key).into_iter().flatten() {
            if leaving.stamp < departure.stamp {
                leaving.later = leaving.later.saturating_add(1);
            }
        }
    }

    /// Notes that everything that waits has been announced up to this batch.
    pub(super) fn flushed(&mut self, batch: u64) {
        for waiting in self.waiting.iter_mut().rev().take_while(|waiting| waiting.batch.is_none()) {
            waiting.batch = Some(batch);
        }
    }

    /// Takes the next one that waits no longer. `confirmed` is the last batch that all peers confirmed, `None` if
    /// there are no peers.
    pub(super) fn settle(&mut self, now: Duration, confirmed: Option<u64>) -> Option<Settled> {
        let first = self.waiting.front()?;
        let is_complete = match (confirmed, first.batch) {
            (None, _) => true,
            (Some(confirmed), Some(batch)) => batch <= confirmed,
            (Some(_), None) => false,
        };
        if !is_complete && now < first.until {
            return None;
        }
        let Waiting { ticket, departure, .. } = self.waiting.pop_front()?;
        let departure = departure.map(|key| (key, self.later(key, ticket)));
        Some(Settled { ticket, is_complete, departure })
    }

    /// Forgets a departure. Returns the number of later ones.
    fn later(&mut self, key: UidKey, ticket: Ticket) -> u32 {
        let Some(same) = self.leaving.get_mut(&key) else { return 0 };
        let at = same.iter().position(|leaving| leaving.ticket == ticket);
        let later = at.map_or(0, |at| same.swap_remove(at).later);
        if same.is_empty() {
            self.leaving.remove(&key);
        }
        later
    }

    /// Returns `true` if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_confirm_in_order_and_time_ends_the_rest() {
        let (mut waiting, now) = (Confirmations::default(), Duration::from_secs(1));
        waiting.add(Ticket(1), now, None);
        assert_eq!(waiting.settle(now / 2, Some(9)), None);
        waiting.flushed(10);
        waiting.add(Ticket(2), now, None);
        waiting.flushed(12);
        let settled = |ticket, is_complete| Some(Settled { ticket: Ticket(ticket), is_complete, departure: None });
        assert_eq!(waiting.settle(now / 2, Some(9)), None);
        assert_eq!(waiting.settle(now / 2, Some(10)), settled(1, true));
        assert_eq!(waiting.settle(now / 2, Some(11)), None);
        assert_eq!(waiting.settle(now, Some(11)), settled(2, false));
        waiting.add(Ticket(3), now, None);
        assert_eq!(waiting.settle(now / 2, None), settled(3, true));
        assert!(waiting.is_empty());
    }

    #[test]
    fn of_departures_at_once_only_the_last_has_no_later_one() {
        let (mut waiting, now, key) = (Confirmations::default(), Duration::ZERO, UidKey(7));
        let departure = |stamp| Departure { key, stamp: Stamp(stamp) };
        waiting.heard(departure(90));
        for stamp in [100, 102] {
            waiting.add(Ticket(stamp), now, Some(departure(stamp)));
        }
        waiting.heard(departure(99));
        waiting.heard(departure(101));
        waiting.heard(Departure { key: UidKey(8), stamp: Stamp(200) });
        let later = std::iter::from_fn(|| waiting.settle(now, None)).map(|settled| settled.departure.unwrap().1);
        assert_eq!(later.collect::<Vec<_>>(), [2, 0]);
        assert!(waiting.leaving.is_empty());
    }
}
