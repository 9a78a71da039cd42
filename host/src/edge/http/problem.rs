//! The answer to a request that fails: a status, and `{"error": "…", "reason": "…"}` with a sentence for people and a
//! word for programs.

use std::fmt;

use axum::Json;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::policy::DeployError;

/// The most characters of a request's text that are quoted.
const MAX_QUOTED: usize = 256;

/// Makes text of a request safe for the log and for answers: short, and ASCII only.
pub(in crate::edge) fn shown(text: &str) -> String {
    text.chars().take(MAX_QUOTED).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// `reasons! { status { Name "word", … } … }` defines [`Reason`]: a word for programs, and its status.
macro_rules! reasons {
    ($($status:ident { $($(#[doc = $meaning:literal])+ $name:ident $word:literal,)+ })+) => {
        /// Why a request fails, as a word that stays the same in later versions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::edge) enum Reason {
            $($($(#[doc = $meaning])+ $name,)+)+
        }

        impl Reason {
            /// All reasons.
            #[cfg(test)]
            pub(in crate::edge) const ALL: &[Self] = &[$($(Self::$name,)+)+];

            /// Returns the word.
            pub(in crate::edge) fn word(self) -> &'static str {
                match self { $($(Self::$name => $word,)+)+ }
            }

            /// Returns the status of the answer.
            pub(in crate::edge) fn status(self) -> StatusCode {
                match self { $($(Self::$name => StatusCode::$status,)+)+ }
            }
        }
    };
}

reasons! {
    BAD_REQUEST {
        /// The request is not understood.
        BadRequest "bad-request",
    }
    UNAUTHORIZED {
        /// There is no token, or a wrong one.
        Unauthorized "unauthorized",
    }
    FORBIDDEN {
        /// The token may not do this.
        Scope "scope",
        /// The request comes from a web page.
        Origin "origin",
        /// A plugin refused.
        Refused "refused",
    }
    NOT_FOUND {
        /// None of the recipients is connected.
        Offline "offline",
        /// There is no such path.
        NoSuchPath "no-such-path",
        /// There is no such slot.
        NoSuchSlot "no-such-slot",
        /// The gateway belongs to no cluster.
        NoCluster "no-cluster",
        /// The cluster has no such gateway.
        NoSuchNode "no-such-node",
    }
    METHOD_NOT_ALLOWED {
        /// The path does not take this method.
        Method "method",
    }
    REQUEST_TIMEOUT {
        /// The body has stood still for too long.
        Timeout "timeout",
    }
    CONFLICT {
        /// The recipient was a slow consumer and is now closed.
        Full "full",
        /// A request with the same key is being carried out.
        InFlight "in-flight",
        /// The connection is in the most groups that it may be in.
        TooManyGroups "too-many-groups",
        /// The slot does something else, or something else is expected of it.
        NotNow "not-now",
    }
    PAYLOAD_TOO_LARGE {
        /// The body, or a list in it, is too large.
        TooLarge "too-large",
    }
    UNSUPPORTED_MEDIA_TYPE {
        /// The body has a type that is not understood.
        MediaType "media-type",
    }
    MISDIRECTED_REQUEST {
        /// The request names another host.
        Host "host",
    }
    UNPROCESSABLE_ENTITY {
        /// The key belongs to another request.
        KeyReused "key-reused",
        /// The component is refused.
        ComponentRefused "component-refused",
    }
    TOO_MANY_REQUESTS {
        /// The token's rate is used up.
        Rate "rate",
    }
    INTERNAL_SERVER_ERROR {
        /// The gateway has a defect, or its disk is full.
        Internal "internal",
    }
    SERVICE_UNAVAILABLE {
        /// There is no memory for this.
        Budget "budget",
        /// A plugin failed, or no instance became free in time.
        Failed "failed",
        /// The gateway of the recipient cannot be reached, or it is not certain that nobody is connected.
        Unreachable "unreachable",
        /// The recipient is just moving to another gateway.
        Moved "moved",
        /// The message came to another gateway too late, and was not sent.
        Expired "expired",
        /// The gateway is starting.
        Starting "starting",
        /// The gateway drains or shuts down.
        Draining "draining",
        /// The gateway has no token to compare with.
        NoToken "no-token",
    }
    GATEWAY_TIMEOUT {
        /// The request has taken too long.
        TooSlow "too-slow",
        /// Another gateway has not answered: the message may have been sent.
        Unknown "unknown",
    }
}

/// Why a request fails: a reason for programs, and a sentence for people.
#[derive(Debug)]
pub(in crate::edge) struct Problem {
    pub(in crate::edge) reason: Reason,
    pub(in crate::edge) error: String,
    /// After how many seconds a client may try again, where that is known.
    pub(in crate::edge) retry_after: Option<u64>,
}

impl Problem {
    pub(in crate::edge) fn new(reason: Reason, error: impl fmt::Display) -> Self {
        let retry_after = (reason.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { reason, error: error.to_string(), retry_after }
    }

    /// A request that is not understood.
    pub(in crate::edge) fn bad(error: impl fmt::Display) -> Self {
        Self::new(Reason::BadRequest, error)
    }

    /// A request without a token, or whose token is not valid.
    pub(in crate::edge) fn unauthorized(error: &str) -> Self {
        Self::new(Reason::Unauthorized, error)
    }

    /// A request with a token that does not exist.
    pub(in crate::edge) fn wrong_token() -> Self {
        Self::unauthorized("wrong token")
    }

    /// A request that comes while the gateway is starting.
    pub(in crate::edge) fn starting() -> Self {
        Self::new(Reason::Starting, "the gateway is starting")
    }

    /// A request that comes while the gateway drains or shuts down.
    pub(in crate::edge) fn draining() -> Self {
        Self::new(Reason::Draining, "the gateway is draining")
    }

    /// A request for a path that does not exist.
    pub(in crate::edge) fn no_such_path() -> Self {
        Self::new(Reason::NoSuchPath, "no such path")
    }

    /// A request with a method that the path does not take.
    pub(in crate::edge) fn wrong_method() -> Self {
        Self::new(Reason::Method, "this path does not take this method")
    }

    pub(in crate::edge) fn status(&self) -> StatusCode {
        self.reason.status()
    }
}

impl Problem {
    /// Returns the parts of the answer.
    pub(in crate::edge) fn into_parts(self) -> (StatusCode, HeaderMap, Value) {
        let mut headers = HeaderMap::new();
        if self.reason == Reason::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hotgate\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        (self.status(), headers, json!({ "error": self.error, "reason": self.reason.word() }))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, headers, body) = self.into_parts();
        (status, headers, Json(body)).into_response()
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let reason = match error {
            DeployError::NoSuchSlot { .. } => Reason::NoSuchSlot,
            DeployError::NotNow(_) => Reason::NotNow,
            DeployError::Refused(_) => Reason::ComponentRefused,
            DeployError::Failed(_) => Reason::Internal,
        };
        Self::new(reason, error)
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
