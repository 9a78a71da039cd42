//! The simulator. Each seed is one story of a cluster: some nodes, a storm of logins, departures and pushes, faults,
//! then quiet. `HOTGATE_SEED=7 cargo test simulator -- --nocapture` replays seed 7, `HOTGATE_SEEDS=100000` runs more,
//! and `HOTGATE_GO_ON=1` lists all seeds that break a promise.

mod faults;
mod host;
mod net;
mod rng;
mod traffic;
mod truth;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use self::net::{MS, SECOND};
use self::rng::Rng;
use self::world::{Event, Setup, World, secret};
use super::id::NodeId;

/// The seeds of a usual run.
const SEEDS: u64 = 2_000;

/// Returns the seed to replay, 0 if there is none.
fn replayed() -> u64 {
    static SEED: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| number("HOTGATE_SEED").unwrap_or(0));
    *SEED
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0xabcd);
    let is_parted = rng.one_in(10);
    let uids = if is_parted { 40 } else { rng.between(2, 12) * [1, 4][rng.pick(2)] };
    Setup {
        seed,
        hosts: rng.between(2, 5) as usize,
        servers: if is_parted { 2 } else { rng.between(1, 2) as usize },
        uids,
        keys: if rng.one_in(8) && !is_parted { uids / 2 + 1 } else { uids },
        is_calm: rng.one_in(8) && !is_parted,
        is_parted,
        storm: if is_parted { 7 * SECOND } else { rng.between(SECOND / 2, 6 * SECOND) },
        pace: if is_parted { 3 * MS } else { rng.between(MS, 12 * MS) },
    }
}

/// Plays one story. Returns the promise that was broken, if any.
fn play(seed: u64) -> Result<(), String> {
    play_with(seed, 0)
}

fn play_with(seed: u64, corrupts: u64) -> Result<(), String> {
    let mut world = World::new(setup(seed));
    if seed == replayed() {
        println!("{:?}", world.setup);
    }
    for host in 0..world.setup.hosts {
        let id = Some(NodeId::from_low_bits(host as u64));
        world.add(id, secret());
        let wait = world.rng.below(SECOND / 2);
        world.run_until(world.now + wait);
    }
    world.run_until(8 * SECOND);
    if let Some(closed) = (0..world.hosts.len()).find(|&host| !world.hosts[host].is_open) {
        return Err(format!("host {closed} did not open within 8 s"));
    }
    world.storm_until = world.now + world.setup.storm;
    world.at(world.now, Event::Traffic);
    world.net.corrupts = corrupts;
    if !world.setup.is_calm {
        world.plan(world.now);
    }
    // The last fault heals within 6 s.
    let end = world.storm_until + 6 * SECOND + 500 * MS;
    world.run_until(end);
    world.run_until(end + 18 * SECOND);
    world.check_quiet();
    world.truth.check_departures();
    world.truth.broken.take().map_or(Ok(()), Err)
}

impl World {
    /// When all faults have healed, all nodes know all others and their rows.
    fn check_quiet(&mut self) {
        if self.truth.broken.is_some() {
            return;
        }
        let mut wrong = Vec::new();
        let open = (0..self.hosts.len()).filter(|&host| self.hosts[host].is_alive && !self.hosts[host].is_foreign);
        let open = open.collect::<Vec<_>>();
        for &at in &open {
            let host = &self.hosts[at];
            if open.iter().any(|&other| other != at && self.hosts[other].node.id() == host.node.id()) {
                wrong.push(format!("host {at} shares its id"));
            }
            if !host.is_open {
                wrong.push(format!("host {at} is not open"));
            }
            let mut peers = host.node.peers().map(|peer| (peer.incarnation, peer.is_reachable)).collect::<Vec<_>>();
            let mut others = open
                .iter()
                .filter(|&&other| other != at)
                .map(|&other| (self.hosts[other].incarnation, true))
                .collect::<Vec<_>>();
            peers.sort();
            others.sort();
            if peers != others {
                wrong.push(format!("host {at} knows {peers:?} instead of {others:?}"));
            }
            if !host.node.may_say_offline(host.now(self.now)) {
                wrong.push(format!("host {at} never says offline again"));
            }
            if host.node.unanswered() > 0 || !host.logins.is_empty() || !host.departures.is_empty() {
                wrong.push(format!("host {at} still waits for answers"));
            }
            for uid in 0..self.setup.uids {
                let key = self.key(uid);
                let same = |conn: &&usize| self.key(self.truth.conns[**conn].uid) == key;
                let others = open.iter().filter(|&&other| other != at);
                let real = others.map(|&other| self.hosts[other].registry.iter().filter(same).count()).sum::<usize>();
                let known = host.node.rows().connections(key) as usize;
                if known != real {
                    wrong.push(format!("host {at} knows {known} connections of uid {uid} instead of {real}"));
                }
            }
            if host.node.rows().size().0 as u64 > self.setup.keys {
                wrong.push(format!("host {at} has rows of dead nodes"));
            }
        }
        let lives = |incarnation| open.iter().any(|&host| self.hosts[host].incarnation == incarnation);
        let mut silent = self.truth.pushes.iter().filter(|push| push.uid.is_some() && push.fates.is_empty());
        if let Some(push) = silent.find(|push| lives(push.incarnation)) {
            wrong.push(format!("{push:?} was never answered"));
        }
        // Each pair of nodes takes few snapshots, whatever happens.
        let limit = (self.hosts.len().pow(2) as u64) * (self.now / SECOND) * 5;
        if self.net.snapshot_parts > limit {
            wrong.push(format!("{} parts of snapshots", self.net.snapshot_parts));
        }
        if self.setup.is_calm && self.suspects > 0 {
            wrong.push(format!("{} suspects in a calm cluster", self.suspects));
        }
        if let Some(wrong) = wrong.into_iter().next() {
            self.truth.breaks("quiet", || wrong);
        }
    }
}

#[test]
fn simulator_keeps_every_promise() {
    let seed = replayed();
    if seed != 0 {
        play(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        return;
    }
    let (seeds, next) = (number("HOTGATE_SEEDS").unwrap_or(SEEDS), AtomicU64::new(1));
    let goes_on = number("HOTGATE_GO_ON").is_some();
    let play_some = || {
        let mut broken = Vec::new();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed > seeds || !goes_on && !broken.is_empty() {
                return broken;
            }
            broken.extend(play(seed).err().map(|promise| (seed, promise)));
        }
    };
    let mut broken = thread::scope(|scope| {
        let threads = [scope.spawn(play_some), scope.spawn(play_some)];
        threads.into_iter().flat_map(|thread| thread.join().expect("a story that panics nowhere")).collect::<Vec<_>>()
    });
    broken.sort();
    for (seed, promise) in &broken {
        println!("seed {seed}: {}", promise.chars().take(400).collect::<String>());
    }
    if let Some((seed, promise)) = broken.first() {
        panic!("seed {seed}: {promise}\nreplay: HOTGATE_SEED={seed} cargo test simulator -- --nocapture");
    }
}

#[test]
fn changed_bytes_are_no_panic() {
    // They may well break promises: frames have no checksum, since TCP and TLS have.
    (1..=60).for_each(|seed| _ = play_with(seed, 5));
}
