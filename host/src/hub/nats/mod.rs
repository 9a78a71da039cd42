//! Carries frames between gateways over NATS. It knows nothing of what they mean.
//!
//! | file | what |
//! | --- | --- |
//! | `config` | the settings, and the files that they name |
//! | `subject` | the subjects |
//! | `client` | one connection; the only file that says `async_nats` |
//! | `probe` | the check that begins each connection |
//! | `state` | the connection in use, and what is on its way |
//! | `keeper` | the task that keeps a connection |
//! | `events` | what the owner is told |
//! | `version` | servers with known faults |
//! | `dropped` | counts dropped frames |
//! | `error` | what can go wrong |
//!
//! What a frame can expect:
//!
//! - It is sent at most once. If [`Bus::publish`] fails, it is never sent.
//! - It is never sent after the connection has ended: the next connection begins with empty queues.
//! - A server that freezes may send it when it thaws, since it is in the server's socket by then. These are at most
//!   [`BusConfig::unconfirmed`] bytes, published within one ping interval after the server fell silent. Receivers check
//!   deadlines.
//! - The order of frames for one subject is the order of the calls, while neither side connects again.

mod client;
mod config;
mod dropped;
mod error;
mod events;
mod keeper;
mod probe;
mod state;
mod subject;
#[cfg(test)]
mod tests;
mod version;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use self::client::ServerDescription;
pub use self::config::{BusConfig, Login, TlsFiles};
pub use self::error::{BusError, PublishError, Right};
pub use self::events::{Event, Events};
use self::keeper::Keeper;
use self::state::Shared;
use self::subject::Subjects;
pub use self::subject::{Channel, MAX_FRAME, Target};
pub use self::version::is_outdated;
use crate::hub::cluster::id::Incarnation;

/// The most notices that wait for the owner.
const NOTICES: usize = 1024;

/// A connection to NATS that is opened again when it is lost. Dropping it ends it.
#[derive(Debug)]
pub struct Bus {
    shared: Arc<Shared>,
    config: Arc<BusConfig>,
    keeper: JoinHandle<()>,
}

impl Bus {
    /// Connects to one of the servers. Tries again until `connect_timeout` is over, unless waiting would not help. The
    /// first event is [`Event::Connected`].
    ///
    /// # Errors
    /// If a setting or a file cannot be used, or if no server can be used in time.
    pub async fn connect(config: BusConfig, incarnation: Incarnation) -> Result<(Self, Events), BusError> {
        config.check()?;
        let config = Arc::new(config);
        let subjects = Subjects::new(&config.prefix, incarnation);
        let shared = Arc::new(Shared::new(subjects, config.ping_interval, config.unconfirmed));
        let link = Box::pin(keeper::connect(&config, &shared)).await?;
        let (sender, notices) = mpsc::channel(NOTICES);
        let keeper = Keeper { config: config.clone(), shared: shared.clone(), notices: sender.clone() };
        let (own, connected) = keeper.begin(link);
        // There is room: it is the first.
        _ = sender.try_send(connected);
        let events = Events::new(shared.clone(), notices);
        let keeper = tokio::spawn(Box::pin(keeper.run(own)));
        Ok((Self { shared, config, keeper }, events))
    }

    /// Publishes a frame. Does not wait. Returns its number: 1 for the first, across connections. With a token, the
    /// server's notice that nobody listens comes as [`Event::NoResponder`], and an answer as [`Event::Answer`].
    ///
    /// # Errors
    /// If the frame was not sent. Then it never will be.
    pub fn publish(&self, target: Target, token: Option<u64>, frame: impl Into<Bytes>) -> Result<u64, PublishError> {
        let frame = frame.into();
        match frame.len() {
            0 => Err(PublishError::Empty),
            1..=MAX_FRAME => self.shared.publish(target, token, frame),
            _ => Err(PublishError::TooLarge),
        }
    }

    /// Returns the number of the last frame that is not under way any more: the server has processed it, or its
    /// connection has ended. It grows with each round trip while frames are published.
    pub fn confirmed(&self) -> u64 {
        self.shared.confirmed()
    }

    /// Waits until the server has processed all that was published before this call. The future can outlive the bus. It
    /// ends within 3 ping intervals, with the connection if need be.
    ///
    /// # Errors
    /// If the connection ends first. Then nobody knows which of the last frames were sent.
    pub fn flushed(&self) -> impl Future<Output = Result<(), PublishError>> + Send + use<> {
        self.shared.flushed()
    }

    /// Returns `true` if the server has not processed so much of what was published that it is better to wait with
    /// [`flushed`](Self::flushed).
    pub fn is_much_unconfirmed(&self) -> bool {
        self.shared.is_much_unconfirmed()
    }

    /// Waits until all is sent, at most 3 ping intervals, and ends the connection.
    pub async fn close(mut self) {
        // Without an answer in time, the rest is lost with the connection.
        _ = timeout(self.config.ping_interval * 3, self.flushed()).await;
        self.keeper.abort();
        _ = timeout(self.config.ping_interval, &mut self.keeper).await;
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
