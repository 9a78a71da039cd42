//! The trace: follows single clients through the gateway, for operators who watch. While nobody watches, an event costs
//! one relaxed load.
//!
//! A client is followed by its connection. Who watches a uid does not know the connections that will have it, so while
//! a uid is watched, the events of each connection are held until its login tells whether they are wanted.

mod event;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytestring::ByteString;
use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use self::event::line;
pub use self::event::{Failure, Payload, Reached, Target, Text, TraceEvent, show_payloads};
use super::message::ConnectionId;
use super::throttle::Throttle;

/// The trace of this process.
pub static TRACE: Trace = Trace::new();

/// The most connections that are followed at a time.
const MAX_FOLLOWED: usize = 10_000;
/// The most connections whose events are held until their login, the most events of each, and the most bytes of all.
const MAX_HELD: usize = 1_000;
const MAX_HELD_EVENTS: usize = 32;
const MAX_HELD_BYTES: usize = 16 << 20;
/// The most events a second for one watcher, and the most that wait for it. Further ones are lost and counted.
const EVENTS_PER_SECOND: u32 = 1_000;
const WAITING: usize = 1_024;

/// Bits of the filter, by the low bits of a connection's id: so many that few connections share a bit with a followed
/// one.
const BITS: usize = 1 << 16;
const WORDS: usize = BITS / 64;

/// Whom to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// The connections of a uid that log in from now on.
    Uid(ByteString),
    /// One connection.
    Connection(ConnectionId),
    /// Connections that open from now on, from this address.
    Address(IpAddr),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Trace {
    /// A bit is set if a connection is followed whose id has these low bits.
    filter: [AtomicU64; WORDS],
    is_watched: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last_watcher: u64,
    watchers: BTreeMap<u64, Watcher>,
    connections: BTreeMap<ConnectionId, Followed>,
    /// The connections of each bit that is set.
    sharing: BTreeMap<(usize, u64), usize>,
    /// The connections that nobody follows yet, and the bytes of all events that are held.
    held: usize,
    held_bytes: usize,
}

#[derive(Debug)]
struct Watcher {
    watched: Watched,
    throttle: Throttle,
    lines: Sender<Arc<str>>,
}

/// A connection that is followed, or whose events are held.
#[derive(Debug, Default)]
struct Followed {
    uid: Option<ByteString>,
    by: Vec<u64>,
    held: Vec<Arc<str>>,
}

impl Trace {
    const fn new() -> Self {
        Self {
            filter: [const { AtomicU64::new(0) }; WORDS],
            is_watched: AtomicBool::new(false),
            state: Mutex::new(State {
                last_watcher: 0,
                watchers: BTreeMap::new(),
                connections: BTreeMap::new(),
                sharing: BTreeMap::new(),
                held: 0,
                held_bytes: 0,
            }),
        }
    }

    /// Returns `true` if events of this connection may be wanted. Others with the same low bits may be the reason.
    pub fn follows(&self, id: ConnectionId) -> bool {
        let (word, bit) = place(id);
        self.filter[word].load(Relaxed) & bit != 0
    }

    /// Returns `true` if anybody watches anything.
    pub fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// Records an event of a connection, if it is followed. Only then makes it.
    pub fn record(&self, id: ConnectionId, event: impl FnOnce() -> TraceEvent) {
        if !self.follows(id) {
            return;
        }
        let uid = match self.state.lock().connections.get(&id) {
            Some(followed) => followed.uid.clone(),
            None => return,
        };
        // Without the lock, which all connections that are followed share.
        let line = line(Some(id), uid.as_ref(), &event());
        self.state.lock().record(id, &line);
    }

    /// Begins to follow a connection that opens, if somebody watches its address, or may want it after its login.
    pub fn opened(&self, id: ConnectionId, address: IpAddr, event: impl FnOnce() -> TraceEvent) {
        if !self.is_watched() {
            return;
        }
        {
            let mut state = self.state.lock();
            let by = state.watchers_of(|watched| *watched == Watched::Address(address));
            if !by.is_empty() {
                self.follow(&mut state, id, None, &by);
            } else if state.held < MAX_HELD && state.holds() {
                self.add(&mut state, id);
            } else {
                let of_uids = state.watchers_of(|watched| matches!(watched, Watched::Uid(_)));
                of_uids.into_iter().for_each(|watcher| state.lose(watcher));
            }
        }
        self.record(id, event);
    }

    /// Tells the uid of a connection.
    pub fn identified(&self, id: ConnectionId, uid: &ByteString) {
        if !self.is_watched() {
            return;
        }
        let mut state = self.state.lock();
        let by = state.watchers_of(|watched| matches!(watched, Watched::Uid(wanted) if wanted == uid));
        let held = state.take_held(id);
        for watcher in &by {
            held.iter().for_each(|line| state.send(*watcher, line.clone()));
        }
        self.follow(&mut state, id, Some(uid), &by);
        if state.connections.get(&id).is_some_and(|followed| followed.by.is_empty()) {
            self.remove(&mut state, id);
        }
    }

    /// Records that a message found no connection of a uid.
    pub fn missed(&self, uid: &ByteString, event: impl FnOnce() -> TraceEvent) {
        if !self.is_watched() {
            return;
        }
        let state = self.state.lock();
        let by = state.watchers_of(|watched| matches!(watched, Watched::Uid(wanted) if wanted == uid));
        if !by.is_empty() {
            let line = line(None, Some(uid), &event());
            by.into_iter().for_each(|watcher| state.send(watcher, line.clone()));
        }
    }

    /// Follows a connection no more: it has ended.
    pub fn forget(&self, id: ConnectionId) {
        if self.follows(id) {
            self.remove(&mut self.state.lock(), id);
        }
    }

    /// Begins to watch. The caller limits the number of watches. Connections that are open already are followed by
    /// [`Watch::follow`].
    pub fn watch(&'static self, watched: Watched) -> Watch {
        let mut state = self.state.lock();
        state.last_watcher += 1;
        let number = state.last_watcher;
        let (lines, receiver) = channel(WAITING);
        let throttle = Throttle::new(EVENTS_PER_SECOND, EVENTS_PER_SECOND);
        let connection = if let Watched::Connection(id) = watched { Some(id) } else { None };
        state.watchers.insert(number, Watcher { watched, throttle, lines });
        if let Some(id) = connection {
            self.follow(&mut state, id, None, &[number]);
        }
        self.is_watched.store(true, Relaxed);
        Watch { trace: self, number, lines: receiver }
    }

    /// Follows a connection for these watchers, too. Beyond the bound, their watches have lost something.
    fn follow(&self, state: &mut State, id: ConnectionId, uid: Option<&ByteString>, by: &[u64]) {
        let is_followed = state.connections.get(&id).map(|known| !known.by.is_empty());
        if is_followed != Some(true) && !by.is_empty() && state.connections.len() - state.held >= MAX_FOLLOWED {
            by.iter().for_each(|watcher| state.lose(*watcher));
            return;
        }
        if is_followed.is_none() {
            if by.is_empty() {
                return;
            }
            self.add(state, id);
        }
        let Some(followed) = state.connections.get_mut(&id) else { return };
        let was_held = followed.by.is_empty();
        followed.uid = uid.cloned().or(followed.uid.take());
        let new: Vec<_> = by.iter().filter(|watcher| !followed.by.contains(watcher)).copied().collect();
        followed.by.extend(new);
        state.held -= usize::from(was_held && !followed.by.is_empty());
    }

    /// Begins to hold the events of a connection.
    fn add(&self, state: &mut State, id: ConnectionId) {
        let at = place(id);
        state.connections.insert(id, Followed::default());
        state.held += 1;
        *state.sharing.entry(at).or_default() += 1;
        self.filter[at.0].fetch_or(at.1, Relaxed);
    }

    fn remove(&self, state: &mut State, id: ConnectionId) {
        _ = state.take_held(id);
        let Some(followed) = state.connections.remove(&id) else { return };
        state.held -= usize::from(followed.by.is_empty());
        let at = place(id);
        let sharing = state.sharing.get_mut(&at).map_or(0, |sharing| {
            *sharing -= 1;
            *sharing
        });
        if sharing == 0 {
            state.sharing.remove(&at);
            self.filter[at.0].fetch_and(!at.1, Relaxed);
        }
    }

    /// Ends a watch.
    fn unwatch(&self, number: u64) {
        let mut state = self.state.lock();
        state.watchers.remove(&number);
        self.is_watched.store(!state.watchers.is_empty(), Relaxed);
        let (holds, mut unwanted, mut unfollowed) = (state.holds(), Vec::new(), 0);
        for (id, followed) in &mut state.connections {
            let was_followed = !followed.by.is_empty();
            followed.by.retain(|watcher| *watcher != number);
            if followed.by.is_empty() && (was_followed || !holds) {
                unfollowed += usize::from(was_followed);
                unwanted.push(*id);
            }
        }
        state.held += unfollowed;
        unwanted.into_iter().for_each(|id| self.remove(&mut state, id));
    }
}

impl State {
    fn watchers_of(&self, wants: impl Fn(&Watched) -> bool) -> Vec<u64> {
        self.watchers.iter().filter(|(_, watcher)| wants(&watcher.watched)).map(|(number, _)| *number).collect()
    }

    /// Returns `true` if events are held: somebody watches a uid.
    fn holds(&self) -> bool {
        self.watchers.values().any(|watcher| matches!(watcher.watched, Watched::Uid(_)))
    }

    fn record(&mut self, id: ConnectionId, line: &Arc<str>) {
        let Some(followed) = self.connections.get_mut(&id) else { return };
        let has_room = followed.held.len() < MAX_HELD_EVENTS && self.held_bytes + line.len() <= MAX_HELD_BYTES;
        if followed.uid.is_none() && has_room {
            followed.held.push(line.clone());
            self.held_bytes += line.len();
        }
        for watcher in followed.by.clone() {
            self.send(watcher, line.clone());
        }
    }

    /// Takes the events out that are held for a connection.
    fn take_held(&mut self, id: ConnectionId) -> Vec<Arc<str>> {
        let held = self.connections.get_mut(&id).map(|followed| std::mem::take(&mut followed.held));
        let held = held.unwrap_or_default();
        self.held_bytes -= held.iter().map(|line| line.len()).sum::<usize>();
        held
    }

    /// Sends a line to a watcher, or counts it as lost.
    fn send(&self, watcher: u64, line: Arc<str>) {
        let Some(Watcher { throttle, lines, .. }) = self.watchers.get(&watcher) else { return };
        let Some(lost) = throttle.admit(0) else { return };
        let told = match lost {
            0 => Ok(()),
            lost => lines.try_send(format!("{{\"what\":\"lost\",\"lines\":{lost}}}").into()),
        };
        if told.is_err() {
            throttle.drop_more(lost);
        }
        if lines.try_send(line).is_err() {
            throttle.drop_more(1);
        }
    }

    fn lose(&self, watcher: u64) {
        if let Some(watcher) = self.watchers.get(&watcher) {
            watcher.throttle.drop_more(1);
        }
    }
}

/// Returns the word of the filter and the bit for a connection.
fn place(id: ConnectionId) -> (usize, u64) {
    let low = id.0 as usize % BITS;
    (low / 64, 1 << (low % 64))
}

/// The lines about the clients that somebody watches. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    trace: &'static Trace,
    number: u64,
    /// Each is a JSON object, without a line end.
    pub lines: Receiver<Arc<str>>,
}

impl Watch {
    /// Also follows a connection that is open already.
    pub fn follow(&self, id: ConnectionId, uid: &ByteString) {
        self.trace.follow(&mut self.trace.state.lock(), id, Some(uid), &[self.number]);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.trace.unwatch(self.number);
    }
}

#[cfg(test)]
mod tests;
