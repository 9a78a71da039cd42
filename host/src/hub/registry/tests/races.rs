//! Tests with several threads that use the registry at the same time.

use std::sync::{Barrier, OnceLock};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use super::*;

/// A login begins before its uid is blocked, and comes to the shard after the uid's connections were closed.
#[test]
fn a_login_that_waits_for_the_shard_is_refused_if_its_uid_is_blocked_meanwhile() {
    let registry = Registry::new(DuplicateLogin::All);
    std::thread::scope(|scope| {
        let shard = registry.tables.uids.lock("u");
        let login = scope.spawn(|| registry.register(ConnectionId(1), "u".into(), outbox(), ADDRESS));
        std::thread::sleep(Duration::from_millis(50));
        registry.blocks.insert("u".into(), Duration::from_secs(60)).unwrap();
        drop(shard);
        assert_eq!(login.join().unwrap().err(), Some(RegisterError::Blocked));
    });
}

/// One thread logs in while another one blocks the uid and closes its connections.
#[test]
fn a_login_while_its_uid_is_blocked_is_refused_or_closed() {
    const ROUNDS: u64 = 20_000;
    let registry = Registry::new(DuplicateLogin::All);
    let (barrier, budget) = (Barrier::new(2), Arc::new(Budget::new(1 << 20, 1)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                barrier.wait();
                registry.blocks.insert("u".into(), Duration::from_secs(60)).unwrap();
                for peer in registry.of_uid("u") {
                    peer.outbox.close(CloseReason::new(4907, "blocked"), Cause::Operator);
                }
                barrier.wait();
            }
        });
        for round in 1..=ROUNDS {
            let outbox = Arc::new(Outbox::new(1 << 20, budget.clone()));
            barrier.wait();
            // Another moment in each round.
            (0..round % 512).for_each(|_| std::hint::spin_loop());
            let registered = registry.register(ConnectionId(round), "u".into(), outbox, ADDRESS);
            barrier.wait();
            match registered {
                Ok(Registration { peer, .. }) => {
                    assert!(!peer.outbox.is_open(), "neither refused nor closed");
                    registry.deregister(&peer, Cause::Operator);
                }
                Err(error) => assert_eq!(error, RegisterError::Blocked),
            }
            registry.blocks.lift("u");
        }
    });
}

/// Several threads log in and out. Whoever follows the events knows at each moment how many connections a uid has.
#[test]
fn the_events_of_a_uid_are_in_order() {
    const THREADS: u64 = 3;
    const LOGINS: u64 = 1000;
    const ROUNDS: u64 = 5;
    let registry = Registry::new(DuplicateLogin::All);
    let budget = Arc::new(Budget::new(1 << 20, 1));
    let come_and_go = || {
        for _ in 0..LOGINS {
            let outbox = Arc::new(Outbox::new(1 << 20, budget.clone()));
            let peer = registry.register(ConnectionId::next(), "u".into(), outbox, ADDRESS).unwrap().peer;
            registry.deregister(&peer, Cause::Client);
        }
    };
    // All events of a round are kept, so that a slow follower misses none.
    let follow = async |round: u64| {
        let (mut seen, mut open) = (round * 2 * THREADS * LOGINS, 0);
        while seen < (round + 1) * 2 * THREADS * LOGINS {
            registry.events.newer_than(seen).await;
            let page = registry.events.since(seen, 100);
            assert!(page.missed == 0 && (1..=100).contains(&page.events.len()));
            for event in page.events {
                seen += 1;
                assert_eq!(event.number, seen);
                match event.presence {
                    Presence::Login { first } => {
                        assert_eq!(first, open == 0, "{event:?}");
                        open += 1;
                    }
                    Presence::Departure { cause, last } => {
                        open -= 1;
                        assert_eq!((cause, last), (Cause::Client, open == 0), "{event:?}");
                    }
                }
            }
        }
        assert_eq!(open, 0);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            (0..THREADS).for_each(|_| _ = scope.spawn(come_and_go));
            let in_time = async { tokio::time::timeout(Duration::from_secs(60), follow(round)).await };
            runtime.block_on(in_time).expect("an event or a wake-up is lost");
        });
    }
}

/// If it were not, another thread could record the next event of the uid first. That happens too rarely for a test.
#[test]
fn the_shard_is_locked_while_an_event_is_recorded() {
    let registry = Registry::new(DuplicateLogin::All);
    let is_locked = || registry.tables.uids.shards.iter().any(|shard| shard.try_lock().is_none());
    let records_under_lock = |record: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            let held = registry.events.hold();
            let recorder = scope.spawn(record);
            let limit = Instant::now() + Duration::from_secs(10);
            while !is_locked() && !recorder.is_finished() && Instant::now() < limit {}
            std::thread::sleep(Duration::from_millis(50));
            assert!(is_locked());
            drop(held);
        });
        assert!(!is_locked());
    };
    let peer = OnceLock::new();
    let register = || registry.register(ConnectionId(1), "u".into(), outbox(), ADDRESS).unwrap().peer;
    records_under_lock(&|| _ = peer.set(register()));
    records_under_lock(&|| _ = registry.deregister(peer.get().unwrap(), Cause::Client));
    assert_eq!(registry.events.newest(), 2);
}

/// A waker that uses the registry as soon as it is woken: it must not wait for a lock of the thread that wakes it.
struct Curious(Registry);

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        self.0.connection_count("u");
        assert!(self.0.events.newest() > 0);
    }
}

#[test]
fn no_follower_of_events_is_woken_under_a_lock() {
    let curious = Arc::new(Curious(Registry::new(DuplicateLogin::All)));
    let (registry, waker) = (&curious.0, curious.clone().into());
    let poll = |after| {
        let mut waiting = Box::pin(registry.events.newer_than(after));
        let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
        (polled, waiting)
    };
    let (Poll::Pending, _login) = poll(0) else { panic!("nothing has happened") };
    let peer = registry.register(ConnectionId(1), "u".into(), outbox(), ADDRESS).unwrap().peer;
    assert_eq!(poll(0).0, Poll::Ready(()));
    let (Poll::Pending, _departure) = poll(1) else { panic!("nothing more has happened") };
    registry.deregister(&peer, Cause::Client);
    assert_eq!(poll(1).0, Poll::Ready(()));
}
