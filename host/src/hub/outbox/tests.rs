//! Tests of what an outbox owes to its own limit, and to the budget.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Wake;

use super::queued::{OVERHEAD, PLACE};
use super::*;

fn text(length: usize) -> Message {
    Message::Text("x".repeat(length).into())
}

fn outbox(max_bytes: usize, budget: usize) -> (Outbox, Arc<Budget>) {
    let budget = Arc::new(Budget::new(budget, 1));
    (Outbox::new(max_bytes, budget.clone()), budget)
}

#[test]
fn one_message_always_fits_an_empty_outbox() {
    let (outbox, _) = outbox(1000, 1 << 20);
    assert_eq!(outbox.push(text(5000)), Ok(()));
    assert_eq!(outbox.push(text(1)), Err(Refused::Full));
    assert_eq!(outbox.queued_bytes().unwrap_err().reason.code, 4905);
    assert!(!outbox.is_open());
    assert_eq!(outbox.push(text(1)), Err(Refused::Closed));
}

#[test]
fn an_outbox_is_filled_to_its_last_byte() {
    let (outbox, _) = outbox(1000, 1 << 20);
    outbox.push(text(500 - OVERHEAD)).unwrap();
    outbox.push(text(500 - OVERHEAD)).unwrap();
    assert_eq!(outbox.queued_bytes(), Ok(1000));
    assert_eq!(outbox.push(text(0)), Err(Refused::Full));
}

#[test]
fn only_what_exceeds_the_own_share_is_drawn_and_then_some_more() {
    let (outbox, budget) = outbox(1 << 20, 1 << 20);
    outbox.push(text(budget.share() - OVERHEAD)).unwrap();
    assert_eq!(budget.used(), 0);
    outbox.push(text(0)).unwrap();
    assert_eq!(budget.used(), OVERHEAD + AMPLE.0);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn the_task_is_woken_once_for_what_it_cannot_know_yet() {
    let (outbox, _) = outbox(1 << 20, 1 << 20);
    let task = Arc::new(Woken::default());
    let (waker, woken) = (Waker::from(task.clone()), || task.0.swap(0, Relaxed));
    assert_eq!(outbox.register_waker(&waker), Ok(false));
    outbox.push(text(5)).unwrap();
    outbox.push(text(5)).unwrap();
    assert_eq!(woken(), 1);
    assert_eq!(outbox.register_waker(&waker), Ok(true), "the task must send these itself");
    assert_eq!(outbox.register_waker(Waker::noop()), Ok(true));
    assert_eq!(outbox.register_waker(&waker), Ok(true), "the last one counts");
    outbox.push(text(5)).unwrap();
    assert_eq!(woken(), 0);
    outbox.notify();
    assert_eq!(woken(), 1);
    outbox.register_waker(&waker).unwrap();
    assert_eq!(outbox.begin_turn(), Ok(3 * (5 + OVERHEAD)));
    outbox.notify();
    assert_eq!(woken(), 0, "it has a turn");
    outbox.register_waker(&waker).unwrap();
    assert!(outbox.close(CloseReason::new(4900, "silent"), Cause::Silent));
    assert_eq!(woken(), 1);
    assert_eq!(outbox.begin_turn().unwrap_err().cause, Cause::Silent);
    assert!(outbox.register_waker(&waker).is_err());
}

#[test]
fn messages_leave_in_order_and_free_their_bytes() {
    let (outbox, budget) = outbox(1 << 20, 1 << 20);
    for length in [1, 70_000, 3] {
        outbox.push(text(length)).unwrap();
    }
    assert!(budget.used() >= 70_000 - budget.share());
    let mut lengths = Vec::new();
    outbox.drain(|message| {
        lengths.push(message.len());
        ControlFlow::Continue(())
    });
    assert_eq!(lengths, [1, 70_000, 3]);
    assert!(budget.used() > 0, "they have not been written yet");
    outbox.drain(|_| ControlFlow::Continue(()));
    assert_eq!(budget.used(), 0);
    assert_eq!(outbox.queued_bytes(), Ok(0));
}

#[test]
fn what_is_on_its_way_is_still_owed() {
    let (outbox, budget) = outbox(100_000, 1 << 20);
    outbox.push(text(90_000)).unwrap();
    outbox.drain(|_| ControlFlow::Continue(()));
    outbox.push(text(1)).unwrap();
    assert_eq!(outbox.push(text(90_000)), Err(Refused::Full));
    assert!(budget.used() > 0);
    drop(outbox);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_small_budget_is_used_to_the_last_byte() {
    let (outbox, budget) = outbox(1 << 20, 32 << 10);
    outbox.push(text(5000)).unwrap();
    outbox.push(text(20_000)).unwrap();
    assert!(is_over_budget(outbox.push(text(20_000))));
    let rest = (32 << 10) - (25_000 + 2 * OVERHEAD);
    outbox.push(text(rest - OVERHEAD)).unwrap();
    assert!(is_over_budget(outbox.push(text(0))));
    assert!(outbox.is_open(), "an outbox does not decide which connection makes room");
    drop(outbox);
    assert_eq!(budget.used(), 0);
}

#[test]
fn the_budget_bounds_all_outboxes_together_with_the_share_of_each() {
    let budget = Arc::new(Budget::new(1 << 20, 2));
    let [first, second] = [(); 2].map(|()| Outbox::new(4 << 20, budget.clone()));
    first.push(text(1_000_000)).unwrap();
    let Err(Refused::OverBudget(message)) = second.push(text(500_000)) else { panic!("both are above the budget") };
    assert_eq!(message.len(), 500_000);
    second.push(text(budget.share() - OVERHEAD)).unwrap();
    // A closed connection gives its queued bytes back at once.
    first.relieve();
    assert_eq!(first.queued_bytes().unwrap_err().reason.code, 4905);
    second.push(message).unwrap();
    drop(second);
    assert_eq!(budget.used(), 0);
}

/// With 4 KiB each, a million connections would exceed the total.
#[test]
fn shares_take_at_most_half() {
    for (total, connections, share) in [(1 << 30, 60_000, 4096), (1 << 30, 1_000_000, 536), (1 << 10, 1_000_000, 0)] {
        let budget = Budget::new(total, connections);
        assert_eq!(budget.share(), share);
        assert!(budget.draw(total - share * connections) && !budget.draw(1), "{total} {connections}");
    }
}

#[test]
fn more_connections_have_smaller_shares_and_the_total_stays() {
    let budget = Budget::new(1 << 20, 100);
    assert_eq!(budget.share(), 4096);
    budget.divide(1000);
    assert_eq!(budget.share(), 524);
    assert!(budget.draw((1 << 20) - 524_000) && !budget.draw(1));
    // There may still be a thousand of them.
    budget.divide(10);
    assert_eq!(budget.share(), 524);
    assert!(!budget.draw(1));
}

#[test]
fn a_shared_payload_is_drawn_once_for_as_long_as_anybody_holds_it() {
    let budget = Arc::new(Budget::new(1 << 20, 100));
    let outboxes: Vec<_> = (0..100).map(|_| Outbox::new(4 << 20, budget.clone())).collect();
    let message = Shared::new(text(300_000), &budget).unwrap();
    assert!(outboxes.iter().all(|outbox| outbox.push_shared(&message).is_ok()));
    assert_eq!(budget.used(), 300_000 + OVERHEAD);
    drop(message);
    // The whole message counts for the limit of each outbox, but only its place in the queue for the budget.
    assert_eq!(outboxes[0].queued_bytes(), Ok(300_000 + OVERHEAD));
    let mut kept = Vec::new();
    for outbox in outboxes {
        outbox.drain(|message| {
            kept.push(message);
            ControlFlow::Continue(())
        });
    }
    assert_eq!(budget.used(), 300_000 + OVERHEAD, "it is being written");
    kept.truncate(1);
    assert_eq!(budget.used(), 300_000 + OVERHEAD);
    assert_eq!(kept.pop(), Some(text(300_000)));
    assert_eq!(budget.used(), 0);
    let Err(refused) = Shared::new(text(2 << 20), &budget) else { panic!("it is above the budget") };
    assert_eq!(refused.len(), 2 << 20);
}

#[test]
fn copies_of_shared_payloads_that_the_peer_does_not_take_are_drawn() {
    let (outbox, budget) = outbox(4 << 20, 1 << 20);
    let message = Shared::new(text(2000), &budget).unwrap();
    let payload = budget.used();
    (0..10).for_each(|_| outbox.push_shared(&message).unwrap());
    assert_eq!(budget.used(), payload);
    let mut left = 8;
    outbox.drain(|_| {
        left -= 1;
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(budget.used(), payload, "usually the client takes a batch at once");
    outbox.keep_batch(15_000);
    let stuck = payload + 15_000 + 10 * PLACE - budget.share();
    assert_eq!(budget.used(), stuck);
    outbox.keep_batch(9_000);
    assert_eq!(budget.used(), stuck, "the batch is counted once");
    for _ in 0..2 {
        outbox.drain(|_| ControlFlow::Continue(()));
    }
    assert_eq!((budget.used(), outbox.queued_bytes()), (payload, Ok(0)));
}

#[test]
fn copies_are_drawn_beside_what_is_drawn_already() {
    let (outbox, budget) = outbox(4 << 20, 1 << 20);
    let message = Shared::new(text(2000), &budget).unwrap();
    let payload = budget.used();
    outbox.push(text(20_000)).unwrap();
    outbox.push_shared(&message).unwrap();
    outbox.drain(|_| ControlFlow::Continue(()));
    let drawn = budget.used() - payload;
    // The advance covers the first copy.
    outbox.keep_batch(100);
    assert_eq!(budget.used(), payload + drawn);
    outbox.drain(|_| ControlFlow::Continue(()));
    (0..20).for_each(|_| outbox.push_shared(&message).unwrap());
    outbox.push(text(20_000)).unwrap();
    outbox.drain(|_| ControlFlow::Continue(()));
    outbox.keep_batch(30_000);
    assert_eq!(budget.used(), payload + 30_000 + 20_000 + OVERHEAD + 20 * PLACE - budget.share());
}

#[test]
fn what_is_drawn_is_given_back_in_part() {
    let (outbox, budget) = outbox(4 << 20, 4 << 20);
    (0..1000).for_each(|_| outbox.push(text(2000)).unwrap());
    let most = budget.used();
    assert!((2_000_000..2_300_000).contains(&most), "{most}");
    assert!(
        outbox.trim() == Ok(1000 * (2000 + OVERHEAD)) && budget.used() == 1000 * (2000 + OVERHEAD) - budget.share()
    );
    for left in (0..1000).rev() {
        outbox.drain(|_| ControlFlow::Break(()));
        let owed = outbox.queued_bytes().unwrap();
        assert!(owed >= left * 2000);
        assert!(budget.used() <= owed + 2 * AMPLE.1.min(owed) + 2 * AMPLE.0, "{} are drawn for {owed}", budget.used());
    }
}

#[test]
fn a_queue_gives_back_its_places() {
    let places = |outbox: &Outbox| {
        let queue = outbox.queue.lock();
        (queue.messages.len(), queue.messages.capacity())
    };
    // Returns an outbox from which the client has taken all but `left` messages.
    let taken = |messages: usize, left: usize| {
        let (outbox, _) = outbox(1 << 30, 1 << 30);
        (0..messages).for_each(|_| outbox.push(text(0)).unwrap());
        let mut more = messages - left;
        outbox.drain(|_| {
            more -= 1;
            if more > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outbox
    };
    for left in [1, 100] {
        let (queued, places) = places(&taken(100_000, left));
        assert!(queued == left && (2 * left..=MANY_PLACES.max(4 * left)).contains(&places), "{places}");
    }
    assert_eq!(places(&taken(MANY_PLACES, 1)), (1, MANY_PLACES), "few places are kept");

    // One message at a time: the queue moves only a few times.
    let outbox = taken(100_000, 99_999);
    let mut moves = 0;
    for _ in 1..99_999 {
        let (_, before) = places(&outbox);
        outbox.drain(|_| ControlFlow::Break(()));
        let (queued, now) = places(&outbox);
        if now != before {
            moves += 1;
            assert!(now >= 2 * queued, "{now} places for {queued} messages");
        }
    }
    assert!(moves <= 20 && places(&outbox).1 <= MANY_PLACES, "{moves} moves");
}

#[test]
fn room_is_made_when_there_is_little_but_what_ends_anyway_counts_as_room() {
    let budget = Arc::new(Budget::new(1 << 20, 1));
    let outbox = Outbox::new(4 << 20, budget.clone());
    assert!(!budget.needs_relief(500_000));
    outbox.push(text(1_000_000)).unwrap();
    assert!(!budget.needs_relief(2 << 20), "the budget can never hold so much");
    assert!(budget.lacks(500_000) && budget.needs_relief(500_000));
    assert!(!budget.needs_relief(500_000), "not again at once");
    // The message is being written, and its bytes come back only when the connection has ended.
    outbox.drain(|_| ControlFlow::Break(()));
    outbox.relieve();
    assert!(budget.used() > 900_000 && !budget.lacks(500_000));
    drop(outbox);
    assert_eq!(budget.used(), 0);
    budget.draw_anyway(1 << 20);
    assert!(budget.lacks(0), "no bytes are expected back any more");
}

fn is_over_budget(pushed: Result<(), Refused>) -> bool {
    matches!(pushed, Err(Refused::OverBudget(_)))
}

#[test]
fn the_first_reason_to_close_stands_and_what_is_queued_still_leaves() {
    let (outbox, _) = outbox(1000, 1000);
    outbox.push(text(5)).unwrap();
    assert!(outbox.close(CloseReason::new(4900, "silent"), Cause::Silent));
    assert!(!outbox.close(CloseReason::new(4907, "kicked"), Cause::Operator));
    assert_eq!(outbox.queued_bytes().unwrap_err().cause, Cause::Silent);
    let mut left = 0;
    outbox.drain(|_| {
        left += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(left, 1);
}

#[test]
fn a_cleared_outbox_owes_only_what_is_being_written() {
    let (outbox, budget) = outbox(1 << 20, 1 << 20);
    outbox.push(text(5)).unwrap();
    outbox.push(text(20_000)).unwrap();
    outbox.drain(|_| ControlFlow::Break(()));
    outbox.clear();
    assert_eq!((outbox.queued_bytes(), budget.used()), (Ok(5 + OVERHEAD), 0));
    outbox.drain(|_| panic!("nothing is queued any more"));
}

#[test]
fn an_outbox_without_room_in_its_share_draws_the_place_of_a_shared_message() {
    let (outbox, budget) = outbox(1 << 20, 1 << 20);
    let message = Shared::new(text(2000), &budget).unwrap();
    let payload = budget.used();
    outbox.push(text(budget.share() - OVERHEAD)).unwrap();
    outbox.push_shared(&message).unwrap();
    assert_eq!(budget.used(), payload + PLACE + AMPLE.0);
}

#[test]
fn two_advances_may_be_left_over_but_not_a_byte_more() {
    assert_eq!([8, 16, 1000].map(|kib| ample(kib << 10)), [1 << 10, 2 << 10, 64 << 10]);
    for (written, advances) in [(AMPLE.0, 2), (AMPLE.0 + 1, 1)] {
        let (outbox, budget) = outbox(1 << 20, 1 << 20);
        outbox.push(text(written - OVERHEAD)).unwrap();
        outbox.push(text(5000)).unwrap();
        (0..2).for_each(|_| outbox.drain(|_| ControlFlow::Break(())));
        assert_eq!(budget.used(), 5000 + OVERHEAD - budget.share() + advances * AMPLE.0);
    }
}

#[test]
fn a_sixteenth_of_the_budget_is_headroom() {
    let budget = Budget::new(1 << 20, 1);
    budget.draw_anyway(budget.limit() / 16 * 15 - 1000);
    assert!(!budget.lacks(1000) && budget.lacks(1001));
    assert!(!budget.needs_relief(budget.limit() + 1) && budget.needs_relief(budget.limit()));
}

#[test]
fn the_cost_of_places_covers_a_queue_that_has_just_grown() {
    let (outbox, _) = outbox(1 << 20, 1 << 20);
    (0..=MANY_PLACES).for_each(|_| outbox.push(text(0)).unwrap());
    let queue = outbox.queue.lock();
    let (memory, cost) = (queue.messages.capacity() * size_of::<Queued>(), queue.messages.len() * PLACE);
    assert!((memory..memory + 2 * PLACE).contains(&cost), "{memory} bytes for {cost}");
}

#[test]
fn a_shared_message_knows_the_one_that_it_was_made_from() {
    let budget = Arc::new(Budget::new(1 << 20, 1));
    let payload = bytes::Bytes::from("hello".to_owned());
    let message = Message::Text(ByteString::try_from(payload.clone()).unwrap());
    let shared = Shared::new(message.clone(), &budget).unwrap();
    assert!(shared.is(&message));
    for other in [Message::Text("hello".into()), Message::Binary(payload.clone()), Message::Binary(payload.slice(..4))]
    {
        assert!(!shared.is(&other), "{other:?}");
    }
}
