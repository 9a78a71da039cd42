//! Who lives: beats, their acknowledgements, and probes of links.

use std::collections::VecDeque;
use std::time::Duration;

use super::clock::{PeerClock, Stamp, micros};
use super::frame::Beat;
use super::id::{Incarnation, NodeId};

/// The time between two beats.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// A peer is dead this long after the last beat of it that was acknowledged.
pub(super) const DEAD: Duration = Duration::from_secs(3);
/// A node that starts listens so long before it sends its first frame.
pub(super) const LISTEN: Duration = Duration::from_secs(3);
/// `offline` needs acknowledgements of a beat that was sent less than this ago. One second less than [`DEAD`]: a peer
/// that does not hear us stops waiting for our confirmations only when we have stopped to say `offline`.
pub(super) const FRESH: Duration = Duration::from_secs(2);
/// A beat that was under way longer than the quickest one by more than this is not acknowledged.
const LAG: Duration = Duration::from_secs(1);
/// The time between two probes of a link, and how long an answer may take.
const PROBE: Duration = Duration::from_secs(1);
/// The time between two probes of a suspect.
const PROBE_SUSPECT: Duration = Duration::from_millis(100);
/// Probes follow beats after this time, so that their answers acknowledge these beats.
const AFTER_BEAT: Duration = Duration::from_millis(200);

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sends nothing.
    Listening,
    /// Takes the rows of its peers.
    Joining,
    /// From this beat on, tells that it knows all rows. Opens once each peer has acknowledged such a beat.
    Ready(u64),
    /// Takes part.
    Open,
    /// Has left, or must end.
    Ended,
}

/// The beats that this node sent.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// Number and time of the last ones, the oldest first.
    sent: VecDeque<(u64, Duration)>,
    /// The last one that came back from NATS.
    echoed: u64,
}

impl Beats {
    /// Returns `true` if the next beat is due.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.sent.back().is_none_or(|&(_, at)| now >= at + BEAT)
    }

    /// Returns the time of the last beat.
    pub(super) fn last_at(&self) -> Duration {
        self.sent.back().map_or(Duration::ZERO, |&(_, at)| at)
    }

    /// Numbers the next beat.
    pub(super) fn next(&mut self, now: Duration) -> u64 {
        let number = self.last() + 1;
        self.sent.push_back((number, now));
        if self.sent.len() > 8 {
            self.sent.pop_front();
        }
        number
    }

    /// Returns the number of the last beat, 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.sent.back().map_or(0, |&(number, _)| number)
    }

    /// Notes that a beat came back from NATS.
    pub(super) fn echo(&mut self, number: u64) {
        self.echoed = self.echoed.max(number);
    }

    /// Returns the last beat that came back from NATS.
    pub(super) fn echoed(&self) -> u64 {
        self.echoed
    }

    /// Returns `true` if this beat was sent less than [`FRESH`] ago.
    pub(super) fn is_fresh(&self, number: u64, now: Duration) -> bool {
        self.sent.iter().any(|&(sent, at)| sent == number && now < at + FRESH)
    }
}

/// Whether a peer takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It does.
    Live,
    /// Its beats stopped. They may come again.
    Dead,
    /// It left. Whatever else arrives of it is dropped.
    Gone,
}

/// The life of one peer, as this node sees it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) node: NodeId,
    pub(super) started: Stamp,
    pub(super) state: State,
    /// True if the peer waits for nothing any more before it opens: its confirmations are needed.
    pub(super) ready: bool,
    pub(super) draining: bool,
    /// The peer's clock in its last beat.
    pub(super) clock: PeerClock,
    /// The last beat that was acknowledged, and when it arrived.
    pub(super) heard: u64,
    pub(super) heard_at: Duration,
    /// How much longer than 0 the last beats seemed to take, with a constant added: our clock minus theirs.
    offsets: VecDeque<i64>,
    /// The last of our beats that the peer acknowledged.
    acknowledged: u64,
    /// Acknowledgements that count once the peer's batches up to the second number have been applied.
    claims: VecDeque<(u64, u64)>,
    /// The last probe that was sent, and when.
    probe: u64,
    probed_at: Duration,
    /// The last probe that was answered.
    answered: u64,
    /// Set while the link is in doubt: only the answer to a later probe than this ends it.
    suspect: Option<u64>,
}

impl Life {
    /// Creates a life from its first beat. The link is in doubt until the first probe is answered.
    pub(super) fn new(now: Duration, node: NodeId, beat: &Beat) -> Self {
        Self {
            node,
            started: beat.started,
            state: State::Live,
            ready: false,
            draining: false,
            clock: PeerClock { theirs: beat.boot, arrived: now },
            heard: 0,
            heard_at: now,
            offsets: VecDeque::new(),
            acknowledged: 0,
            claims: VecDeque::new(),
            probe: 0,
            probed_at: Duration::ZERO,
            answered: 0,
            suspect: Some(0),
        }
    }

    /// Notes a beat. Returns `false` if it is too old to count.
    pub(super) fn beat(&mut self, now: Duration, beat: &Beat, me: Incarnation) -> bool {
        if beat.number <= self.heard {
            return false;
        }
        self.clock = PeerClock { theirs: beat.boot, arrived: now };
        let offset = micros(now) as i64 - micros(beat.boot).min(i64::MAX as u64) as i64;
        let quickest = self.offsets.iter().copied().min().unwrap_or(offset);
        self.offsets.push_back(offset);
        if self.offsets.len() > 8 {
            self.offsets.pop_front();
        }
        if offset.saturating_sub(quickest) > micros(LAG) as i64 {
            return false;
        }
        (self.heard, self.heard_at) = (beat.number, now);
        (self.ready, self.draining) = (beat.ready, beat.draining);
        if let Some(&(_, number)) = beat.heard.iter().find(|(incarnation, _)| *incarnation == me) {
            self.claim(number, beat.batches);
        }
        true
    }

    /// Notes that the peer acknowledged a beat of ours after its own batches up to `batches`.
    pub(super) fn claim(&mut self, number: u64, batches: u64) {
        if self.claims.len() >= 8 {
            self.claims.pop_front();
        }
        self.claims.push_back((number, batches));
    }

    /// Begins again with a peer that was dead. What it knew of us counts no more, and the link is in doubt.
    pub(super) fn revive(&mut self) {
        (self.state, self.acknowledged, self.suspect) = (State::Live, 0, Some(self.probe));
        self.claims.clear();
    }

    /// Lets those acknowledgements count whose batches have been applied.
    pub(super) fn settle(&mut self, applied: u64) {
        for &(number, _) in self.claims.iter().filter(|(_, batches)| *batches <= applied) {
            self.acknowledged = self.acknowledged.max(number);
        }
        self.claims.retain(|(_, batches)| *batches > applied);
    }

    /// Returns the last of our beats that the peer acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Returns `true` if the peer takes part.
    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Returns `true` if the peer takes part, but has been silent for too long.
    pub(super) fn has_died(&self, now: Duration) -> bool {
        self.is_live() && now >= self.heard_at + DEAD
    }

    /// Returns `true` if a beat of the peer counted less than [`FRESH`] ago.
    pub(super) fn is_heard(&self, now: Duration) -> bool {
        now < self.heard_at + FRESH
    }

    /// Returns `true` if the link is in doubt.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// Puts the link in doubt until a probe is answered that is sent from now on. Returns `false` if it already is.
    pub(super) fn doubt(&mut self) -> bool {
        self.suspect.replace(self.probe).is_none()
    }

    /// Notes the answer to a probe. Returns `true` if it ended the doubt.
    pub(super) fn pong(&mut self, number: u64) -> bool {
        if number > self.probe {
            return false;
        }
        self.answered = self.answered.max(number);
        self.suspect.take_if(|barrier| number > *barrier).is_some()
    }

    /// Returns `true` if the last probe has been waiting for its answer for too long.
    pub(super) fn is_unanswered(&self, now: Duration) -> bool {
        self.probe > self.answered && now >= self.probed_at + PROBE
    }

    /// Returns the number of the probe to send now, if one is due.
    pub(super) fn probe(&mut self, now: Duration, last_beat: Duration) -> Option<u64> {
        let is_due = if self.is_suspect() {
            now >= self.probed_at + PROBE_SUSPECT
        } else {
            self.probe == self.answered && self.probed_at < last_beat && now >= last_beat + AFTER_BEAT
        };
        is_due.then(|| {
            self.probe += 1;
            self.probed_at = now;
            self.probe
        })
    }
}
