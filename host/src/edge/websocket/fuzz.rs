//! Fuzz targets: request heads and frames with any content.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::handshake::read_head;
use super::inbox::{Frame, Inbox, InboxBudget};
use super::rejection::{NotUpgraded, RejectedUpgrade};
use crate::base::message::{CloseReason, ConnectionId};
use crate::config::{AllowedOrigin, AllowedOrigins, WebSocketConfig};
use crate::edge::listener::Remote;

/// The statuses that a refusal may have.
const STATUSES: [StatusCode; 5] = [
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::UPGRADE_REQUIRED,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];

/// Reads frames once in one piece and once byte by byte, and compares the results.
pub(crate) fn frames(bytes: &[u8]) {
    let budget = Arc::new(InboxBudget::new(1 << 30));
    let at_once = read([bytes], 1 << 20, &budget);
    assert!(at_once == read(bytes.chunks(1), 1 << 20, &budget), "{at_once:?}");
    assert_eq!(budget.used(), 0);
    if let Some(CloseReason { code, reason }) = at_once.1 {
        assert!([1002, 1007, 1009].contains(&code) && (1..=123).contains(&reason.len()), "{code}: {reason}");
    }
}

/// Reads bytes that arrive in these parts. Returns the frames up to a close frame or an error, and that error.
pub(super) fn read<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    max_message: usize,
    budget: &Arc<InboxBudget>,
) -> (Vec<Frame>, Option<CloseReason>) {
    let mut inbox = Inbox::new(Vec::new(), max_message, budget.clone());
    let mut frames = Vec::new();
    for part in parts {
        let mut buffer = vec![0; 200 + part.len()];
        let waited = inbox.prepare(&mut buffer);
        assert!(waited < 14 + 125, "{waited} bytes wait for more");
        let end = waited + part.len();
        buffer[waited..end].copy_from_slice(part);
        let mut taken = inbox.arrived(&buffer[..end]);
        loop {
            match taken {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(reason) => return (frames, Some(reason)),
            }
            if matches!(frames.last(), Some(Frame::Close(_))) {
                return (frames, None);
            }
            taken = inbox.next();
        }
    }
    (frames, None)
}

/// Checks a request head and the bytes after it, with default settings and with strict settings.
pub(crate) fn head(bytes: &[u8]) {
    let strict = WebSocketConfig {
        allowed_origins: AllowedOrigins::Only(vec![
            AllowedOrigin::SameHost,
            AllowedOrigin::Exactly("https://example.com".to_owned()),
            AllowedOrigin::Below { scheme: "https".to_owned(), domain: "example.com".to_owned() },
        ]),
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        pass_headers: vec!["cookie".to_owned(), "user-agent".to_owned()],
        subprotocols: vec!["chat.v1".to_owned()],
        ..WebSocketConfig::default()
    };
    for config in [WebSocketConfig::default(), strict] {
        check(bytes, &config);
    }
}

fn check(bytes: &[u8], config: &WebSocketConfig) {
    let mut stream = bytes;
    let head = match read_head(&mut stream).now_or_never().expect("a slice never waits") {
        Ok(head) => Ok(head),
        Err(NotUpgraded::Rejected(rejected)) => Err(rejected),
        Err(NotUpgraded::Failed(_) | NotUpgraded::Gone) => return,
    };
    match head.and_then(|head| head.upgrade(ConnectionId(1), Remote::Unix, config)) {
        Err(RejectedUpgrade { status, reason, .. }) => {
            assert!(STATUSES.contains(&status), "{status}");
            assert!(reason.len() < 300 && !reason.contains(char::is_control), "{reason:?}");
        }
        Ok(upgrade) => {
            let response = &upgrade.response;
            assert!(response.starts_with("HTTP/1.1 101 ") && response.ends_with("\r\n\r\n"), "{response:?}");
            let fields = response.trim_end().split("\r\n");
            assert!(fields.clone().all(|field| !field.is_empty() && !field.contains(char::is_control)), "{response:?}");
            assert!(fields.count() <= 5, "{response:?}");
            let shown = &upgrade.handshake;
            let target = [Some(&shown.path), shown.query.as_ref()];
            assert!(shown.path.starts_with('/') && !shown.path.contains('?'), "{shown:?}");
            assert!(target.into_iter().flatten().all(|part| !part.contains([' ', '\r', '\n', '\0'])), "{shown:?}");
            let passed = |name: &str| config.pass_headers.iter().any(|pass| pass == name);
            assert!(shown.headers.iter().all(|header| passed(&header.name)), "{shown:?}");
            assert!(shown.headers.iter().all(|header| !header.value.contains(['\r', '\n', '\0'])), "{shown:?}");
            assert!(
                bytes.windows(upgrade.early.len().max(1)).any(|it| it == upgrade.early) || upgrade.early.is_empty()
            );
        }
    }
}
