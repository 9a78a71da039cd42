//! The query of a request, as who types it means it.

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The parameters of a query (RFC 3986 §3.4). A `+` in it is a plus, since uids may be telephone numbers; a space is
/// `%20`. Forms of web pages write it the other way round, but none are served here.
pub(super) struct Query<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default().replace('+', "%2B");
        let bad = |error: &dyn std::fmt::Display| Problem::new(StatusCode::BAD_REQUEST, error);
        let uri: Uri = format!("/?{query}").parse().map_err(|error| bad(&error))?;
        extract::Query::try_from_uri(&uri).map(|extract::Query(query)| Self(query)).map_err(|error| bad(&error))
    }
}
