//! Tests that compare the registry with a model of a few lines: after any steps in any order, both answer the same.

mod races;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::hub::outbox::Budget;

const POLICIES: [DuplicateLogin; 4] =
    [DuplicateLogin::Newest, DuplicateLogin::All, DuplicateLogin::CloseOlder, DuplicateLogin::Reject];

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4711);

#[derive(Debug, Clone)]
enum Step {
    Register {
        uid: u8,
    },
    /// The connection is told to close, for example by the heartbeat, but its task has not deregistered it yet.
    Close {
        pick: usize,
    },
    Deregister {
        pick: usize,
    },
    Join {
        pick: usize,
        group: u8,
    },
    Leave {
        pick: usize,
        group: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4u8).prop_map(|uid| Step::Register { uid }),
        1 => any::<usize>().prop_map(|pick| Step::Close { pick }),
        2 => any::<usize>().prop_map(|pick| Step::Deregister { pick }),
        2 => (any::<usize>(), 0..3u8).prop_map(|(pick, group)| Step::Join { pick, group }),
        1 => (any::<usize>(), 0..3u8).prop_map(|(pick, group)| Step::Leave { pick, group }),
    ]
}

/// One connection of the model. The model's list is in order of login.
struct Modelled {
    peer: Arc<Peer>,
    uid: String,
    groups: HashSet<String>,
}

impl Modelled {
    fn open(&self) -> bool {
        self.peer.outbox.is_open()
    }
}

fn picked<T>(list: &[T], pick: usize) -> Option<usize> {
    (!list.is_empty()).then(|| pick % list.len())
}

/// Returns the ids that a walk visits, in order.
fn met(registry: &Registry, through: Several<'_>) -> Vec<ConnectionId> {
    let (mut walk, mut part, mut met) = (registry.walk(through), Vec::new(), Vec::new());
    while walk.next(&mut part) {
        assert!((1..=PART).contains(&part.len()));
        met.extend(part.iter().map(|peer| peer.id));
    }
    assert!(!walk.next(&mut part) && part.is_empty(), "a walk that has ended stays ended");
    met
}

fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(1 << 20, Arc::new(Budget::new(1 << 20, 1))))
}

proptest! {
    #[test]
    fn agrees_with_the_model(policy in 0..4usize, steps in prop::collection::vec(step(), 1..60)) {
        let policy = POLICIES[policy];
        let registry = Registry::new(policy);
        let mut model: Vec<Modelled> = Vec::new();
        let mut happened = Vec::new();

        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Register { uid } => {
                    let uid = format!("u{uid}");
                    let occupied = model.iter().any(|other| other.uid == uid && other.open());
                    let registered = registry.register(ConnectionId(number as u64 + 1), uid.clone().into(), outbox(), ADDRESS);
                    prop_assert_eq!(registered.is_err(), policy == DuplicateLogin::Reject && occupied);
                    if policy == DuplicateLogin::CloseOlder {
                        prop_assert!(model.iter().all(|other| other.uid != uid || !other.open()));
                    }
                    if let Ok(Registration { peer, .. }) = registered {
                        let first = model.iter().all(|other| other.uid != uid);
                        happened.push((peer.clone(), Presence::Login { first }));
                        model.push(Modelled { peer, uid, groups: HashSet::new() });
                    }
                }
                Step::Close { pick } => if let Some(at) = picked(&model, pick) {
                    model[at].peer.outbox.close(CloseReason::new(4900, "silent"), Cause::Silent);
                },
                Step::Deregister { pick } => if let Some(at) = picked(&model, pick) {
                    let gone = model.remove(at);
                    let removed = registry.deregister(&gone.peer, Cause::Slow);
                    let remaining = model.iter().filter(|other| other.uid == gone.uid).count();
                    let departure = Presence::Departure { cause: Cause::Slow, last: remaining == 0 };
                    happened.push((gone.peer.clone(), departure));
                    prop_assert!(registry.deregister(&gone.peer, Cause::Lost).groups.is_empty(), "it is gone already");
                    prop_assert_eq!(removed.remaining as usize, remaining);
                    let groups: HashSet<String> = removed.groups.iter().map(ToString::to_string).collect();
                    prop_assert_eq!(groups, gone.groups);
                    prop_assert!(registry.join(&gone.peer, &"g0".into()).is_ok(), "joining after the end has no effect");
                },
                Step::Join { pick, group } => if let Some(at) = picked(&model, pick) {
                    let group = format!("g{group}");
                    prop_assert!(registry.join(&model[at].peer, &group.clone().into()).is_ok());
                    model[at].groups.insert(group);
                },
                Step::Leave { pick, group } => if let Some(at) = picked(&model, pick) {
                    let group = format!("g{group}");
                    registry.leave(&model[at].peer, &group);
                    model[at].groups.remove(&group);
                },
            }

            for uid in (0..4).map(|uid| format!("u{uid}")) {
                let same: Vec<_> = model.iter().filter(|other| other.uid == uid).collect();
                prop_assert_eq!(registry.connection_count(&uid) as usize, same.len());
                let expected: Vec<_> = match policy {
                    DuplicateLogin::All => same.iter().map(|other| other.peer.id).collect(),
                    _ => same.iter().rev().find(|other| other.open()).map(|other| other.peer.id).into_iter().collect(),
                };
                let reached = match policy {
                    DuplicateLogin::All => met(&registry, Several::Uid(&uid)),
                    _ => registry.newest(&uid).iter().map(|peer| peer.id).collect(),
                };
                prop_assert_eq!(reached, expected);
            }
            for group in (0..3).map(|group| format!("g{group}")) {
                let inside: HashSet<_> =
                    model.iter().filter(|other| other.groups.contains(&group)).map(|other| other.peer.id).collect();
                let visited = met(&registry, Several::Group(&group));
                prop_assert_eq!(visited.len(), inside.len());
                prop_assert_eq!(&visited.into_iter().collect::<HashSet<_>>(), &inside);
                prop_assert_eq!(registry.count(Several::Group(&group)), inside.len());
                for other in &model {
                    prop_assert_eq!(registry.is_member(other.peer.id, &group), inside.contains(&other.peer.id));
                }
                let uids: HashSet<_> = model.iter().filter(|other| other.groups.contains(&group)).map(|other| &other.uid).collect();
                prop_assert_eq!(registry.uids_in_group(&group, usize::MAX, |_| true).len(), uids.len());
                prop_assert!(registry.uids_in_group(&group, 1, |_| true).len() <= 1);
            }
            let everyone: HashSet<_> = met(&registry, Several::Everyone).into_iter().collect();
            prop_assert_eq!(everyone.len(), model.len());
            prop_assert_eq!(registry.count(Several::Everyone), model.len());
        }
        let events = registry.events.since(0, usize::MAX).events;
        prop_assert_eq!(events.len(), happened.len());
        for (event, (peer, presence)) in events.iter().zip(&happened) {
            prop_assert_eq!((&event.uid, event.connection, &event.presence), (&peer.uid, peer.id, presence));
        }
    }
}

#[test]
fn a_connection_is_in_a_bounded_number_of_groups() {
    let registry = Registry::new(DuplicateLogin::Newest);
    let peer = registry.register(ConnectionId(1), "u".into(), outbox(), ADDRESS).unwrap().peer;
    for group in 0..MAX_GROUPS {
        assert!(registry.join(&peer, &group.to_string().into()).is_ok());
    }
    assert_eq!(registry.join(&peer, &"one more".into()), Err(TooManyGroups));
    assert!(registry.join(&peer, &"0".into()).is_ok(), "it is in that one already");
    assert_eq!(registry.deregister(&peer, Cause::Lost).groups.len(), MAX_GROUPS);
    assert!(registry.tables.groups.shards.iter().all(|shard| shard.lock().is_empty()), "no empty group is kept");
}

#[test]
fn a_blocked_uid_is_not_registered() {
    let registry = Registry::new(DuplicateLogin::Reject);
    registry.blocks.insert("u".into(), Duration::from_secs(60)).unwrap();
    let register = |id, uid: &'static str| registry.register(ConnectionId(id), uid.into(), outbox(), ADDRESS);
    assert_eq!(register(1, "u").err(), Some(RegisterError::Blocked));
    assert!(registry.tables.uids.shards.iter().all(|shard| shard.lock().is_empty()), "no empty uid is kept");
    assert!(register(2, "v").is_ok());
    assert_eq!(register(3, "v").err(), Some(RegisterError::Occupied));
    assert!(registry.blocks.lift("u") && register(4, "u").is_ok());
}

#[test]
fn pages_show_everybody_once_and_in_order() {
    let registry = Registry::new(DuplicateLogin::All);
    for id in (1..=100).rev() {
        registry.register(ConnectionId(id), format!("u{}", id % 7).into(), outbox(), ADDRESS).unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), ConnectionId(0));
    loop {
        let page = registry.page(after, 33);
        let Some(last) = page.last() else { break };
        after = last.id;
        seen.extend(page.iter().map(|peer| peer.id.0));
    }
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
    assert!(registry.page(ConnectionId(0), 0).is_empty());
    let ids: Vec<_> = registry.of_uid("u3").iter().map(|peer| peer.id.0 % 7).collect();
    assert_eq!(ids, [3; 14]);
    assert_eq!(registry.page(ConnectionId(99), 5)[0].address(), ADDRESS);
}

/// Walks through more connections than fit one part, while others come and go.
#[test]
fn a_walk_meets_once_whoever_stays_and_ends_although_others_come() {
    let registry = Registry::new(DuplicateLogin::All);
    let group: ByteString = "g".into();
    let login = |id: u64| {
        let peer = registry.register(ConnectionId(id), "u".into(), outbox(), ADDRESS).unwrap().peer;
        registry.join(&peer, &group).unwrap();
        peer
    };
    let mut newcomers = 10_000..;
    let there: Vec<_> = (1..=10 * PART as u64).map(login).collect();
    for through in [Several::Uid("u"), Several::Group("g"), Several::Everyone] {
        let (mut walk, mut part, mut met) = (registry.walk(through), Vec::new(), Vec::new());
        let mut goes = login(newcomers.next().unwrap());
        while walk.next(&mut part) {
            met.extend(part.iter().map(|peer| peer.id.0));
            let gone = std::mem::replace(&mut goes, login(newcomers.next().unwrap()));
            registry.deregister(&gone, Cause::Lost);
            // A connection that leaves the group and joins again is not visited twice.
            registry.leave(&part[0], &group);
            registry.join(&part[0], &group).unwrap();
        }
        registry.deregister(&goes, Cause::Lost);
        met.sort_unstable();
        assert_eq!(met, there.iter().map(|peer| peer.id.0).collect::<Vec<_>>(), "{through:?}");
    }
    assert_eq!(registry.uids_in_group("g", usize::MAX, |_| true), ["u"]);
}

/// Whoever closes the connections of a uid must find all that are registered before it looks.
#[test]
fn a_walk_through_a_uid_finds_whoever_registers_before_its_first_part() {
    let registry = Registry::new(DuplicateLogin::All);
    let (mut walk, mut part) = (registry.walk(Several::Uid("u")), Vec::new());
    registry.register(ConnectionId(1), "u".into(), outbox(), ADDRESS).unwrap();
    assert!(walk.next(&mut part) && part.len() == 1);
    registry.register(ConnectionId(2), "u".into(), outbox(), ADDRESS).unwrap();
    assert!(!walk.next(&mut part));
}
