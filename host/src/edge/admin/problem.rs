//! The answer to a request that fails: a status, and `{"error": "…"}` with the reason.

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::policy::DeployError;

/// The most characters of a request's text that are quoted.
const MAX_QUOTED: usize = 256;

/// Makes text of a request safe for the log and for answers: short, and ASCII only.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(MAX_QUOTED).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Why a request fails.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    reason: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: impl fmt::Display) -> Self {
        Self { status, reason: reason.to_string() }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.reason }))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"hotgate\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let status = match error {
            DeployError::NoSuchSlot { .. } => StatusCode::NOT_FOUND,
            DeployError::NotNow(_) => StatusCode::CONFLICT,
            DeployError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            DeployError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_short_and_ascii() {
        assert_eq!(shown("/a b/é\x1b[31m\n"), "/a?b/??[31m?");
        assert_eq!(shown(&"a".repeat(1000)).len(), MAX_QUOTED);
    }
}
