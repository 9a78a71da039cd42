//! Explores with shuttle in which order threads may take the locks between the note of a login or departure and its
//! confirmation: those of the registry's shards, and that of the node. Each round is another order, in which two
//! gateways speak with each other. The first one has threads, as in the program: those of its clients, and that of the
//! exchange. The second one is a node without threads.
//!
//! `HOTGATE_SEED=7` explores other orders than usual, `HOTGATE_ROUNDS=100000` explores more of them. The message of a
//! failure tells how to repeat it.

mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config as Exploration, Runner, thread};

use self::world::{Login, MS, Record, UIDS, World};
use crate::base::message::{Cause, ConnectionId};
use crate::hub::cluster::clock::Stamp;
use crate::hub::outbox::{Budget, Outbox};
use crate::hub::registry::{Peer, Registry, Removed};

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4711);
/// The rounds of a usual run: some seconds.
const ROUNDS: usize = 1_000;

/// Takes the place of a client's task at the first gateway.
fn login_here(registry: &Registry, record: &Record, uid: &'static str) -> Arc<Peer> {
    let outbox = Arc::new(Outbox::new(1 << 10, Arc::new(Budget::new(1 << 10, 1))));
    let id = ConnectionId(record.moment() + 1);
    let registered = registry.register(id, uid.into(), outbox, ADDRESS).expect("nobody is refused");
    let stamp = Stamp(registered.peer.stamp());
    record.logins.lock().unwrap().push(Login { uid, id, stamp, announced: registered.announced, leaving: None });
    registered.peer
}

fn logout_here(registry: &Registry, record: &Record, peer: &Peer) {
    let moment = record.moment();
    for login in &mut *record.logins.lock().unwrap() {
        if login.id == peer.id {
            login.leaving = Some(moment);
        }
    }
    let Removed { remaining_anywhere, .. } = registry.deregister(peer, Cause::Client);
    record.departures.lock().unwrap().extend(remaining_anywhere);
}

/// Starts a thread for each client of the first gateway. The second gateway goes on until all have ended.
fn run(world: &mut World, clients: Vec<Box<dyn FnOnce() + Send>>, mut there: impl FnMut(&mut World)) {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = clients.len();
    let start = |client: Box<dyn FnOnce() + Send>| {
        let ended = ended.clone();
        thread::spawn(move || {
            client();
            ended.fetch_add(1, Relaxed);
        })
    };
    let threads: Vec<_> = clients.into_iter().map(start).collect();
    while ended.load(Relaxed) < count {
        there(world);
        world.turn(MS);
        thread::yield_now();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn explore(story: impl Fn() + Send + Sync + 'static) {
    let rounds = number("HOTGATE_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).unwrap());
    let mut exploration = Exploration::new();
    // Both gateways live on the stack of one thread.
    exploration.stack_size = 1 << 20;
    let scheduler = RandomScheduler::new_from_seed(number("HOTGATE_SEED").unwrap_or(1), rounds);
    Runner::new(scheduler, exploration).run(story);
}

/// Clients come and go on both gateways, and frames are lost, so that snapshots are taken.
#[test]
fn what_is_noted_between_two_locks_is_told_in_order() {
    explore(|| {
        let mut world = World::new();
        world.is_lossy = thread_rng().gen_bool(0.5);
        let client = |_| {
            let (registry, record) = (world.registry.clone(), world.record.clone());
            Box::new(move || {
                for _ in 0..3 {
                    let uid = UIDS[usize::from(thread_rng().gen_bool(0.3))];
                    let peer = login_here(&registry, &record, uid);
                    if thread_rng().gen_bool(0.6) {
                        thread::yield_now();
                        logout_here(&registry, &record, &peer);
                    }
                }
            }) as Box<dyn FnOnce() + Send>
        };
        let clients = (0..3).map(client).collect();
        run(&mut world, clients, |world| match thread_rng().gen_range(0..6) {
            0 | 1 => world.login_there(UIDS[0]),
            2 => world.logout_there(UIDS[0]),
            _ => {}
        });
        world.settle();
        world.check_order();
        world.check_confirmed();
        for mut departure in world.record.departures.lock().unwrap().drain(..) {
            departure.try_recv().expect("a departure that is confirmed");
        }
        assert!(world.record.logins.lock().unwrap().iter().all(|login| login.announced.is_none()));
    });
}

/// Of connections that end at once on both gateways, exactly one is the last.
#[test]
fn of_connections_that_end_at_once_one_is_the_last() {
    explore(|| {
        let mut world = World::new();
        let peers: Vec<_> = (0..3).map(|_| login_here(&world.registry, &world.record, UIDS[0])).collect();
        world.login_there(UIDS[0]);
        for _ in 0..20 {
            world.turn(25 * MS);
        }
        world.is_lossy = thread_rng().gen_bool(0.5);
        let client = |peer: Arc<Peer>| {
            let (registry, record) = (world.registry.clone(), world.record.clone());
            Box::new(move || logout_here(&registry, &record, &peer)) as Box<dyn FnOnce() + Send>
        };
        let clients = peers.into_iter().map(client).collect();
        run(&mut world, clients, |world| {
            if thread_rng().gen_bool(0.2) {
                world.logout_there(UIDS[0]);
            }
        });
        world.logout_there(UIDS[0]);
        world.settle();
        let here =
            world.record.departures.lock().unwrap().drain(..).map(|mut left| left.try_recv()).collect::<Vec<_>>();
        let mut left = world.left.clone();
        left.extend(here.into_iter().map(|left| left.expect("a departure that is confirmed")));
        assert_eq!(left.len(), 4);
        assert_eq!(left.iter().filter(|left| **left == 0).count(), 1, "{left:?}");
    });
}
