//! A model of NATS: one or two servers; queues from client to server, between servers, from server to client, and one
//! for each subscription of a client. Each keeps its order; two subscriptions may overtake each other.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::Subject;
use super::super::id::Incarnation;
use super::rng::Rng;

pub(super) const MS: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// Kinds of frames, by their second byte.
pub(super) const BATCH: u8 = 2;
pub(super) const SNAPSHOT_PART: u8 = 5;
pub(super) const ANSWERS: u8 = 8;

/// What a client gets, and when.
#[derive(Debug)]
pub(super) enum Arrival {
    Frame { to: usize, link: u32, frame: Bytes },
    NoResponders { to: usize, link: u32, about: Incarnation, token: u64 },
}

/// One client's connection to a server.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) server: usize,
    pub(super) is_connected: bool,
    /// Counts connections: what was under way on an earlier one is lost.
    pub(super) link: u32,
    pub(super) is_cut_out: bool,
    pub(super) is_cut_in: bool,
    /// Added to each way, in microseconds.
    pub(super) lag: u64,
    /// Until when each subscription drops everything, as after a slow consumer.
    pub(super) drops_until: [u64; 3],
    /// What is published while disconnected: sent late, or lost.
    pub(super) sends_late: bool,
    late: Vec<(Subject, Bytes, Option<u64>)>,
    /// Since when nothing that the client publishes comes back to it.
    pub(super) alone_since: Option<u64>,
    out_last: u64,
    in_last: u64,
    sub_last: [u64; 3],
}

/// Who listens to the subjects of an incarnation, as each server knows it.
#[derive(Debug)]
struct Interest {
    client: usize,
    known_at: [u64; 2],
    gone_at: [u64; 2],
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) clients: Vec<Client>,
    route_last: [u64; 2],
    /// Since when the way from each server to the other is cut.
    pub(super) split_at: [Option<u64>; 2],
    interest: BTreeMap<Incarnation, Interest>,
    /// True if some client listens to everything: then nobody is told that nobody listens.
    pub(super) hides_503: bool,
    /// One in so many answers, or batches to one client, is lost; 0 means none.
    pub(super) loses_answers: u64,
    pub(super) loses_batches: u64,
    /// One in so many frames has a changed byte; 0 means none.
    pub(super) corrupts: u64,
    /// Now and then a queue takes up to so many microseconds.
    pub(super) spike: u64,
    pub(super) sent: u64,
    pub(super) snapshot_parts: u64,
}

impl Net {
    pub(super) fn new() -> Self {
        Self {
            clients: Vec::new(),
            route_last: [0; 2],
            split_at: [None; 2],
            interest: BTreeMap::new(),
            hides_503: false,
            loses_answers: 0,
            loses_batches: 0,
            corrupts: 0,
            spike: 0,
            sent: 0,
            snapshot_parts: 0,
        }
    }

    pub(super) fn add(&mut self, server: usize) {
        self.clients.push(Client {
            server,
            is_connected: true,
            link: 0,
            is_cut_out: false,
            is_cut_in: false,
            lag: 0,
            drops_until: [0; 3],
            sends_late: false,
            late: Vec::new(),
            alone_since: None,
            out_last: 0,
            in_last: 0,
            sub_last: [0; 3],
        });
    }

    /// Notes who hears nothing of itself any more, or hears it again.
    pub(super) fn note_alone(&mut self, now: u64) {
        for client in &mut self.clients {
            let is_alone = client.is_cut_in || client.is_cut_out || !client.is_connected;
            client.alone_since = client.alone_since.or(Some(now)).filter(|_| is_alone);
        }
    }

    fn hop(&self, rng: &mut Rng) -> u64 {
        let spike = if self.spike > 0 && rng.one_in(64) { rng.below(self.spike) } else { 0 };
        rng.between(30, 200) + spike
    }

    /// Makes the servers know a client's subscriptions, one of them a little later.
    pub(super) fn subscribe(&mut self, now: u64, client: usize, incarnation: Incarnation, rng: &mut Rng) {
        let near = self.clients[client].server;
        let known_at = [0, 1].map(|server| if server == near { now } else { now + rng.below(3 * MS) });
        self.interest.insert(incarnation, Interest { client, known_at, gone_at: [u64::MAX; 2] });
    }

    /// Makes the servers forget them.
    pub(super) fn unsubscribe(&mut self, now: u64, incarnation: Incarnation, rng: &mut Rng) {
        if let Some(interest) = self.interest.get_mut(&incarnation) {
            interest.gone_at = [0, 1].map(|_| now + rng.between(MS, 50 * MS));
        }
    }

    /// Ends a client's connection: what is under way to it is lost.
    pub(super) fn disconnect(&mut self, client: usize) {
        let client = &mut self.clients[client];
        (client.is_connected, client.link) = (false, client.link + 1);
    }

    /// Connects a client to a server. Returns what it kept meanwhile.
    pub(super) fn connect(&mut self, client: usize, server: usize) -> Vec<(Subject, Bytes, Option<u64>)> {
        let client = &mut self.clients[client];
        (client.is_connected, client.server, client.link) = (true, server, client.link + 1);
        // New TCP connections: they know nothing of the order before.
        (client.out_last, client.in_last) = (0, 0);
        std::mem::take(&mut client.late)
    }

    /// Publishes a frame. Returns what arrives, with the times.
    pub(super) fn publish(
        &mut self,
        now: u64,
        from: usize,
        (to, mut frame, token): (Subject, Bytes, Option<u64>),
        rng: &mut Rng,
    ) -> Vec<(u64, Arrival)> {
        if self.corrupts > 0 && rng.one_in(self.corrupts) {
            let (mut bytes, at) = (frame.to_vec(), rng.pick(frame.len()));
            bytes[at] = rng.next() as u8;
            frame = bytes.into();
        }
        self.sent += 1;
        self.snapshot_parts += u64::from(frame[1] == SNAPSHOT_PART);
        let hops = [(); 4].map(|()| self.hop(rng));
        let sender = &mut self.clients[from];
        if !sender.is_connected {
            if sender.sends_late {
                sender.late.push((to, frame, token));
            }
            return Vec::new();
        }
        if sender.is_cut_out || self.loses_answers > 0 && frame[1] == ANSWERS && rng.one_in(self.loses_answers) {
            return Vec::new();
        }
        let at = sender.out_last.max(now + hops[0] + sender.lag);
        sender.out_last = at;
        let (near, link) = (sender.server, sender.link);
        let receivers = match to {
            Subject::All => (0..self.clients.len()).collect(),
            Subject::Node(about) | Subject::Snapshots(about) => {
                let known = self.interest.get(&about);
                // Without the other server, this one forgets what the clients there listen to after a while.
                let is_far = |client: usize| self.clients[client].server != near;
                let known = known.filter(|it| it.known_at[near] <= at && at < it.gone_at[near]);
                let is_forgotten = self.split_at[1 - near].is_some_and(|since| at > since + SECOND);
                let known = known.filter(|it| !(is_forgotten && is_far(it.client)));
                match (known, token) {
                    (Some(interest), _) => vec![interest.client],
                    (None, Some(token)) if !self.hides_503 => {
                        return vec![(at + hops[1], Arrival::NoResponders { to: from, link, about, token })];
                    }
                    (None, _) => Vec::new(),
                }
            }
        };
        let arrivals = receivers.into_iter().filter_map(|to_client| self.bring(at, near, to_client, to, &frame, rng));
        arrivals.collect()
    }

    /// Brings a frame from a server to a client.
    fn bring(
        &mut self,
        mut at: u64,
        near: usize,
        to: usize,
        subject: Subject,
        frame: &Bytes,
        rng: &mut Rng,
    ) -> Option<(u64, Arrival)> {
        let hops = [(); 2].map(|()| self.hop(rng));
        let receiver = &mut self.clients[to];
        if receiver.server != near {
            if self.split_at[near].is_some() {
                return None;
            }
            at = self.route_last[near].max(at + hops[0]);
            self.route_last[near] = at;
        }
        if !receiver.is_connected || receiver.is_cut_in {
            return None;
        }
        if self.loses_batches > 0 && frame[1] == BATCH && rng.one_in(self.loses_batches) {
            return None;
        }
        at = receiver.in_last.max(at + hops[1] + receiver.lag);
        receiver.in_last = at;
        let sub = match subject {
            Subject::All => 0,
            Subject::Node(_) => 1,
            Subject::Snapshots(_) => 2,
        };
        let wait = if rng.one_in(32) { rng.below(5 * MS) } else { rng.below(50) };
        at = receiver.sub_last[sub].max(at + wait);
        receiver.sub_last[sub] = at;
        let is_kept = at >= receiver.drops_until[sub];
        is_kept.then(|| (at, Arrival::Frame { to, link: receiver.link, frame: frame.clone() }))
    }
}
