//! Reads the body of a request.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::problem::{Problem, Reason};

/// How long a body may stand still.
const STANDSTILL: Duration = Duration::from_secs(15);

/// Reads a body of at most `limit` bytes; `bound` names the limit.
///
/// # Errors
/// If the body is larger, stands still, or breaks off.
pub(in crate::edge) async fn read_body(body: Body, limit: usize, bound: &str) -> Result<Vec<u8>, Problem> {
    let too_large = || Problem::new(Reason::TooLarge, format_args!("the body is larger than {limit} bytes ({bound})"));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    let stalled = |_| Problem::new(Reason::Timeout, format_args!("no data arrived for {STANDSTILL:?}"));
    while let Some(piece) = timeout(STANDSTILL, pieces.next()).await.map_err(stalled)? {
        let piece = piece.map_err(|error| Problem::bad(format_args!("the body is broken: {error}")))?;
        if bytes.len() + piece.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
