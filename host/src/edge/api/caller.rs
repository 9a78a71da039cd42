//! The sender of a request, for the code that answers it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::tokens::Grant;
use crate::base::message::ConnectionId;
use crate::edge::http::bounded::Patience;
use crate::edge::http::problem::{Problem, Reason};

/// The sender of a request, who has a token.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    /// What the token allows.
    pub(super) grant: Arc<Grant>,
    /// The HTTP connection.
    pub(super) connection: ConnectionId,
    /// The client's address.
    pub(super) remote: SocketAddr,
    /// The time when the connection ends. Code that neither reads nor writes for long must ask for more time.
    pub(super) patience: Patience,
}

/// Takes the sender that the guard has found out of a request.
pub(super) struct Caller(pub(super) Publisher);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let publisher = parts.extensions.remove::<Publisher>();
        publisher.map(Self).ok_or_else(|| Problem::new(Reason::Internal, "the request has passed no guard"))
    }
}
