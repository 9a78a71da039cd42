//! Tests of which connections a message reaches, how it is charged, and which connections are closed to make room.

use std::net::{Ipv4Addr, SocketAddr};

use bytestring::ByteString;

use super::*;
use crate::base::message::Cause;
use crate::base::message::ConnectionId;
use crate::config::DuplicateLogin;
use crate::hub::cluster::Target;
use crate::hub::cluster::clock::Stamp;
use crate::hub::command::{Closing, Membership};
use crate::hub::outbox::{Budget, Outbox};

struct Hub {
    registry: Registry,
    budget: Arc<Budget>,
}

impl Hub {
    fn new(budget: usize, connections: u64) -> (Self, Vec<Arc<Peer>>) {
        let hub = Self {
            registry: Registry::new(DuplicateLogin::Newest),
            budget: Arc::new(Budget::new(budget, connections as usize)),
        };
        let peers = (1..=connections).map(|id| hub.login(id)).collect();
        (hub, peers)
    }

    fn login(&self, id: u64) -> Arc<Peer> {
        let outbox = Arc::new(Outbox::new(4 << 20, self.budget.clone()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 4711));
        self.registry.register(ConnectionId(id), format!("u{id}").into(), outbox, address).unwrap().peer
    }

    async fn deliver(&self, to: Recipient, message: Message) -> bool {
        all_reached(&self.registry, vec![deliver(to, message)]).await
    }
}

/// Applies commands. Returns `true` if every delivery reached a connection.
async fn all_reached(registry: &Registry, commands: Vec<Command>) -> bool {
    let mut all = true;
    _ = apply_commands(registry, commands, |_, outcome| all &= outcome.reached > 0).await;
    all
}

fn deliver(to: Recipient, message: Message) -> Command {
    Command::Deliver(Delivery { to, message, otherwise: None })
}

fn text(length: usize) -> Message {
    Message::Text("x".repeat(length).into())
}

fn uid(id: u64) -> Recipient {
    Recipient::Uid(format!("u{id}").into())
}

fn queued_bytes(peer: &Peer) -> usize {
    peer.outbox.queued_bytes().unwrap()
}

#[tokio::test]
async fn everyone_gets_a_message_that_is_charged_once() {
    let (hub, peers) = Hub::new(4 << 20, 1000);
    for _ in 0..2 {
        assert!(hub.deliver(Recipient::Everyone, text(500_000)).await);
    }
    assert!(peers.iter().all(|peer| queued_bytes(peer) > 1_000_000));
    assert!((1_000_000..1_100_000).contains(&hub.budget.used()), "{}", hub.budget.used());
    drop((peers, hub.registry));
    assert_eq!(hub.budget.used(), 0);
}

#[tokio::test]
async fn each_delivery_says_what_became_of_it() {
    let (hub, peers) = Hub::new(16 << 20, 4);
    let group: ByteString = "g".into();
    peers.iter().for_each(|peer| hub.registry.join(peer, &group).unwrap());
    // Its outbox, which is not empty, has no room for a second message of this size.
    peers[1].outbox.push(text(4_000_000)).unwrap();
    peers[2].outbox.close(crate::base::message::CloseReason::new(3000, ""), Cause::Plugin);
    let to = [uid(1), uid(2), uid(3), uid(9), Recipient::Connection(ConnectionId(4)), Recipient::Group(group)];
    let message = text(1_000_000);
    let mut outcomes = Vec::new();
    let commands = to.into_iter().map(|to| deliver(to, message.clone())).collect();
    _ = apply_commands(&hub.registry, commands, |_, outcome| outcomes.push(outcome)).await;
    let outcome = |reached, full| Outcome { reached, full, ..Outcome::OFFLINE };
    let offline = outcome(0, 0);
    assert_eq!(outcomes, [outcome(1, 0), outcome(0, 1), offline.clone(), offline, outcome(1, 0), outcome(2, 0)]);
    let mut refused = Vec::new();
    let too_large = vec![deliver(uid(1), text(20 << 20)), deliver(Recipient::Everyone, text(20 << 20))];
    let small = Hub::new(1 << 20, 3).0;
    _ = apply_commands(&small.registry, too_large, |_, outcome| refused.push(outcome.over_budget > 0)).await;
    assert_eq!(refused, [true, true]);
}

#[tokio::test]
async fn others_of_a_group_are_all_but_the_own_connection() {
    let (hub, peers) = Hub::new(1 << 20, 300);
    let group: ByteString = "g".into();
    peers.iter().for_each(|peer| hub.registry.join(peer, &group).unwrap());
    let own = &peers[7];
    apply(&hub.registry, own, vec![Action::Command(deliver(Recipient::GroupOthers(group.clone()), text(1)))]).await;
    assert!(peers.iter().all(|peer| (queued_bytes(peer) > 0) == (peer.id != own.id)));
    let close = |who| Closing { who, reason: crate::base::message::CloseReason::new(3000, "") };
    apply(&hub.registry, own, vec![Action::Command(Command::Close(close(Recipient::GroupOthers(group))))]).await;
    assert!(peers.iter().all(|peer| peer.outbox.is_open() == (peer.id == own.id)));
}

#[tokio::test]
async fn the_packet_itself_is_charged_once_however_many_commands_carry_it() {
    let (hub, peers) = Hub::new(1 << 20, 100);
    let packet = text(100_000);
    let commands = (1..=100).map(|id| deliver(uid(id), packet.clone())).collect();
    assert!(all_reached(&hub.registry, commands).await);
    assert!(peers.iter().all(|peer| queued_bytes(peer) > 100_000));
    assert!(hub.budget.used() < 110_000, "{}", hub.budget.used());
    // Payloads that plugins make are charged once for each connection.
    let commands = (1..=4).map(|id| deliver(uid(id), text(100_000))).collect();
    assert!(all_reached(&hub.registry, commands).await);
    assert!(hub.budget.used() > 480_000, "{}", hub.budget.used());
}

#[tokio::test]
async fn whoever_has_most_waiting_is_closed_and_no_bystander() {
    let (hub, peers) = Hub::new(4 << 20, 10);
    assert!(hub.deliver(uid(1), text(2_500_000)).await);
    assert!(hub.deliver(uid(2), text(1_000_000)).await);
    assert!(hub.deliver(uid(3), text(10_000)).await);
    assert!(hub.deliver(uid(3), text(900_000)).await, "there is room for a bystander's message");
    assert_eq!(peers[0].outbox.queued_bytes().unwrap_err().reason.code, 4905);
    assert!(peers[1..].iter().all(|peer| peer.outbox.is_open()));
    // A connection that needs too much by itself is closed itself.
    assert!(hub.deliver(uid(3), text(2_000_000)).await);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!hub.deliver(uid(3), text(500_000)).await);
    let open: Vec<_> = peers.iter().filter(|peer| peer.outbox.is_open()).map(|peer| peer.id.0).collect();
    assert_eq!(open, [2, 4, 5, 6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn a_message_to_everyone_finds_room_too() {
    let (hub, peers) = Hub::new(4 << 20, 10);
    assert!(hub.deliver(uid(1), text(3_000_000)).await);
    assert!(hub.deliver(Recipient::Everyone, text(2_000_000)).await);
    assert!(!peers[0].outbox.is_open());
    assert!(peers[1..].iter().all(|peer| queued_bytes(peer) > 2_000_000));
}

/// Delivering to many connections yields, so that other tasks run meanwhile.
#[tokio::test]
async fn others_have_their_turn_while_a_message_goes_to_many() {
    let (hub, _peers) = Hub::new(1 << 30, 2000);
    let (broadcast, mut turns) = (hub.deliver(Recipient::Everyone, text(1)), 0);
    tokio::pin!(broadcast);
    let done = std::future::poll_fn(|cx| {
        turns += 1;
        broadcast.as_mut().poll(cx)
    });
    assert!(done.await);
    assert!(turns >= 2000 / PART, "{turns}");
}

/// A waker that uses the registry as soon as it is woken: it must not wait for a lock of the task that wakes it.
struct Curious(Registry);

impl std::task::Wake for Curious {
    fn wake(self: Arc<Self>) {
        assert!(self.0.is_member(ConnectionId(1), "g"));
        assert_eq!(self.0.connection_count("u1"), 1);
        assert!(self.0.connection(ConnectionId(1)).is_some());
    }
}

#[tokio::test]
async fn nobody_is_woken_under_a_lock_of_the_registry() {
    for to in [Recipient::Everyone, Recipient::Group("g".into()), uid(1), Recipient::Connection(ConnectionId(1))] {
        let reason = crate::base::message::CloseReason::new(3000, "");
        let close = Command::Close(Closing { who: to.clone(), reason });
        for command in [deliver(to.clone(), text(1)), close] {
            let (hub, peers) = Hub::new(1 << 20, 3);
            peers.iter().for_each(|peer| hub.registry.join(peer, &"g".into()).unwrap());
            let curious = Arc::new(Curious(hub.registry));
            for peer in &peers {
                assert_eq!(peer.outbox.register_waker(&curious.clone().into()), Ok(false));
            }
            assert!(all_reached(&curious.0, vec![command]).await);
        }
    }
}

#[tokio::test]
async fn one_delivery_that_reaches_nobody_answers_false_although_others_got_theirs() {
    let (hub, peers) = Hub::new(1 << 20, 2);
    hub.registry.join(&peers[0], &"g".into()).unwrap();
    for nobody in [uid(9), Recipient::Connection(ConnectionId(9)), Recipient::Group("empty".into())] {
        for reached in [uid(1), Recipient::Connection(ConnectionId(1)), Recipient::Group("g".into())] {
            for commands in [[&nobody, &reached], [&reached, &nobody]] {
                let commands = commands.map(|to| deliver(to.clone(), text(1)));
                let before = queued_bytes(&peers[0]);
                assert!(!all_reached(&hub.registry, commands.clone().into()).await, "{commands:?}");
                assert!(queued_bytes(&peers[0]) > before, "{commands:?}");
            }
            assert!(hub.deliver(reached, text(1)).await);
        }
    }
    // One of two recipients of the same message is enough.
    peers[1].outbox.close(crate::base::message::CloseReason::new(3000, ""), Cause::Plugin);
    assert!(hub.deliver(Recipient::Everyone, text(1)).await);
    assert!(!hub.deliver(uid(2), text(1)).await);
}

#[tokio::test]
async fn the_last_state_is_remembered_also_among_very_many_actions() {
    let remember = |state: &'static str| Action::Remember(Bytes::from_static(state.as_bytes()));
    let (hub, peers) = Hub::new(1 << 20, 1);
    for replies in [0, 3, 2 * PART] {
        let replies = || std::iter::repeat_n(Action::Reply(text(1)), replies);
        let states = [remember("first")].into_iter().chain(replies()).chain([remember("last")]).chain(replies());
        let effects = apply(&hub.registry, &peers[0], states.collect()).await;
        assert_eq!(effects, SessionEffects { remember: Some("last".into()), authenticate: false });
        let effects = apply(&hub.registry, &peers[0], replies().chain([Action::Authenticate]).collect()).await;
        assert_eq!(effects, SessionEffects { remember: None, authenticate: true });
        let effects = apply(&hub.registry, &peers[0], vec![remember("")]).await;
        assert_eq!(effects.remember, Some(Bytes::new()), "an empty state replaces another one");
    }
}

/// Takes the texts from a peer's outbox.
fn taken(peer: &Peer) -> Vec<String> {
    let mut taken = Vec::new();
    peer.outbox.drain(|message| {
        taken.push(str::from_utf8(message.as_bytes()).unwrap().to_owned());
        std::ops::ControlFlow::Continue(())
    });
    taken
}

#[tokio::test]
async fn only_a_sender_whose_message_reaches_nobody_gets_the_other_message_instead() {
    let (hub, peers) = Hub::new(1 << 20, 2);
    let nobodies = [uid(9), Recipient::Connection(ConnectionId(9)), Recipient::Group("g".into())];
    let message = |text: &'static str| Message::Text(ByteString::from_static(text));
    for to in nobodies.into_iter().chain([Recipient::GroupOthers("alone".into())]) {
        hub.registry.join(&peers[0], &"alone".into()).unwrap();
        let otherwise = Some(message("nobody"));
        let actions = [to, uid(2)].map(|to| {
            Action::Command(Command::Deliver(Delivery { to, message: message("hi"), otherwise: otherwise.clone() }))
        });
        let around = [Action::Reply(message("before"))].into_iter().chain(actions);
        apply(&hub.registry, &peers[0], around.chain([Action::Reply(message("after"))]).collect()).await;
        assert_eq!(taken(&peers[0]), ["before", "nobody", "after"]);
        assert_eq!(taken(&peers[1]), ["hi"]);
    }
}

#[tokio::test]
async fn commands_are_carried_out_in_their_order() {
    let (hub, peers) = Hub::new(1 << 20, 1);
    let group = || Recipient::Group("g".into());
    let membership = || Membership { who: uid(1), group: "g".into() };
    let message = |text: &'static str| Message::Text(ByteString::from_static(text));
    let commands = vec![
        deliver(group(), message("too early")),
        Command::Join(membership()),
        deliver(group(), message("as a member")),
        Command::Leave(membership()),
        deliver(group(), message("too late")),
        Command::Close(Closing { who: uid(1), reason: crate::base::message::CloseReason::new(3000, "") }),
        deliver(uid(1), message("after the close")),
    ];
    assert!(!all_reached(&hub.registry, commands).await);
    assert_eq!(taken(&peers[0]), ["as a member"]);
    assert_eq!(peers[0].outbox.queued_bytes().unwrap_err().reason.code, 3000);
}

#[tokio::test]
async fn after_its_deadline_a_command_of_another_gateway_reaches_nobody_else() {
    let (hub, peers) = Hub::new(64 << 20, 3);
    let past = Deadline(std::time::Duration::ZERO);
    let future = Deadline(std::time::Duration::MAX);
    let everyone = || deliver(Recipient::Everyone, text(10));
    let late = elsewhere::apply_for_others(&hub.registry, everyone(), Target::All, past).await;
    assert_eq!(late, Outcome::failed(Elsewhere::Expired));
    let in_time = elsewhere::apply_for_others(&hub.registry, everyone(), Target::All, future).await;
    assert_eq!(in_time, Outcome { reached: 3, ..Outcome::OFFLINE });
    assert!(peers.iter().all(|peer| peer.outbox.is_open()));
}

#[tokio::test]
async fn a_login_that_closes_has_moved() {
    let (hub, peers) = Hub::new(64 << 20, 2);
    let future = Deadline(std::time::Duration::MAX);
    let push = async |seen| {
        let command = deliver(uid(1), text(10));
        elsewhere::apply_for_others(&hub.registry, command, Target::Uid(Stamp(seen)), future).await
    };
    assert_eq!(push(peers[0].stamp()).await.reached, 1);
    assert_eq!(push(peers[0].stamp() + 1).await, Outcome::failed(Elsewhere::Moved), "it never was here");
    peers[0].outbox.close(crate::base::message::CloseReason::new(3000, ""), Cause::Plugin);
    assert_eq!(push(peers[0].stamp()).await, Outcome::failed(Elsewhere::Moved), "a newer one may be elsewhere");
}
