//! What happens when all outboxes together hold too much: whoever has most waiting is closed, and nobody else.

use std::cmp::Reverse;

use tokio::task::yield_now;
use tracing::{debug, warn};

use crate::base::message::Message;
use crate::base::metrics::{METRICS, Overflow};
use crate::hub::outbox::{Budget, Outbox, Refused, cost};
use crate::hub::registry::{PART, Registry, Several};

/// Queues a message for one connection; if there is no room for it, room is made.
///
/// # Errors
/// As [`Outbox::push`].
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

/// Makes room for `bytes` and some to spare: all give back what they have drawn in advance, and if that is not enough,
/// those who have most waiting are closed, one after the other. Does nothing while there is room, or a moment after it was
/// made.
pub(super) async fn relieve(registry: &Registry, budget: &Budget, bytes: usize) {
    if !budget.needs_relief(bytes) {
        return;
    }
    let (mut walk, mut part, mut all) = (registry.walk(Several::Everyone), Vec::new(), Vec::new());
    while walk.next(&mut part) {
        let waiting = part.drain(..).filter_map(|peer| Some((peer.outbox.trim().ok()?, peer)));
        all.extend(waiting.filter(|(waiting, _)| *waiting > 0));
        yield_now().await;
    }
    all.sort_unstable_by_key(|(waiting, _)| Reverse(*waiting));
    let mut closed = 0;
    for (waiting, peer) in all {
        if !budget.lacks(bytes) {
            break;
        }
        debug!(connection = peer.id.0, waiting, "closed to make room in the outboxes");
        peer.outbox.relieve();
        closed += 1;
        if closed % PART == 0 {
            yield_now().await;
        }
    }
    if closed > 0 {
        warn!(closed, "the outboxes were full (outbox.total_bytes); whoever had most waiting has been closed (4905)");
    }
}
