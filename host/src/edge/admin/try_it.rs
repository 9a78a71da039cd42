//! Lets operators try the gateway without any other port: a WebSocket client at `/try`, and a line of the text port at
//! `/try/push`.
//!
//! The client is connected by a pair of sockets to the same code as all others: handshake, origins, limits and
//! authenticators treat it like a client with the operator's address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Request, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::shared::Shared;
use super::streams::{self, Source, push};
use super::trials::{Order, Trial};
use super::visitor::Caller;
use crate::edge::http::body::read_body;
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::query::no_query;
use crate::edge::text::push_line;

/// The largest body: a message, or the description of a client.
const LARGEST: usize = 1 << 20;
const BOUND: &str = "the bound of /try";
/// The largest message that the client takes.
const MAX_MESSAGE: usize = 4 << 20;
/// How long the handshake, a write and the closing may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The code for a connection that ended without a close frame (RFC 6455 §7.4.1).
const ABNORMAL: u16 = 1006;

/// Headers that the client sets itself.
const OWN_HEADERS: [&str; 7] = [
    "connection",
    "content-length",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "transfer-encoding",
    "upgrade",
];
/// The header with the address of a proxy's client.
const FORWARDED: &str = "x-forwarded-for";

type Answer = Result<Json<Value>, Problem>;

/// How the client connects.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn root() -> String {
    "/".to_owned()
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Self, Problem> {
        let wrong = |error| {
            let form = "{\"path\": \"/…\", \"headers\": {\"Origin\": \"…\"}}";
            Problem::bad(format_args!("the body must be empty or {form}: {error}"))
        };
        serde_json::from_slice(if body.is_empty() { b"{}" } else { body }).map_err(wrong)
    }

    /// Returns the upgrade request of a client with this address.
    fn request(&self, operator: SocketAddr) -> Result<Request<()>, Problem> {
        let wrong_path = || Problem::bad("path: must be a path with an optional query, like \"/chat?room=1\"");
        let uri = self.path.starts_with('/').then(|| format!("ws://localhost{}", self.path).parse::<Uri>());
        let uri = uri.and_then(Result::ok).ok_or_else(wrong_path)?;
        let mut request = uri.into_client_request().map_err(Problem::bad)?;
        for (name, value) in &self.headers {
            let wrong = || Problem::bad(format_args!("headers: {} cannot be set like this", shown(name)));
            let name: HeaderName = name.parse().map_err(|_| wrong())?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            if OWN_HEADERS.contains(&name.as_str()) || name == FORWARDED {
                return Err(wrong());
            }
            request.headers_mut().insert(name, value);
        }
        let address = HeaderValue::from_str(&operator.to_string()).map_err(Problem::bad)?;
        request.headers_mut().insert(HeaderName::from_static(FORWARDED), address);
        Ok(request)
    }
}

/// Connects a client. Answers with what it receives.
pub(super) async fn open(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    no_query(&uri)?;
    let wanted = Wanted::read(&read_body(body, LARGEST, BOUND).await?)?;
    let request = wanted.request(caller.peer.remote)?;
    let no_clients = || Problem::new(Reason::NotNow, "no clients connect to this gateway (cluster.role = \"sender\")");
    let entrance = shared.served()?.entrance.as_ref().ok_or_else(no_clients)?;
    let place = streams::place(&shared, &caller)?;
    let stream = entrance.open(caller.peer.remote).await.map_err(|error| Problem::new(Reason::Internal, error))?;
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let connected = timeout(PATIENCE, client_async_with_config(request, stream, Some(config))).await;
    let socket = match connected {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(refusal(error)),
        Err(_) => Err(format!("the gateway has not answered for {PATIENCE:?}")),
    };
    let client = Client { begin: true, socket, trial: shared.trials.add(), closed: None, end: None };
    Ok(streams::answer(shared.clone(), caller, place, client))
}

/// Returns why the gateway refused the client.
fn refusal(error: Error) -> String {
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body);
            format!("the handshake was refused: {} {}", response.status(), body.trim())
        }
        error => format!("the handshake failed: {error}"),
    }
}

/// A client, and what it has not told yet.
struct Client {
    /// True until its number is told.
    begin: bool,
    /// The connection, or why there is none.
    socket: Result<WebSocketStream<UnixStream>, String>,
    trial: Trial,
    /// The close frame of the gateway.
    closed: Option<CloseFrame>,
    /// When the client gives up, after it has begun to close the connection.
    end: Option<Instant>,
}

impl Source for Client {
    async fn next(&mut self, lines: &mut Vec<u8>, quiet: Instant) -> bool {
        if std::mem::take(&mut self.begin) {
            push(lines, &json!({ "client": self.trial.number.to_string() }));
            return true;
        }
        let reason = match &mut self.socket {
            Err(reason) => std::mem::take(reason),
            Ok(socket) => loop {
                let end = self.end.unwrap_or(quiet);
                tokio::select! {
                    () = sleep_until(end) => match self.end {
                        None => return true,
                        Some(_) => break format!("the gateway has not closed the connection for {PATIENCE:?}"),
                    },
                    order = self.trial.orders.recv() => {
                        let written = match order {
                            Some(Order::Send(_)) if self.end.is_some() => continue,
                            Some(Order::Send(text)) => timeout(PATIENCE, socket.send(Message::text(text))).await,
                            Some(Order::Close) | None => {
                                self.end = Some(Instant::now() + PATIENCE);
                                let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                                timeout(PATIENCE, socket.close(Some(frame))).await
                            }
                        };
                        match written {
                            Ok(Ok(()) | Err(Error::ConnectionClosed)) => {}
                            Ok(Err(error)) => break error.to_string(),
                            Err(_) => break format!("the gateway has read nothing for {PATIENCE:?}"),
                        }
                    }
                    message = socket.next() => match message {
                        Some(Ok(Message::Text(text))) => push(lines, &json!({ "text": text.as_str() })),
                        Some(Ok(Message::Binary(bytes))) => push(lines, &json!({ "binary": STANDARD.encode(bytes) })),
                        Some(Ok(Message::Close(frame))) => self.closed = frame,
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break error.to_string(),
                        None => break "the connection has ended without a close frame".to_owned(),
                    },
                }
                if !lines.is_empty() {
                    return true;
                }
            },
        };
        let (code, reason) = match self.closed.take() {
            Some(frame) => (frame.code.into(), frame.reason.to_string()),
            None => (ABNORMAL, reason),
        };
        push(lines, &json!({ "closed": { "code": code, "reason": reason } }));
        false
    }
}

/// The number of a client, in the path.
type Number = Result<Path<String>, PathRejection>;

fn number(path: Number) -> Result<u64, Problem> {
    let Path(number) = path.map_err(Problem::bad)?;
    let wrong = || Problem::bad(format_args!("{}: a client is named by its number", shown(&number)));
    number.parse().map_err(|_| wrong())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Packet {
    text: String,
}

/// Lets a client send a message.
pub(super) async fn send(State(shared): State<Arc<Shared>>, client: Number, uri: Uri, body: Body) -> Answer {
    no_query(&uri)?;
    let client = number(client)?;
    let wrong = |error| Problem::bad(format_args!("the body must be {{\"text\": \"…\"}}: {error}"));
    let packet: Packet = serde_json::from_slice(&read_body(body, LARGEST, BOUND).await?).map_err(wrong)?;
    shared.trials.order(client, Order::Send(packet.text))?;
    Ok(Json(json!({ "sent": true })))
}

/// Lets a client close its connection.
pub(super) async fn close(State(shared): State<Arc<Shared>>, client: Number, uri: Uri) -> Answer {
    no_query(&uri)?;
    shared.trials.order(number(client)?, Order::Close)?;
    Ok(Json(json!({ "closing": true })))
}

/// Pushes a line. Answers what the text port would answer.
pub(super) async fn push_text(State(shared): State<Arc<Shared>>, caller: Caller, uri: Uri, body: Body) -> Answer {
    no_query(&uri)?;
    let senders = &shared.served()?.senders;
    // Some bytes more: the line's end, and so that a line that is too long is answered as on the text port.
    let most = senders.live.load().text.max_line + 3;
    let body = read_body(body, most, "text.max_line").await?;
    let line = body.strip_suffix(b"\n").unwrap_or(&body);
    if line.contains(&b'\n') {
        return Err(Problem::bad("the body must be one line"));
    }
    let answer = push_line(senders, caller.peer.remote, line).await;
    Ok(Json(json!({ "answer": answer })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_choose_its_path_and_headers_but_not_its_address() {
        let operator = "192.0.2.7:5000".parse().unwrap();
        let request = |body: &str| Wanted::read(body.as_bytes())?.request(operator);
        let plain = request("").unwrap();
        assert_eq!((plain.uri().path(), plain.uri().query()), ("/", None));
        assert_eq!(plain.headers()[FORWARDED], "192.0.2.7:5000");
        let chosen = request(r#"{"path":"/a?b=c","headers":{"Origin":"https://x","host":"y"}}"#).unwrap();
        assert_eq!((chosen.uri().path(), chosen.uri().query()), ("/a", Some("b=c")));
        assert_eq!(
            (&chosen.headers()["origin"], &chosen.headers()["host"]),
            (&"https://x".parse().unwrap(), &"y".parse().unwrap())
        );
        for wrong in [
            "7",
            r#"{"paths":"/"}"#,
            r#"{"path":"a"}"#,
            r#"{"path":"/a b"}"#,
            r#"{"headers":{"X-Forwarded-For":"192.0.2.1"}}"#,
            r#"{"headers":{"Upgrade":"h2c"}}"#,
            r#"{"headers":{"a b":"c"}}"#,
            r#"{"headers":{"a":"b\r\nc: d"}}"#,
        ] {
            assert_eq!(request(wrong).unwrap_err().reason, Reason::BadRequest, "{wrong}");
        }
    }
}
