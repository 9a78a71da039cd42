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
use std::time::SystemTime;

use bytestring::ByteString;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};

pub use self::event::{Failure, Payload, Reached, Target, Text, TraceEvent};
use super::message::ConnectionId;
use super::throttle::Throttle;

/// The trace of this process.
pub static TRACE: Trace = Trace::new();

/// The most watchers at a time.
const MAX_WATCHERS: usize = 16;
/// The most connections that are followed, or held until their login, at a time.
const MAX_CONNECTIONS: usize = 10_000;
/// The most events that are held for a connection until its login.
const MAX_HELD: usize = 64;
/// The most events a second for one watcher, and the most that wait for it. Further ones are lost and counted.
const EVENTS_PER_SECOND: u32 = 1_000;
const WAITING: usize = 1_024;

/// Bits of the filter, by the low bits of a connection's id.
const BITS: usize = 4_096;
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

/// There are as many watchers as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WATCHERS} traces are watched already, which is the most: end one of them")]
pub struct TooManyWatchers;

/// See the module's documentation.
#[derive(Debug)]
pub struct Trace {
    /// A bit is set if a connection is followed whose id has these low bits.
    filter: [AtomicU64; WORDS],
    is_watched: AtomicBool,
    shows_payloads: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last_watcher: u64,
    watchers: BTreeMap<u64, Watcher>,
    connections: BTreeMap<ConnectionId, Followed>,
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

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(flatten)]
    event: &'a TraceEvent,
}

impl Trace {
    const fn new() -> Self {
        Self {
            filter: [const { AtomicU64::new(0) }; WORDS],
            is_watched: AtomicBool::new(false),
            shows_payloads: AtomicBool::new(false),
            state: Mutex::new(State { last_watcher: 0, watchers: BTreeMap::new(), connections: BTreeMap::new() }),
        }
    }

    /// Sets whether events show the beginning of payloads.
    pub fn show_payloads(&self, show: bool) {
        self.shows_payloads.store(show, Relaxed);
    }

    fn shows_payloads(&self) -> bool {
        self.shows_payloads.load(Relaxed)
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
        if self.follows(id) {
            self.state.lock().record(id, event);
        }
    }

    /// Begins to follow a connection that opens, if somebody watches its address, or may want it after its login.
    pub fn opened(&self, id: ConnectionId, address: IpAddr, event: impl FnOnce() -> TraceEvent) {
        if !self.is_watched() {
            return;
        }
        let mut state = self.state.lock();
        let by: Vec<_> = state.watchers_of(|watched| *watched == Watched::Address(address)).collect();
        let is_held = state.watchers.values().any(|watcher| matches!(watcher.watched, Watched::Uid(_)));
        if (is_held || !by.is_empty()) && state.connections.len() < MAX_CONNECTIONS {
            state.connections.insert(id, Followed { by, ..Followed::default() });
            self.set(id);
            state.record(id, event);
        }
    }

    /// Tells the uid of a connection that logs in.
    pub fn logged_in(&self, id: ConnectionId, uid: &ByteString) {
        if !self.is_watched() {
            return;
        }
        let mut state = self.state.lock();
        let by: Vec<_> =
            state.watchers_of(|watched| matches!(watched, Watched::Uid(wanted) if wanted == uid)).collect();
        for watcher in &by {
            let held = state.connections.get(&id).map_or_else(Vec::new, |followed| followed.held.clone());
            held.into_iter().for_each(|line| state.send(*watcher, line));
        }
        self.follow(&mut state, id, Some(uid), &by);
        match state.connections.get_mut(&id) {
            Some(followed) if followed.by.is_empty() => self.forget(&mut state, id),
            Some(followed) => {
                followed.held = Vec::new();
                state.record(id, || TraceEvent::Login);
            }
            None => {}
        }
    }

    /// Records that a message found no connection of a uid.
    pub fn missed(&self, uid: &ByteString, event: impl FnOnce() -> TraceEvent) {
        if !self.is_watched() {
            return;
        }
        let state = self.state.lock();
        let by: Vec<_> =
            state.watchers_of(|watched| matches!(watched, Watched::Uid(wanted) if wanted == uid)).collect();
        if !by.is_empty() {
            let line = State::line(None, Some(uid), &event());
            by.into_iter().for_each(|watcher| state.send(watcher, line.clone()));
        }
    }

    /// Records the end of a connection, which is followed no more.
    pub fn ended(&self, id: ConnectionId, event: impl FnOnce() -> TraceEvent) {
        if self.follows(id) {
            let mut state = self.state.lock();
            state.record(id, event);
            self.forget(&mut state, id);
        }
    }

    /// Begins to watch. Connections of a uid that are open already are followed by [`Watch::follow`].
    ///
    /// # Errors
    /// If there are too many watchers.
    pub fn watch(&'static self, watched: Watched) -> Result<Watch, TooManyWatchers> {
        let mut state = self.state.lock();
        if state.watchers.len() >= MAX_WATCHERS {
            return Err(TooManyWatchers);
        }
        state.last_watcher += 1;
        let number = state.last_watcher;
        let (lines, receiver) = channel(WAITING);
        let throttle = Throttle::new(EVENTS_PER_SECOND, EVENTS_PER_SECOND);
        if let Watched::Connection(id) = watched {
            self.follow(&mut state, id, None, &[number]);
        }
        state.watchers.insert(number, Watcher { watched, throttle, lines });
        self.is_watched.store(true, Relaxed);
        Ok(Watch { trace: self, number, lines: receiver })
    }

    /// Follows a connection for these watchers, too.
    fn follow(&self, state: &mut State, id: ConnectionId, uid: Option<&ByteString>, by: &[u64]) {
        let is_known = state.connections.contains_key(&id);
        if !is_known && (by.is_empty() || state.connections.len() >= MAX_CONNECTIONS) {
            return;
        }
        let followed = state.connections.entry(id).or_default();
        followed.uid = uid.cloned().or(followed.uid.take());
        let new = by.iter().filter(|watcher| !followed.by.contains(watcher)).copied().collect::<Vec<_>>();
        followed.by.extend(new);
        self.set(id);
    }

    /// Follows a connection no more.
    fn forget(&self, state: &mut State, id: ConnectionId) {
        state.connections.remove(&id);
        let (word, bit) = place(id);
        if !state.connections.keys().any(|other| place(*other) == (word, bit)) {
            self.filter[word].fetch_and(!bit, Relaxed);
        }
    }

    fn set(&self, id: ConnectionId) {
        let (word, bit) = place(id);
        self.filter[word].fetch_or(bit, Relaxed);
    }

    /// Ends a watch.
    fn unwatch(&self, number: u64) {
        let mut state = self.state.lock();
        state.watchers.remove(&number);
        self.is_watched.store(!state.watchers.is_empty(), Relaxed);
        let is_held = state.watchers.values().any(|watcher| matches!(watcher.watched, Watched::Uid(_)));
        state.connections.values_mut().for_each(|followed| followed.by.retain(|watcher| *watcher != number));
        // Events are held for a connection without a uid as long as a uid is watched.
        state.connections.retain(|_, followed| !followed.by.is_empty() || (is_held && followed.uid.is_none()));
        self.filter.iter().for_each(|word| word.store(0, Relaxed));
        state.connections.keys().for_each(|id| self.set(*id));
    }
}

impl State {
    fn watchers_of(&self, wants: impl Fn(&Watched) -> bool) -> impl Iterator<Item = u64> {
        self.watchers.iter().filter(move |(_, watcher)| wants(&watcher.watched)).map(|(number, _)| *number)
    }

    fn record(&mut self, id: ConnectionId, event: impl FnOnce() -> TraceEvent) {
        let Some(Followed { uid, by, held }) = self.connections.get(&id) else { return };
        let (uid, by, has_room) = (uid.clone(), by.clone(), held.len() < MAX_HELD);
        let line = Self::line(Some(id), uid.as_ref(), &event());
        for watcher in by {
            self.send(watcher, line.clone());
        }
        if let Some(followed) = self.connections.get_mut(&id).filter(|_| uid.is_none() && has_room) {
            followed.held.push(line);
        }
    }

    fn line(id: Option<ConnectionId>, uid: Option<&ByteString>, event: &TraceEvent) -> Arc<str> {
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        // A string: JavaScript's numbers are not exact enough for the ids of a cluster.
        let connection = id.map(|id| id.to_string());
        let line = Line { at, connection, uid: uid.map(|uid| &**uid), event };
        // Only maps with other keys than strings cannot be JSON, and there are none.
        serde_json::to_string(&line).unwrap_or_default().into()
    }

    /// Sends a line to a watcher, or counts it as lost.
    fn send(&self, watcher: u64, line: Arc<str>) {
        let Some(Watcher { throttle, lines, .. }) = self.watchers.get(&watcher) else { return };
        let Some(lost) = throttle.admit(0) else { return };
        let lost = (lost > 0).then(|| format!("{{\"what\":\"lost\",\"lines\":{lost}}}"));
        for line in lost.map(Arc::from).into_iter().chain([line]) {
            if lines.try_send(line).is_err() {
                throttle.drop_more(1);
            }
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
