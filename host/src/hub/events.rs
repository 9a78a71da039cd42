//! The latest logins and departures, for those who follow them.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use bytestring::ByteString;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::message::{Cause, ConnectionId};

/// The number of events that are kept. They take 0.6 MB, allocated at once, and at most 3 MB with the longest uids (256
/// bytes).
pub const KEPT: usize = 8192;

/// A login or a departure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number of the event. The first event has 1, and each further event the next number.
    pub number: u64,
    /// When it happened.
    pub time: SystemTime,
    /// The uid of the connection.
    pub uid: ByteString,
    /// The connection that came or went.
    pub connection: ConnectionId,
    /// Whether it came or went.
    pub presence: Presence,
}

/// Whether a connection came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The connection was registered.
    Login {
        /// True if it was the only connection of its uid then.
        first: bool,
    },
    /// The connection was deregistered.
    Departure {
        /// The cause that ended the connection.
        cause: Cause,
        /// True if its uid has no other connection.
        last: bool,
    },
}

/// Some of the events that follow a number.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The events in order, without a gap.
    pub events: Vec<Event>,
    /// The number of events before them that are not kept any more.
    pub missed: u64,
}

/// The place of an event, as text for clients: `EPOCH-NUMBER`. The epoch differs after each start of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    epoch: u64,
    number: u64,
}

impl Cursor {
    /// Reads a cursor. Returns `None` for any text that is not exactly a formatted cursor.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        let cursor = Self { epoch: u64::from_str_radix(epoch, 16).ok()?, number: number.parse().ok()? };
        (cursor.to_string() == text).then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.number)
    }
}

/// The latest [`KEPT`] logins and departures. The events of one uid are in the order in which its connections came and
/// went.
#[derive(Debug)]
pub struct Events {
    epoch: u64,
    ring: Mutex<Ring>,
    /// True if somebody may wait for the next event.
    awaited: AtomicBool,
    arrival: Notify,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Event>,
    /// The number of the newest event, 0 if there was none.
    newest: u64,
}

impl Events {
    /// Creates an empty list, with a random epoch.
    pub(super) fn new() -> Self {
        let ring = Ring { events: VecDeque::with_capacity(KEPT), newest: 0 };
        let epoch = RandomState::new().hash_one(SystemTime::now());
        Self { epoch, ring: Mutex::new(ring), awaited: AtomicBool::new(false), arrival: Notify::new() }
    }

    /// Adds an event. The caller holds the lock that orders the events of this uid. When it has released that lock, it
    /// calls [`wake`](Self::wake).
    pub(super) fn record(&self, time: SystemTime, uid: ByteString, connection: ConnectionId, presence: Presence) {
        // Dropped after the lock is released.
        let _oldest = {
            let mut ring = self.ring.lock();
            let oldest = if ring.events.len() == KEPT { ring.events.pop_front() } else { None };
            ring.newest += 1;
            let number = ring.newest;
            ring.events.push_back(Event { number, time, uid, connection, presence });
            oldest
        };
    }

    /// Wakes those who wait for events. One load if there are none.
    pub(super) fn wake(&self) {
        // Whoever began to wait before the event was recorded has set this before, under the lock of the ring.
        if self.awaited.load(Relaxed) && self.awaited.swap(false, Relaxed) {
            self.arrival.notify_waiters();
        }
    }

    /// Lets nobody record an event until the result is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Sized {
        self.ring.lock()
    }

    /// Returns the number of the newest event, 0 if there was none.
    pub fn newest(&self) -> u64 {
        self.ring.lock().newest
    }

    /// Returns the events with larger numbers, the oldest first, at most `limit`. Logins wait while they are copied: a
    /// caller that wants many asks several times.
    pub fn since(&self, after: u64, limit: usize) -> Page {
        let ring = self.ring.lock();
        let gone = ring.newest - ring.events.len() as u64;
        let from = after.max(gone);
        let skipped = usize::try_from(from - gone).unwrap_or(usize::MAX).min(ring.events.len());
        Page { events: ring.events.range(skipped..).take(limit).cloned().collect(), missed: from - after }
    }

    /// Waits until there is an event with a larger number.
    pub async fn newer_than(&self, after: u64) {
        loop {
            // From here on, it notices `wake`.
            let arrival = self.arrival.notified();
            {
                let ring = self.ring.lock();
                if ring.newest > after {
                    return;
                }
                self.awaited.store(true, Relaxed);
            }
            arrival.await;
        }
    }

    /// Returns the cursor of an event, for [`number`](Self::number).
    pub fn cursor(&self, number: u64) -> Cursor {
        Cursor { epoch: self.epoch, number }
    }

    /// Returns the number of the event at a cursor. `None` if the gateway has started anew since, so that nobody knows
    /// how many events the client has missed; continue with 0 then.
    pub fn number(&self, cursor: Cursor) -> Option<u64> {
        Some(cursor.number).filter(|number| cursor.epoch == self.epoch && *number <= self.newest())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    fn record(events: &Events, count: u64) {
        for _ in 0..count {
            let next = events.newest() + 1;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(next);
            let presence = Presence::Login { first: next == 1 };
            events.record(time, next.to_string().into(), ConnectionId(next), presence);
        }
        events.wake();
    }

    /// Returns the first number, the last one and the missed ones.
    fn page(events: &Events, after: u64, limit: usize) -> (Option<u64>, Option<u64>, u64) {
        let Page { events, missed } = events.since(after, limit);
        for pair in events.windows(2) {
            assert_eq!(pair[0].number + 1, pair[1].number);
        }
        (events.first().map(|event| event.number), events.last().map(|event| event.number), missed)
    }

    #[test]
    fn events_are_read_in_pages_and_the_oldest_are_forgotten() {
        let events = Events::new();
        assert_eq!((events.newest(), page(&events, 0, 10)), (0, (None, None, 0)));
        record(&events, 10);
        let third = Event {
            number: 3,
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(3),
            uid: "3".into(),
            connection: ConnectionId(3),
            presence: Presence::Login { first: false },
        };
        assert_eq!(events.since(2, 1), Page { events: vec![third], missed: 0 });
        assert_eq!(page(&events, 0, 4), (Some(1), Some(4), 0));
        assert_eq!(page(&events, 4, 100), (Some(5), Some(10), 0));
        assert_eq!(page(&events, 10, 100), (None, None, 0));
        assert_eq!(page(&events, u64::MAX, 100), (None, None, 0));
        let kept = KEPT as u64;
        record(&events, kept);
        assert_eq!(page(&events, 10, usize::MAX), (Some(11), Some(kept + 10), 0));
        assert_eq!(page(&events, 9, 2), (Some(11), Some(12), 1));
        assert_eq!(page(&events, 0, usize::MAX), (Some(11), Some(kept + 10), 10));
        assert_eq!(events.ring.lock().events.capacity(), KEPT, "it does not grow");
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_next_event() {
        let events = Events::new();
        record(&events, 3);
        events.newer_than(2).await;
        assert!(!events.awaited.load(Relaxed), "nobody had to wait");
        let mut waiting = [3, 3, 4].map(|after| Box::pin(events.newer_than(after)));
        assert!(waiting.iter_mut().all(|waiting| waiting.as_mut().now_or_never().is_none()));
        record(&events, 1);
        let [first, second, third] = waiting;
        timeout(Duration::from_secs(10), async { tokio::join!(first, second) }).await.unwrap();
        let mut third = third;
        assert!(third.as_mut().now_or_never().is_none());
        record(&events, 1);
        timeout(Duration::from_secs(10), third).await.unwrap();
        assert!(!events.awaited.load(Relaxed));
    }

    #[test]
    fn a_cursor_holds_until_the_gateway_starts_anew() {
        let (events, others) = (Events::new(), Events::new());
        record(&events, 5);
        record(&others, 5);
        let text = events.cursor(4).to_string();
        let cursor = Cursor::parse(&text).unwrap();
        assert_eq!((events.number(cursor), others.number(cursor)), (Some(4), None));
        assert_eq!(events.number(events.cursor(0)), Some(0));
        assert_eq!(events.number(events.cursor(6)), None, "nobody has been given it");

        let largest = format!("{:x}-{}", u64::MAX, u64::MAX);
        for right in ["0-0", "ff-12", &largest] {
            assert_eq!(Cursor::parse(right).unwrap().to_string(), right);
        }
        let too_large = format!("1{largest}");
        for wrong in ["", "-", "1-", "-1", "12", "1-2-3", "+1-2", "1-+2", "01-2", "1-02", "FF-1", "1- 2", &too_large] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }
}
