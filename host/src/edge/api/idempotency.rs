//! Remembers the answers to requests with an idempotency key, so that a request that is sent twice is carried out once.
//!
//! The answers are in memory only. An entry takes some 300 bytes and its body, however long its key is.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::time::Instant;

/// The most bytes of all stored bodies together. Bodies are short, so the number of entries is usually reached first.
const MAX_BODIES: usize = 64 << 20;
/// The longest key, in bytes.
const MAX_KEY: usize = 255;
/// The most expired entries that one call forgets. This takes some microseconds, for which other calls wait. A call
/// adds at most one entry, so expired entries do not pile up.
const AT_ONCE: usize = 64;

/// The text is no idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an idempotency key must be 1 to {MAX_KEY} visible ASCII characters")]
pub(in crate::edge) struct InvalidKey;

/// Returns the idempotency key in the value of a header, or in a string of JSON.
///
/// # Errors
/// [`InvalidKey`] unless it is 1 to 255 visible ASCII characters.
pub(in crate::edge) fn key_of(value: &[u8]) -> Result<&str, InvalidKey> {
    let fits = (1..=MAX_KEY).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    str::from_utf8(value).ok().filter(|_| fits).ok_or(InvalidKey)
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::edge) struct Stored {
    /// The HTTP status.
    pub(in crate::edge) status: u16,
    /// The body. It counts with its length, so it must not be a small part of a large buffer.
    pub(in crate::edge) body: Bytes,
}

/// What to do with a request that has a key.
pub(in crate::edge) enum Begun {
    /// The key is new: carry out the request, then keep the answer.
    Fresh(Reservation),
    /// The request was carried out before. This is its answer.
    Replay(Stored),
    /// The same request is being carried out.
    InFlight,
    /// So many requests with keys are being carried out that there is no room for one more.
    Full,
    /// The key belongs to another request.
    Reused,
}

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The header of an answer to a request that was carried out before.
pub(super) fn replayed(is_replay: bool) -> Option<[(HeaderName, HeaderValue); 1]> {
    is_replay.then(|| [(REPLAYED, HeaderValue::from_static("true"))])
}

/// Identifies a key of a token: the SHA-256 of both. Nobody can find two keys with the same id.
type Id = [u8; 32];

/// All requests with a key that are being carried out, and the answers to earlier ones.
pub(in crate::edge) struct Idempotency {
    /// How long an answer is kept.
    window: Duration,
    /// The most entries.
    most: usize,
    entries: Mutex<Entries>,
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").field("most", &self.most).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<Id, KeyedRequest>,
    /// The finished entries by their numbers. Smaller numbers finished earlier, and expire earlier.
    finished: BTreeMap<u64, Id>,
    /// The number of the entry that finished last.
    last: u64,
    /// The bytes of all stored bodies.
    bytes: usize,
}

struct KeyedRequest {
    fingerprint: [u8; 32],
    /// `None` while the request is being carried out.
    finished: Option<Finished>,
}

struct Finished {
    number: u64,
    stored: Stored,
    expires: Instant,
}

impl Idempotency {
    /// Creates a memory of at most `entries` requests. It keeps each answer for the time `window`. The oldest answer is
    /// forgotten earlier if there are too many entries, or if their bodies have more than 64 MiB.
    pub(in crate::edge) fn new(window: Duration, entries: usize) -> Arc<Self> {
        Arc::new(Self { window, most: entries, entries: Mutex::default() })
    }

    /// Begins a request with this key. The name of its token is `token`: each token has keys of its own. The
    /// `fingerprint` tells whether another request with the key is the same one.
    pub(in crate::edge) fn begin(self: &Arc<Self>, token: &str, key: &str, fingerprint: [u8; 32]) -> Begun {
        let id = id(token, key);
        let mut entries = self.entries.lock();
        let now = Instant::now();
        entries.forget_expired(now);
        if entries.is_expired(&id, now) {
            entries.forget(&id);
        }
        if let Some(entry) = entries.by_id.get(&id) {
            return match &entry.finished {
                _ if entry.fingerprint != fingerprint => Begun::Reused,
                None => Begun::InFlight,
                Some(finished) => Begun::Replay(finished.stored.clone()),
            };
        }
        if entries.by_id.len() >= self.most {
            let Some(oldest) = entries.oldest() else { return Begun::Full };
            entries.forget(&oldest);
        }
        entries.by_id.insert(id, KeyedRequest { fingerprint, finished: None });
        Begun::Fresh(Reservation { idempotency: self.clone(), id, stored: None })
    }

    /// Ends a request: keeps its answer, or forgets its key.
    fn end(&self, id: &Id, stored: Option<Stored>) {
        let mut entries = self.entries.lock();
        match stored {
            Some(stored) => entries.finish(id, stored, Instant::now() + self.window),
            None => entries.forget(id),
        }
    }
}

impl Entries {
    fn finish(&mut self, id: &Id, stored: Stored, expires: Instant) {
        let Some(entry) = self.by_id.get_mut(id) else { return };
        self.last += 1;
        self.bytes += stored.body.len();
        self.finished.insert(self.last, *id);
        entry.finished = Some(Finished { number: self.last, stored, expires });
        while self.bytes > MAX_BODIES
            && let Some(oldest) = self.oldest()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, id: &Id) {
        if let Some(finished) = self.by_id.remove(id).and_then(|entry| entry.finished) {
            self.finished.remove(&finished.number);
            self.bytes -= finished.stored.body.len();
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        for _ in 0..AT_ONCE {
            let Some(oldest) = self.oldest().filter(|oldest| self.is_expired(oldest, now)) else { break };
            self.forget(&oldest);
        }
    }

    /// Returns the entry that finished first.
    fn oldest(&self) -> Option<Id> {
        self.finished.first_key_value().map(|(_, id)| *id)
    }

    fn is_expired(&self, id: &Id, now: Instant) -> bool {
        let finished = self.by_id.get(id).and_then(|entry| entry.finished.as_ref());
        finished.is_some_and(|finished| finished.expires <= now)
    }
}

/// The right to carry out a request. Dropping it forgets the key, so that the request can be tried again.
pub(in crate::edge) struct Reservation {
    idempotency: Arc<Idempotency>,
    id: Id,
    stored: Option<Stored>,
}

impl Reservation {
    /// Keeps the answer for requests that follow with the same key.
    pub(in crate::edge) fn keep(mut self, stored: Stored) {
        self.stored = Some(stored);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.idempotency.end(&self.id, self.stored.take());
    }
}

/// Returns the id of a key. The length separates the token's name from the key.
fn id(token: &str, key: &str) -> Id {
    let length = (token.len() as u64).to_be_bytes();
    Sha256::new().chain_update(length).chain_update(token).chain_update(key).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::time::advance;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);
    const SAME: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn answer(body: &str) -> Stored {
        Stored { status: 200, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn begin(memory: &Arc<Idempotency>, key: &str) -> Begun {
        memory.begin("token", key, SAME)
    }

    fn fresh(memory: &Arc<Idempotency>, key: &str) -> Reservation {
        let Begun::Fresh(reservation) = begin(memory, key) else { panic!("{key} is not fresh") };
        reservation
    }

    fn is_fresh(memory: &Arc<Idempotency>, key: &str) -> bool {
        matches!(begin(memory, key), Begun::Fresh(_))
    }

    fn replays(memory: &Arc<Idempotency>, key: &str) -> bool {
        matches!(begin(memory, key), Begun::Replay(stored) if stored == answer(key))
    }

    #[test]
    fn a_kept_answer_is_replayed_and_a_dropped_reservation_is_forgotten() {
        let memory = Idempotency::new(WINDOW, 10);
        let first = fresh(&memory, "k");
        assert!(matches!(begin(&memory, "k"), Begun::InFlight));
        assert!(matches!(memory.begin("token", "k", OTHER), Begun::Reused));
        drop(first);
        let second = fresh(&memory, "k");
        second.keep(answer("k"));
        assert!(replays(&memory, "k") && replays(&memory, "k"));
        assert!(matches!(memory.begin("token", "k", OTHER), Begun::Reused));
    }

    #[test]
    fn each_token_has_keys_of_its_own() {
        let memory = Idempotency::new(WINDOW, 10);
        let held: Vec<_> = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", "")]
            .map(|(token, key)| memory.begin(token, key, SAME))
            .into_iter()
            .filter(|begun| matches!(begun, Begun::Fresh(_)))
            .collect();
        assert_eq!(held.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_the_window_from_its_end() {
        let memory = Idempotency::new(WINDOW, 1000);
        let slow = fresh(&memory, "slow");
        advance(2 * WINDOW).await;
        assert!(matches!(begin(&memory, "slow"), Begun::InFlight));
        slow.keep(answer("slow"));
        advance(WINDOW - Duration::from_millis(1)).await;
        assert!(replays(&memory, "slow"));
        (0..10 * AT_ONCE).for_each(|number| fresh(&memory, &number.to_string()).keep(answer("")));
        advance(Duration::from_millis(1)).await;
        assert!(is_fresh(&memory, "slow"));

        // Many entries expire at once: one call does not forget all, but knows its own.
        advance(WINDOW).await;
        drop(fresh(&memory, &(10 * AT_ONCE - 1).to_string()));
        assert_eq!(memory.entries.lock().by_id.len(), 9 * AT_ONCE - 1);
        (0..9).for_each(|_| drop(fresh(&memory, "new")));
        let entries = memory.entries.lock();
        assert!(entries.by_id.is_empty() && entries.finished.is_empty() && entries.bytes == 0);
    }

    #[test]
    fn the_oldest_finished_entry_makes_room() {
        let memory = Idempotency::new(WINDOW, 3);
        let (a, b, c) = (fresh(&memory, "a"), fresh(&memory, "b"), fresh(&memory, "c"));
        assert!(matches!(begin(&memory, "d"), Begun::Full));
        b.keep(answer("b"));
        a.keep(answer("a"));
        let d = fresh(&memory, "d");
        assert!(replays(&memory, "a") && matches!(begin(&memory, "c"), Begun::InFlight));
        let e = fresh(&memory, "e");
        assert!(matches!(begin(&memory, "a"), Begun::Full), "c, d and e are being carried out");
        drop((c, d, e));
        assert!(is_fresh(&memory, "a") && is_fresh(&memory, "b"));
    }

    #[test]
    fn bodies_are_bounded_together() {
        let memory = Idempotency::new(WINDOW, 1000);
        let quarter = |key| {
            let body = Bytes::from(vec![0; MAX_BODIES / 4]);
            fresh(&memory, key).keep(Stored { status: 200, body });
        };
        ["a", "b", "c", "d"].into_iter().for_each(quarter);
        assert!(matches!(begin(&memory, "a"), Begun::Replay(_)));
        fresh(&memory, "e").keep(answer("e"));
        assert!(is_fresh(&memory, "a") && replays(&memory, "e") && matches!(begin(&memory, "b"), Begun::Replay(_)));
        fresh(&memory, "f").keep(Stored { status: 200, body: Bytes::from(vec![0; MAX_BODIES + 1]) });
        let entries = memory.entries.lock();
        assert!(entries.by_id.is_empty() && entries.bytes == 0, "one body that is too large is not kept either");
    }

    #[test]
    fn of_requests_at_the_same_time_one_is_carried_out() {
        const THREADS: usize = 4;
        let memory = Idempotency::new(WINDOW, 1000);
        let barrier = Barrier::new(THREADS);
        for kept in [true, false].repeat(50) {
            let (carried_out, under_way) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        barrier.wait();
                        match begin(&memory, "k") {
                            Begun::Fresh(reservation) => {
                                assert_eq!(under_way.fetch_add(1, Relaxed), 0, "two at a time");
                                carried_out.fetch_add(1, Relaxed);
                                under_way.fetch_sub(1, Relaxed);
                                if kept {
                                    reservation.keep(answer("k"));
                                }
                            }
                            Begun::Replay(stored) => assert!(kept && stored == answer("k")),
                            Begun::InFlight | Begun::Full => {}
                            Begun::Reused => panic!("it is the same request"),
                        }
                    });
                }
            });
            let carried_out = carried_out.into_inner();
            assert!(if kept { carried_out == 1 } else { carried_out >= 1 }, "{carried_out}");
            assert!(if kept { replays(&memory, "k") } else { is_fresh(&memory, "k") });
            memory.entries.lock().forget(&id("token", "k"));
        }
    }

    #[test]
    fn keys_are_visible_ascii() {
        for key in ["a", "\"8e03978e-40d5\"", "~!", &"x".repeat(MAX_KEY)] {
            assert_eq!(key_of(key.as_bytes()), Ok(key));
        }
        for key in ["", "a b", "a\t", "\u{7f}", "ä", &"x".repeat(MAX_KEY + 1)] {
            assert_eq!(key_of(key.as_bytes()), Err(InvalidKey), "{key:?}");
        }
        assert_eq!(key_of(b"\xff"), Err(InvalidKey));
    }
}
