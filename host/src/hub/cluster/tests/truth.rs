//! What really happened, and the promises that must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use super::super::clock::Stamp;
use super::super::id::Incarnation;
use super::net::SECOND;

/// The life of one connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) uid: u64,
    pub(super) host: usize,
    pub(super) incarnation: Incarnation,
    pub(super) stamp: Stamp,
    pub(super) login_began: u64,
    /// When the client read its reply, if all peers had confirmed the login.
    pub(super) replied: Option<u64>,
    /// The incarnations that confirmed it.
    pub(super) confirmed_by: BTreeSet<Incarnation>,
    /// When the connection began to end, the stamp of that, and what the router was told.
    pub(super) leaving: Option<u64>,
    pub(super) departed: Option<Stamp>,
    pub(super) told: Option<Told>,
    /// True if its node was killed.
    pub(super) is_lost: bool,
    /// False if some peer did not confirm the login or departure.
    pub(super) is_certain: bool,
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) at: u64,
    pub(super) remaining: u32,
    /// The incarnations that the node believed alive, with its own.
    pub(super) live: BTreeSet<Incarnation>,
}

/// What became of a push on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Ok,
    Moved,
    Offline,
    Unreachable,
    Full,
    Expired,
    Skipped,
    Unknown,
}

#[derive(Debug)]
pub(super) struct Push {
    /// `None` for a push to everyone.
    pub(super) uid: Option<u64>,
    pub(super) host: usize,
    pub(super) incarnation: Incarnation,
    /// The sender on that host, and its count.
    pub(super) sender: usize,
    pub(super) number: u64,
    /// The bytes of its command.
    pub(super) length: usize,
    pub(super) began: u64,
    /// The peers whose rows the pushing node knew.
    pub(super) synced: BTreeSet<Incarnation>,
    /// By the node that answered.
    pub(super) fates: BTreeMap<Incarnation, Fate>,
    /// By the node that it happened on.
    pub(super) entries: BTreeMap<Incarnation, Vec<usize>>,
}

#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) conns: Vec<Conn>,
    pub(super) pushes: Vec<Push>,
    /// The last number of each sender that entered each connection's outbox.
    pub(super) order: BTreeMap<(usize, Incarnation, usize, usize), u64>,
    /// Deadlines say nothing once a machine's clock stood still.
    pub(super) a_clock_stopped: bool,
    /// Twins may get in each other's way: a push is then refused, and `remaining` counts both.
    pub(super) has_twins: bool,
    /// The first promise that was broken.
    pub(super) broken: Option<String>,
}

impl Truth {
    pub(super) fn breaks(&mut self, promise: &str, detail: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(format!("{promise}: {}", detail()));
        }
    }

    /// Returns the connections of a uid that are certainly there: replied before, and not about to end.
    pub(super) fn present(&self, uid: u64, before: u64) -> impl Iterator<Item = &Conn> {
        let there = move |conn: &&Conn| {
            conn.uid == uid
                && conn.replied.is_some_and(|replied| replied <= before)
                && conn.leaving.is_none()
                && !conn.is_lost
        };
        self.conns.iter().filter(there)
    }

    /// A push entered an outbox.
    pub(super) fn entered(&mut self, now: u64, push: usize, conn: usize) {
        let (at, host) = (&mut self.pushes[push], self.conns[conn].incarnation);
        at.entries.entry(host).or_default().push(conn);
        let at = &self.pushes[push];
        let fate = at.fates.get(&host).copied();
        let key = (at.host, at.incarnation, at.sender, conn);
        let before = self.order.insert(key, at.number);
        let (began, number, is_to_uid) = (at.began, at.number, at.uid.is_some());
        let entries = at.entries.values().flatten().filter(|&&it| it == conn || is_to_uid).count();
        if let Some(fate) = fate.filter(|&fate| fate != Fate::Unknown) {
            self.breaks("a known fail never enters", || format!("push {push} entered {conn} after {fate:?}"));
        }
        if now > began + SECOND && !self.a_clock_stopped {
            self.breaks("never late", || format!("push {push} entered after {} us", now - began));
        }
        if before.is_some_and(|before| before >= number) {
            self.breaks("order", || format!("push {push}, number {number} after {before:?} in {conn}"));
        }
        if entries > 1 {
            self.breaks("at most once", || format!("push {push}"));
        }
        self.check_newest(push, conn);
    }

    /// The newest login that the pushing node confirmed gets it.
    fn check_newest(&mut self, push: usize, conn: usize) {
        let (push_at, to) = (&self.pushes[push], &self.conns[conn]);
        let Some(uid) = push_at.uid.filter(|_| !self.has_twins) else { return };
        let knows = |other: &&Conn| {
            other.incarnation == push_at.incarnation
                || other.confirmed_by.contains(&push_at.incarnation) && push_at.synced.contains(&other.incarnation)
        };
        let newer = self.present(uid, push_at.began).filter(knows).find(|other| other.stamp > to.stamp);
        if let Some(newer) = newer {
            let detail = format!("push {push} {push_at:?} to {to:?}, newer {newer:?}");
            self.breaks("the newest gets it", || detail);
        }
    }

    /// A node answered.
    pub(super) fn answered(&mut self, push: usize, host: Incarnation, fate: Fate) {
        let at = &mut self.pushes[push];
        let before = at.fates.insert(host, fate);
        let entered = at.entries.get(&host).map_or(0, Vec::len);
        if let Some(before) = before {
            self.breaks("one answer", || format!("push {push}: {before:?}, then {fate:?}"));
        }
        let is_known_fail = !matches!(fate, Fate::Ok | Fate::Unknown);
        if is_known_fail && entered > 0 {
            self.breaks("a known fail never entered", || format!("push {push}: {fate:?}"));
        }
        let is_to_uid = self.pushes[push].uid.is_some();
        if fate == Fate::Ok && entered == 0 && is_to_uid {
            self.breaks("ok means an outbox", || format!("push {push}"));
        }
    }

    /// Of connections that end at once, exactly one is the last. Checked for uids of which everything was confirmed.
    pub(super) fn check_departures(&mut self) {
        if self.has_twins {
            return;
        }
        let uids = self.conns.iter().map(|conn| conn.uid).collect::<BTreeSet<_>>();
        let mut broken = None;
        for uid in uids {
            let all = self.conns.iter().filter(|conn| conn.uid == uid).collect::<Vec<_>>();
            if all.iter().any(|conn| !conn.is_certain || conn.is_lost) {
                continue;
            }
            for one in &all {
                let (Some(stamp), Some(told)) = (one.departed, &one.told) else { continue };
                if all.iter().any(|other| !told.live.contains(&other.incarnation)) {
                    continue;
                }
                let others = || all.iter().filter(|other| !std::ptr::eq(**other, *one));
                let is_there = |other: &&&Conn| other.stamp < stamp && other.departed.is_none_or(|end| end > stamp);
                let there = others().filter(|other| is_there(other)).count();
                let came = others().filter(|it| it.stamp > stamp && it.login_began < told.at).count();
                if told.remaining == 0 && there > 0 {
                    if super::replayed() != 0 {
                        all.iter().for_each(|it| println!("{it:?}"));
                    }
                    broken = Some(format!("uid {uid}: 0 remaining at {stamp:?}, but {there} were there"));
                }
                if told.remaining > 0 && there == 0 && came == 0 {
                    broken = Some(format!("uid {uid}: {} remaining at {stamp:?}, but none was there", told.remaining));
                }
            }
        }
        if let Some(broken) = broken {
            self.breaks("exactly one sees 0 remaining", || broken);
        }
    }
}
