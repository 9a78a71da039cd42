//! The drain: the gateway closes all connections without haste, before it ends or until an operator cancels it. This
//! file holds what is wanted and how far the drain is; `gateway` carries it out.

use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::config::DrainConfig;

/// How the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// After a drain.
    Drained,
    /// Everybody is asked to close at once. For a developer's terminal.
    Quick,
}

/// What is wanted. A later one outranks an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// The gateway serves.
    Serve,
    /// It drains. This can be cancelled.
    Drain,
    /// It drains and ends.
    End,
    /// It ends without a drain, or hurries with the one that runs.
    EndQuickly,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainStage {
    /// There is no drain.
    Serving,
    /// The gateway is not ready, but still serves everybody, new connections too.
    Notice,
    /// Upgrades are refused, and connections are asked to close.
    Closing,
    /// All connections have closed. Upgrades are refused.
    Drained,
}

/// What operators see of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DrainStatus {
    /// How far it is.
    pub stage: DrainStage,
    /// The connections that have still to close; 0 without a drain.
    pub remaining: usize,
    /// True if the gateway ends after the drain.
    pub ending: bool,
}

/// The gateway ends, so its drain cannot be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the gateway is ending: this drain cannot be cancelled")]
pub struct TooLate;

/// The number of a drain. Each drain has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainNumber(u64);

#[derive(Debug, Clone, Copy)]
struct State {
    wanted: Wanted,
    stage: DrainStage,
    number: u64,
}

/// What is wanted, and how far it is.
#[derive(Debug)]
pub struct Drain {
    /// Its settings.
    pub config: DrainConfig,
    state: watch::Sender<State>,
    /// The tasks of all connections that can be upgraded.
    connections: TaskTracker,
}

impl Drain {
    /// Creates this for a gateway that serves. `connections` are the tasks of the connections that a drain closes.
    pub fn new(config: DrainConfig, connections: TaskTracker) -> Self {
        let state = State { wanted: Wanted::Serve, stage: DrainStage::Serving, number: 0 };
        Self { config, state: watch::Sender::new(state), connections }
    }

    /// Starts a drain, or joins the one that runs.
    pub fn start(&self) -> DrainStatus {
        self.want(Wanted::Drain);
        self.status()
    }

    /// Cancels the drain, if there is one. From now on, the gateway is ready and accepts connections again.
    ///
    /// # Errors
    /// [`TooLate`]
    pub fn cancel(&self) -> Result<DrainStatus, TooLate> {
        let mut outcome = Ok(());
        self.state.send_modify(|state| match state.wanted {
            Wanted::Serve | Wanted::Drain => (state.wanted, state.stage) = (Wanted::Serve, DrainStage::Serving),
            Wanted::End | Wanted::EndQuickly => outcome = Err(TooLate),
        });
        outcome.map(|()| self.status())
    }

    /// Makes the gateway end. A drain that runs goes on, or hurries.
    pub fn end(&self, ending: Ending) {
        self.want(match ending {
            Ending::Drained => Wanted::End,
            Ending::Quick => Wanted::EndQuickly,
        });
    }

    fn want(&self, wanted: Wanted) {
        self.state.send_if_modified(|state| {
            let is_new = state.wanted < wanted;
            if state.wanted == Wanted::Serve {
                state.number += 1;
                state.stage = DrainStage::Notice;
            }
            state.wanted = state.wanted.max(wanted);
            is_new
        });
    }

    /// Returns how far the drain is.
    pub fn status(&self) -> DrainStatus {
        let State { wanted, stage, .. } = *self.state.borrow();
        let remaining = if stage == DrainStage::Serving { 0 } else { self.connections.len() };
        DrainStatus { stage, remaining, ending: wanted >= Wanted::End }
    }

    /// Returns `true` if there is no drain.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().stage == DrainStage::Serving
    }

    /// Returns `true` if upgrades are refused. A connection whose upgrade was not refused before this became true is
    /// among those that the drain closes.
    pub fn refuses_upgrades(&self) -> bool {
        self.state.borrow().stage >= DrainStage::Closing
    }

    /// Waits for a drain.
    pub async fn started(&self) -> DrainNumber {
        self.until(|state| state.wanted > Wanted::Serve).await;
        DrainNumber(self.state.borrow().number)
    }

    /// Waits until this drain is cancelled.
    pub async fn cancelled(&self, number: DrainNumber) {
        // Perhaps another one was started right after that.
        self.until(|state| state.wanted == Wanted::Serve || state.number != number.0).await;
    }

    /// Waits until the gateway is to end.
    pub async fn ending(&self) {
        self.until(|state| state.wanted >= Wanted::End).await;
    }

    /// Waits until upgrades are refused.
    pub async fn closing(&self) {
        self.until(|state| state.stage >= DrainStage::Closing).await;
    }

    /// Waits until the gateway is to end quickly.
    pub async fn hurried(&self) {
        self.until(|state| state.wanted == Wanted::EndQuickly).await;
    }

    /// Returns `true` if the gateway is to end.
    pub fn is_ending(&self) -> bool {
        self.state.borrow().wanted >= Wanted::End
    }

    /// Records how far this drain is, unless it was cancelled.
    pub fn enter(&self, number: DrainNumber, stage: DrainStage) {
        self.state.send_if_modified(|state| {
            let goes_on = state.wanted > Wanted::Serve && state.number == number.0;
            if goes_on {
                state.stage = stage;
            }
            goes_on
        });
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        // The sender lives as long as this call, so this does not fail.
        let _ = self.state.subscribe().wait_for(reached).await;
    }

    /// After how many seconds a client whose upgrade is refused may try again: a random number, so that not all of them
    /// come back at the same moment.
    pub fn retry_after(&self) -> u64 {
        let longest = self.config.retry.max(Duration::from_secs(1)).as_millis().div_ceil(1000);
        1 + getrandom::u64().unwrap_or_default() % u64::try_from(longest).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain() -> Drain {
        Drain::new(DrainConfig::default(), TaskTracker::new())
    }

    #[tokio::test]
    async fn a_later_wish_outranks_an_earlier_one_and_a_cancelled_drain_is_over() {
        let drain = drain();
        assert!(drain.is_ready() && !drain.refuses_upgrades());
        assert_eq!(drain.start().stage, DrainStage::Notice);
        let first = drain.started().await;
        drain.enter(first, DrainStage::Closing);
        assert!(!drain.is_ready() && drain.refuses_upgrades());
        assert_eq!(drain.start().stage, DrainStage::Closing, "it joins the drain that runs");
        assert_eq!(drain.cancel().unwrap().stage, DrainStage::Serving);
        drain.enter(first, DrainStage::Drained);
        assert!(drain.is_ready());
        // The task that carries out the drain may learn of all this late.
        drain.start();
        drain.cancelled(first).await;
        drain.enter(first, DrainStage::Drained);
        assert_eq!(drain.status().stage, DrainStage::Notice);

        drain.end(Ending::Quick);
        drain.end(Ending::Drained);
        drain.hurried().await;
        assert_eq!(drain.cancel(), Err(TooLate));
        assert!(drain.status().ending && !drain.is_ready());
    }

    #[test]
    fn a_refused_client_waits_for_at_least_a_second() {
        let mut drain = drain();
        let mut seen: Vec<_> = (0..1000).map(|_| drain.retry_after()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        drain.config.retry = Duration::ZERO;
        assert_eq!(drain.retry_after(), 1);
    }
}
