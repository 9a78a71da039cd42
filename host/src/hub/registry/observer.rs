//! Who learns of each login and departure: the cluster, which tells the other gateways.

use std::fmt;

use tokio::sync::oneshot;

use super::tables::UidConnections;

/// The connections of one uid on this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The stamp of the newest login.
    pub newest: u64,
    /// The number of connections, at least 1.
    pub count: u32,
}

impl Row {
    pub(super) fn of(connections: &UidConnections) -> Option<Self> {
        let newest = connections.iter().next_back()?.login_number;
        Some(Self { newest, count: u32::try_from(connections.len()).unwrap_or(u32::MAX) })
    }
}

/// Learns of each login and departure under the lock of the uid's shard, so that what it says is as true as the
/// registry. It must not wait, and must not use the registry.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Returns a stamp for a login or departure: larger than all before it.
    fn stamp(&self) -> u64;

    /// Notes a login. The result says when all other gateways know of it.
    fn login(&self, uid: &str, before: Option<Row>, after: Row) -> oneshot::Receiver<()>;

    /// Notes a departure. The result is the number of connections that the uid has left on all gateways.
    fn departure(&self, uid: &str, before: Row, after: Option<Row>) -> oneshot::Receiver<u32>;
}
