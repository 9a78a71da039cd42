//! Makes room when all outboxes together hold too much: closes the connections with the most queued bytes, and no
//! others.

use std::cmp::Reverse;

use tokio::task::yield_now;
use tracing::{debug, warn};

use crate::base::message::Message;
use crate::base::metrics::{METRICS, Overflow};
use crate::hub::outbox::{Budget, Outbox, Refused, cost};
use crate::hub::registry::{PART, Registry, Several};

/// Queues a message for one connection, and first makes room for it if necessary.
///
/// # Errors
/// See [`Outbox::push`].
pub async fn queue(registry: &Registry, outbox: &Outbox, message: Message) -> Result<(), Refused> {
    match outbox.push(message) {
        Err(Refused::OverBudget(message)) => {
            Box::pin(relieve(registry, outbox.budget(), cost(&message))).await;
            counted(outbox.push(message))
        }
        pushed => pushed,
    }
}

/// Counts a message for which there was no room.
pub(super) fn counted(pushed: Result<(), Refused>) -> Result<(), Refused> {
    if matches!(pushed, Err(Refused::OverBudget(_))) {
        METRICS.messages_refused.increment(Overflow::OverBudget);
    }
    pushed
}

/// Makes room for `bytes` and a reserve. First, all outboxes give back bytes that they drew in advance. If that is not
/// enough, the connections with the most queued bytes are closed, one after the other. Does nothing while there is
/// room, or if room was made a moment ago.
pub(super) async fn relieve(registry: &Registry, budget: &Budget, bytes: usize) {
    if !budget.needs_relief(bytes) {
        return;
    }
    let (mut walk, mut part, mut all) = (registry.walk(Several::Everyone), Vec::new(), Vec::new());
    while walk.next(&mut part) {
        let queued = part.drain(..).filter_map(|peer| Some((peer.outbox.trim().ok()?, peer)));
        all.extend(queued.filter(|(bytes, _)| *bytes > 0));
        yield_now().await;
    }
    all.sort_unstable_by_key(|(queued_bytes, _)| Reverse(*queued_bytes));
    let mut closed = 0;
    for (queued_bytes, peer) in all {
        if !budget.lacks(bytes) {
            break;
        }
        debug!(connection = peer.id.0, waiting = queued_bytes, "closed to make room in the outboxes");
        peer.outbox.relieve();
        closed += 1;
        if closed % PART == 0 {
            yield_now().await;
        }
    }
    if closed > 0 {
        warn!(
            closed,
            "the outboxes were full (outbox.total_bytes); the connections with the most queued bytes were closed (4905)"
        );
    }
}
