//! The regular work that all slots need.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::plugin::slot::Slot;

/// How often every slot is visited.
const ROUND: Duration = Duration::from_millis(500);

/// How long an instance may be idle before it is dropped.
const LONGEST_IDLE: Duration = Duration::from_secs(10);

/// Takes care of all slots while it is polled: flushes logs, drops idle instances, retries failed writes of ledgers,
/// and evaluates the generations.
pub(crate) async fn look_after(slots: Vec<Arc<Slot>>) {
    loop {
        sleep(ROUND).await;
        for slot in &slots {
            for generation in slot.state(|state| state.rollout.generations()) {
                generation.flush_log();
                generation.shrink(LONGEST_IDLE);
            }
            slot.ledger.retry();
            slot.evaluate();
        }
    }
}
