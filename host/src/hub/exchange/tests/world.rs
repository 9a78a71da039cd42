//! Two gateways, and what is under way between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shuttle::rand::{Rng as _, thread_rng};
use tokio::sync::oneshot;

use crate::base::message::ConnectionId;
use crate::config::DuplicateLogin;
use crate::hub::cluster::clock::{Now, Stamp};
use crate::hub::cluster::frame::Row;
use crate::hub::cluster::handle::Cluster;
use crate::hub::cluster::id::{Incarnation, NodeId, Ticket};
use crate::hub::cluster::secret::Secret;
use crate::hub::cluster::{Config, Event as NodeEvent, Node, Output, REMEMBERED, Subject, machine_clock};
use crate::hub::events::Presence;
use crate::hub::exchange::{AT_ONCE, Exchange};
use crate::hub::nats::BusConfig;
use crate::hub::registry::{Registry, Several};

const A: Incarnation = Incarnation(1);
const B: Incarnation = Incarnation(2);
/// The uids that clients log in with. They meet in both.
pub(super) const UIDS: [&str; 2] = ["anna", "bob"];
pub(super) const MS: Duration = Duration::from_millis(1);

/// The time of both machines. It goes on by itself: all threads are one thread of the system.
struct Time(Now);

impl Time {
    fn new() -> Self {
        let time = Self(Now { boot: Duration::from_secs(1_000), wall: Duration::from_secs(1_796_000_000) });
        machine_clock::show(Some(time.0));
        time
    }

    fn pass(&mut self, time: Duration) {
        self.0.boot += time;
        self.0.wall += time;
        machine_clock::show(Some(self.0));
    }
}

impl Drop for Time {
    fn drop(&mut self) {
        machine_clock::show(None);
    }
}

/// A login at the first gateway.
pub(super) struct Login {
    pub(super) uid: &'static str,
    pub(super) id: ConnectionId,
    pub(super) stamp: Stamp,
    pub(super) announced: Option<oneshot::Receiver<()>>,
    /// When the connection began to leave.
    pub(super) leaving: Option<u64>,
}

/// What has happened, in the order of `moment`.
#[derive(Default)]
pub(super) struct Record {
    moments: AtomicU64,
    pub(super) logins: Mutex<Vec<Login>>,
    pub(super) departures: Mutex<Vec<oneshot::Receiver<u32>>>,
}

impl Record {
    pub(super) fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Relaxed)
    }
}

/// A login at the second gateway that all gateways have confirmed.
struct Confirmed {
    uid: &'static str,
    stamp: Stamp,
    at: u64,
    /// The newest login at the first gateway that the second one had heard of by then.
    heard: Option<Stamp>,
}

/// Both gateways, and what is under way between them: by receiver and subject.
pub(super) struct World {
    time: Time,
    /// How much the second gateway's clock is ahead.
    ahead: Duration,
    pub(super) registry: Arc<Registry>,
    cluster: Arc<Cluster>,
    exchange: Exchange,
    other: Node,
    secret: Secret,
    under_way: BTreeMap<(Incarnation, u8), VecDeque<Bytes>>,
    /// True while frames that go to all may be lost.
    pub(super) is_lossy: bool,
    is_open: [bool; 2],
    pub(super) record: Arc<Record>,
    /// The connections of the second gateway, the oldest first.
    others: BTreeMap<&'static str, Vec<Stamp>>,
    waiting: BTreeMap<Ticket, (&'static str, Stamp)>,
    confirmed: Vec<Confirmed>,
    /// The newest login at the first gateway that the second one has heard of.
    heard: BTreeMap<&'static str, Stamp>,
    /// What the second gateway said of departures: how many connections are left.
    pub(super) left: Vec<u32>,
}

fn config(incarnation: Incarnation, secret: &Secret) -> Config {
    Config {
        node: NodeId::new(u16::try_from(incarnation.0).unwrap()),
        incarnation,
        before: [None; REMEMBERED],
        secret: secret.fingerprint(),
        timeout: Duration::from_secs(1),
        // Nothing is confirmed because the time is over.
        confirm: Duration::from_secs(600),
        window: 1 << 20,
    }
}

impl World {
    /// Two gateways that know each other.
    pub(super) fn new() -> Self {
        let (time, secret) = (Time::new(), Secret::new(b""));
        let cluster = Arc::new(Cluster::new(config(A, &secret), secret.clone()));
        let registry = Arc::new(Registry::new(DuplicateLogin::CloseOlder).in_cluster(cluster.clone()));
        let (opened, _) = oneshot::channel();
        // The other gateway's older connections stay: only the registry closes some.
        let policy = DuplicateLogin::Newest;
        let exchange = Exchange::new(registry.clone(), cluster.clone(), A, BusConfig::default(), None, policy, opened);
        cluster.node(|node, now| node.set_connected(now, true));
        let ahead = if thread_rng().gen_bool(0.5) { Duration::from_secs(3_600) } else { Duration::ZERO };
        let other = Node::new(Now { wall: time.0.wall + ahead, ..time.0 }, config(B, &secret));
        let mut world = Self {
            time,
            ahead,
            registry,
            cluster,
            exchange,
            other,
            secret,
            under_way: BTreeMap::new(),
            is_lossy: false,
            is_open: [false; 2],
            record: Arc::default(),
            others: BTreeMap::new(),
            waiting: BTreeMap::new(),
            confirmed: Vec::new(),
            heard: BTreeMap::new(),
            left: Vec::new(),
        };
        for _ in 0..400 {
            world.turn(50 * MS);
            if world.is_open == [true; 2] {
                return world;
            }
        }
        panic!("the gateways do not open: {:?}", world.is_open);
    }

    /// What the second gateway's clocks show.
    fn there(&self) -> Now {
        Now { wall: self.time.0.wall + self.ahead, ..self.time.0 }
    }

    fn publish(&mut self, to: Subject, frame: &Bytes) {
        let (receivers, subject) = match to {
            Subject::All => (vec![A, B], 0),
            Subject::Node(to) => (vec![to], 1),
            Subject::Snapshots(to) => (vec![to], 2),
        };
        for to in receivers {
            if subject > 0 || !self.is_lossy || !thread_rng().gen_bool(0.1) {
                self.under_way.entry((to, subject)).or_default().push_back(frame.clone());
            }
        }
    }

    /// Brings some of what is under way. Frames of one subject stay in order.
    fn bring(&mut self) {
        let mut ways: Vec<_> = self.under_way.keys().copied().collect();
        while !ways.is_empty() {
            let way = ways.swap_remove(thread_rng().gen_range(0..ways.len()));
            let waiting = self.under_way.get_mut(&way).unwrap();
            let count = thread_rng().gen_range(0..=waiting.len());
            for frame in waiting.drain(..count).collect::<Vec<_>>() {
                match way {
                    (A, _) => self.cluster.node(|node, now| node.receive(now, frame)),
                    _ => self.other.receive(self.there(), frame),
                }
                for uid in UIDS {
                    if let Some(place) = self.other.rows().newest(self.secret.key(uid)) {
                        let heard = self.heard.entry(uid).or_insert(place.newest);
                        *heard = place.newest.max(*heard);
                    }
                }
            }
        }
    }

    /// Some time passes. Each gateway does what it does in one turn of its loop.
    pub(super) fn turn(&mut self, time: Duration) {
        self.time.pass(time);
        self.bring();
        self.cluster.node(|node, now| {
            node.tick(now);
            node.flush(now);
        });
        let mut rest = VecDeque::new();
        for output in self.cluster.node(|node, _| node.outputs(AT_ONCE)) {
            match output {
                Output::Publish { to, frame, is_turn, .. } => {
                    self.publish(to, &frame);
                    if let (Subject::Node(to), true) = (to, is_turn) {
                        self.cluster.node(|node, now| node.published(now, to));
                    }
                }
                Output::Event(NodeEvent::Opened(_)) => self.is_open[0] = true,
                output => rest.push_back(output),
            }
        }
        self.exchange.carry_out_these(rest).expect("no reason to end");
        self.check_announced();

        let now = self.there();
        self.other.tick(now);
        self.other.flush(now);
        while self.other.has_output() {
            for output in self.other.outputs(usize::MAX) {
                self.carry_out_there(now, output);
            }
        }
    }

    fn carry_out_there(&mut self, now: Now, output: Output) {
        match output {
            Output::Publish { to, frame, is_turn, .. } => {
                self.publish(to, &frame);
                if let (Subject::Node(to), true) = (to, is_turn) {
                    self.other.published(now, to);
                }
            }
            Output::Lock(lock) => self.other.locks_taken(now, &lock),
            Output::LoginConfirmed { ticket, is_complete } => {
                let (uid, stamp) = self.waiting.remove(&ticket).expect("a login");
                let (at, heard) = (self.record.moment(), self.heard.get(uid).copied());
                assert!(is_complete);
                self.confirmed.push(Confirmed { uid, stamp, at, heard });
            }
            Output::Departed { remaining, .. } => self.left.push(remaining),
            Output::Event(NodeEvent::Opened(_)) => self.is_open[1] = true,
            // A link may seem slow.
            Output::Event(NodeEvent::Joined(..) | NodeEvent::Suspect(..) | NodeEvent::Reachable(..)) => {}
            Output::Event(event) => panic!("{event:?}"),
            Output::Apply(_) | Output::Answered { .. } | Output::Fatal(_) => panic!("{output:?}"),
        }
    }

    /// A client of the first gateway gets its reply only when the second one knows of it.
    fn check_announced(&mut self) {
        for login in &mut *self.record.logins.lock().unwrap() {
            if login.announced.as_mut().is_some_and(|announced| announced.try_recv().is_ok()) {
                login.announced = None;
                let heard = self.heard.get(login.uid);
                assert!(login.leaving.is_some() || heard >= Some(&login.stamp), "confirmed, but not known elsewhere");
            }
        }
    }

    /// What the second gateway tells of a uid.
    fn row(&self, uid: &str) -> Option<Row> {
        let same = self.others.get(uid)?;
        Some(Row { newest: *same.last()?, count: u32::try_from(same.len()).unwrap() })
    }

    /// A client logs in at the second gateway.
    pub(super) fn login_there(&mut self, uid: &'static str) {
        let (now, before) = (self.there(), self.row(uid));
        let stamp = self.other.clock().stamp(now, self.other.id());
        self.others.entry(uid).or_default().push(stamp);
        let ticket = self.other.note_login(now, self.secret.key(uid), before, self.row(uid));
        self.waiting.insert(ticket, (uid, stamp));
    }

    /// The oldest connection of a uid at the second gateway ends.
    pub(super) fn logout_there(&mut self, uid: &'static str) {
        let (now, before) = (self.there(), self.row(uid));
        if before.is_some() {
            self.others.get_mut(uid).unwrap().remove(0);
            self.other.note_departure(now, self.secret.key(uid), before, self.row(uid));
        }
    }

    /// Runs until nothing waits, and compares what the gateways know of each other.
    pub(super) fn settle(&mut self) {
        self.is_lossy = false;
        for _ in 0..200 {
            self.turn(25 * MS);
        }
        assert!(self.waiting.is_empty(), "logins at the second gateway are never confirmed");
        for uid in UIDS {
            let (key, rows) = (self.secret.key(uid), self.other.rows());
            let known = (rows.connections(key) as usize, rows.newest(key).map(|place| place.newest));
            let real = (self.registry.count(Several::Uid(uid)), self.registry.newest_login(uid));
            assert_eq!(known, real, "what the second gateway knows of {uid} at the first one");
            let count = self.others.get(uid).map_or(0, Vec::len);
            assert_eq!(self.cluster.connections_elsewhere(uid) as usize, count, "{uid}");
        }
    }

    /// Logins are recorded, and closed by newer ones, in the order of their stamps.
    pub(super) fn check_order(&self) {
        let logins = self.record.logins.lock().unwrap();
        for uid in UIDS {
            let events = self.registry.events.since(0, 1_000).events.into_iter();
            let ids = events.filter(|event| event.uid == uid && matches!(event.presence, Presence::Login { .. }));
            let stamp = |id| logins.iter().find(|login| login.id == id).map(|login| login.stamp);
            let stamps: Vec<_> = ids.map(|event| stamp(event.connection)).collect();
            assert!(stamps.is_sorted(), "{stamps:?}");
            let peers = self.registry.of_uid(uid);
            assert!(peers.iter().rev().skip(1).all(|older| !older.outbox.is_open()), "an older one is open");
        }
    }

    /// When a gateway has confirmed a login elsewhere, it has told of all that were before.
    pub(super) fn check_confirmed(&self) {
        for Confirmed { uid, stamp, at, heard } in &self.confirmed {
            for login in self.record.logins.lock().unwrap().iter() {
                let is_before = login.uid == *uid && login.stamp < *stamp;
                let is_known = *heard >= Some(login.stamp) || login.leaving.is_some_and(|leaving| leaving < *at);
                assert!(!is_before || is_known, "{uid}: {stamp:?} was confirmed, {:?} was not told", login.stamp);
            }
        }
    }
}
