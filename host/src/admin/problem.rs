//! What is answered when a request cannot be fulfilled: a status, and `{"error": "…"}` that says why.

use std::fmt;

use axum::Json;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::policy::DeployError;

/// Why a request is not fulfilled.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    reason: String,
    headers: HeaderMap,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: impl fmt::Display) -> Self {
        Self { status, reason: reason.to_string(), headers: HeaderMap::new() }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
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
        (self.status, self.headers, Json(json!({ "error": self.reason }))).into_response()
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
