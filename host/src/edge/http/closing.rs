//! Closes connections for operators.

use std::time::Duration;

use bytestring::ByteString;

use super::problem::{Problem, Reason};
use crate::base::message::CloseReason;
use crate::hub::command::{Closing, Outcome, Recipient};
use crate::hub::everywhere::{kick, lift};
use crate::hub::registry::Registry;

/// Checks the code and the reason for a close frame. Without them: 4907, "closed by an operator".
pub(in crate::edge) fn close_reason(code: Option<u16>, reason: Option<String>) -> Result<CloseReason, Problem> {
    let code = code.unwrap_or(4907);
    let reason = reason.unwrap_or_else(|| "closed by an operator".to_owned());
    if !matches!(code, 1000 | 1008 | 3000..=4999) {
        return Err(Problem::bad(format_args!("code = {code}: must be 1000, 1008 or from 3000 to 4999")));
    }
    if reason.len() > CloseReason::LONGEST {
        return Err(Problem::bad(format_args!(
            "reason: must be at most {} bytes, to fit a close frame",
            CloseReason::LONGEST
        )));
    }
    Ok(CloseReason { code, reason: ByteString::from(reason) })
}

/// Closes the connections of a uid, or one connection, on all gateways, and keeps the uid out for the time `block`.
/// Returns how many were closed; connections that are already closing do not count.
pub(in crate::edge) async fn close_all(
    registry: &Registry,
    who: Recipient,
    reason: CloseReason,
    block: Option<Duration>,
) -> Result<usize, Problem> {
    match kick(registry, Closing { who, reason }, block).await {
        Err(full) => Err(Problem::new(Reason::Budget, full)),
        Ok(outcome) if outcome.elsewhere.is_some() => {
            let (closed, others) = (outcome.reached, silent(&outcome));
            Err(Problem::new(Reason::Unreachable, format!("{closed} connections were closed; {others}: ask again")))
        }
        Ok(outcome) => Ok(outcome.reached),
    }
}

/// Lets a uid in again, on all gateways. Returns `false` if no gateway kept it out.
pub(in crate::edge) async fn lift_block(registry: &Registry, uid: &str) -> Result<bool, Problem> {
    let outcome = lift(registry, uid).await;
    match outcome.elsewhere {
        None => Ok(outcome.reached > 0),
        Some(_) => {
            let others = silent(&outcome);
            Err(Problem::new(Reason::Unreachable, format!("{others}, and may still keep this uid out: ask again")))
        }
    }
}

fn silent(outcome: &Outcome) -> String {
    match &outcome.missing[..] {
        [] => "other gateways cannot be reached".to_owned(),
        missing => {
            let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("the gateways {missing} did not confirm it")
        }
    }
}
