//! Counts logins, and logs logins and ends of connections as the settings want it (`log.uids`, `log.access`,
//! `log.decisions`).

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytestring::ByteString;
use tracing::field::{DisplayValue, display};
use tracing::{debug, info};

use super::context::Context;
use super::end::End;
use super::traffic::Totals;
use crate::base::message::ConnectionId;
use crate::base::metrics::{Denial, METRICS, Reason as _};
use crate::base::throttle::Throttle;
use crate::config::AccessLog;
use crate::plugin::{Digest, LogNames};
use crate::policy::Decider;

/// Denied logins that are logged: in a second, and at once. Strangers cause them as fast as they like.
const DENIALS_PER_SECOND: u32 = 10;
const DENIALS_AT_ONCE: u32 = 10;

/// Counts and logs a login that has succeeded, so long after the upgrade.
pub(super) fn accepted(
    context: &Context,
    ConnectionId(connection): ConnectionId,
    uid: &str,
    by: Option<&Decider>,
    took: Duration,
) {
    METRICS.logins.increment(by.map_or("", |by| &by.names.plugin));
    METRICS.login_seconds.observe(took);
    let (uids, decisions) = {
        let log = &context.live.load().log;
        (log.uids, log.decisions)
    };
    if !uids && !is_sampled(decisions) {
        return debug!(connection, "authenticated");
    }
    let uid = uids.then_some(uid);
    let (plugin, generation, digest, duration_us) = fields(by);
    info!(
        target: "decisions",
        connection, uid, outcome = "accept", plugin, generation, digest, duration_us, "authenticated"
    );
}

/// Counts and logs a login that has failed, unless the client left.
pub(super) fn denied(context: &Context, ConnectionId(connection): ConnectionId, end: &End, by: Option<&Decider>) {
    static LOGGED: LazyLock<Throttle> = LazyLock::new(|| Throttle::new(DENIALS_PER_SECOND, DENIALS_AT_ONCE));
    let Some(denial) = end.denial() else { return };
    METRICS.logins_denied.increment(denial);
    // The log says already which plugin has failed for this connection, and why.
    if denial == Denial::Failed || context.live.load().log.decisions == 0 {
        return;
    }
    let Some(unlogged) = LOGGED.admit(0) else { return };
    let (reason, code) = (denial.name(), end.code());
    let (plugin, generation, digest, duration_us) = fields(by);
    // Not the words of the close reason: a plugin has made them, and they may quote what the client sent.
    info!(
        target: "decisions",
        connection, outcome = "deny", reason, code, plugin, generation, digest, duration_us, unlogged, "login denied"
    );
}

type Fields<'a> = (Option<&'a str>, Option<u64>, Option<DisplayValue<Digest>>, Option<u64>);

/// Returns the fields of a line about the plugin that has decided.
fn fields(by: Option<&Decider>) -> Fields<'_> {
    let Some(Decider { names, took }) = by else { return Fields::default() };
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    (Some(&names.plugin), Some(names.generation), Some(display(names.digest)), Some(duration_us))
}

/// The uid of a session, and the generation that accepted it.
pub(super) type Known = (ByteString, Option<Arc<LogNames>>);

/// Logs that a connection has ended. `known` is there if it had a session.
pub(super) fn ended(
    context: &Context,
    ConnectionId(connection): ConnectionId,
    address: SocketAddr,
    end: &End,
    totals: &Totals,
    known: Option<&Known>,
) {
    let (access, uids) = {
        let log = &context.live.load().log;
        (log.access, log.uids)
    };
    let (cause, code) = (end.cause().name(), end.code());
    if access == AccessLog::Off {
        return debug!(connection, cause, code, "connection ended");
    }
    let uid = known.filter(|_| uids).map(|(uid, _)| &**uid);
    let names = known.and_then(|(_, names)| names.as_deref());
    let (authenticator, digest) = names.map(|names| (&*names.plugin, display(names.digest))).unzip();
    let Totals { lasted, received, sent } = totals;
    let duration_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    info!(
        target: "access",
        connection, uid, %address, cause, code, duration_ms,
        messages_in = received.messages, bytes_in = received.bytes,
        messages_out = sent.messages, bytes_out = sent.bytes,
        authenticator, digest, "connection ended"
    );
}

/// Decides by chance, for this percentage of all questions.
fn is_sampled(percent: u8) -> bool {
    percent > 0 && rand::random::<u32>() % 100 < u32::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_sampled() {
        let sampled = |percent| (0..10_000).filter(|_| is_sampled(percent)).count();
        assert_eq!((sampled(0), sampled(100)), (0, 10_000));
        let (few, half) = (sampled(1), sampled(50));
        assert!((1..=400).contains(&few) && (4_000..=6_000).contains(&half), "{few} {half}");
    }
}
