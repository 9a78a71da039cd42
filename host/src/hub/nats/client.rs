//! One connection to one NATS server. The only file that says `async_nats`.
//!
//! A connection is used once. When it ends, the library does not connect again (see [`once`]): what it has queued is
//! dropped, so nothing is sent late. The keeper then opens another connection.

use std::collections::VecDeque;
use std::error::Error as _;
use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready as poll_ready};
use std::time::Duration;

use async_nats::{
    ConnectError, ConnectErrorKind, ConnectOptions, Event, Message, PublishErrorKind, ReconnectToServer, ServerAddr,
    ServerError, ServerInfo, StatusCode, Subscriber,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream as _};
use rustls::CertificateError;
use tokio::sync::mpsc;

use super::config::{BusConfig, LoginSecret, Secrets};
use super::dropped::Dropped;
use super::error::{BusError, PublishError, Right, io_reason};
use super::subject::{Channel, Subjects};

/// The most commands that wait for the task that writes. A frame for each of so many links may wait, and echoes.
const COMMANDS: usize = 256;
/// The most signals of one connection that wait.
const SIGNALS: usize = 64;
/// An address that nothing can listen on: connecting fails at once, without a packet.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Client(async_nats::Client);

/// A subscription of one connection.
#[derive(Debug)]
pub(super) struct Subscription {
    subscriber: Subscriber,
    /// Messages that were taken out of the queue too early, oldest first.
    early: VecDeque<Incoming>,
}

/// A message from the server.
#[derive(Debug)]
pub(super) struct Incoming(Message);

/// What the server says beside messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// It will stop soon.
    LameDuck,
    /// The user has no such right.
    Denied(Right, String),
    /// Another error.
    Said(String),
    /// A subscription was full.
    Dropped,
}

/// What a new connection consists of.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    /// In the order of [`Channel::EACH`].
    pub(super) subscriptions: [Subscription; 4],
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) server: ServerDescription,
}

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDescription {
    /// The server, as in the settings.
    pub server: String,
    /// Its own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The largest message that it accepts, in bytes.
    pub max_payload: usize,
}

/// Opens a connection and makes the subscriptions. Dropping the future ends the attempt.
pub(super) async fn open(
    server: &str,
    config: &BusConfig,
    secrets: &Secrets,
    subjects: &Subjects,
    dropped: Arc<Dropped>,
) -> Result<Link, BusError> {
    let address = |text: &str| text.parse::<ServerAddr>().map_err(|error| BusError::setting("servers", error));
    let addresses = [address(server)?, address(NOWHERE)?];
    let (sender, signals) = mpsc::channel(SIGNALS);
    let options = once(options(config, secrets)?, addresses.clone())
        .name(format!("hotgate {}", subjects.own()))
        .require_tls(config.needs_tls(server))
        .event_callback(move |event| {
            hear(event, &sender, &dropped);
            ready(())
        });
    let connecting = options.connect(addresses.as_slice());
    let client = Box::pin(connecting).await.map_err(|error| match error.kind() {
        // The library says so when it cannot sign with the key, and before it has asked the server.
        ConnectErrorKind::Authentication => BusError::file(config.login_file(), "its key cannot be used"),
        _ => match explain(server, &error) {
            BusError::Tls { server, .. } if !config.needs_tls(&server) => {
                BusError::Tls { server, reason: "it wants TLS: write tls:// in its address".to_owned() }
            }
            error => error,
        },
    })?;
    let server = describe(server, &client.server_info())?;
    let subscribe = async |channel| {
        let subscribed = client.subscribe(subjects.subscription(channel)).await;
        let subscriber = subscribed.map_err(|error| BusError::unreachable(&server.server, error))?;
        Ok::<_, BusError>(Subscription { subscriber, early: VecDeque::new() })
    };
    // The library numbers subscriptions from 1, in this order; `hear` relies on it.
    let [all, link, snapshots, inbox] = Channel::EACH;
    let subscriptions =
        [subscribe(all).await?, subscribe(link).await?, subscribe(snapshots).await?, subscribe(inbox).await?];
    Ok(Link { client: Client(client), subscriptions, signals, server })
}

fn options(config: &BusConfig, secrets: &Secrets) -> Result<ConnectOptions, BusError> {
    let mut options = ConnectOptions::new()
        .connection_timeout(config.attempt_timeout)
        .ping_interval(config.ping_interval)
        .client_capacity(COMMANDS)
        .subscription_capacity(config.queue)
        .ignore_discovered_servers();
    options = match &secrets.login {
        LoginSecret::None => options,
        // The library's error says which part of the file is missing, and shows nothing of it.
        LoginSecret::Credentials(text) => {
            options.credentials(text).map_err(|error| BusError::file(config.login_file(), error))?
        }
        LoginSecret::Nkey(seed) => options.nkey(seed.clone()),
        LoginSecret::Password(user, password) => options.user_and_password(user.clone(), password.clone()),
    };
    // Without it, the library would choose the cryptography and the authorities itself.
    Ok(options.tls_client_config(secrets.tls.clone()))
}

/// Lets the library connect only once. It always tries to connect again, at least one time; that one time it is sent
/// to [`NOWHERE`], and then its task ends, with all that waited in its queues.
fn once(options: ConnectOptions, [server, nowhere]: [ServerAddr; 2]) -> ConnectOptions {
    let is_used = AtomicBool::new(false);
    options.max_reconnects(1).reconnect_to_server_callback(move |_, _| {
        let addr = if is_used.swap(true, Ordering::Relaxed) { nowhere.clone() } else { server.clone() };
        ready(Some(ReconnectToServer { addr, delay: Some(Duration::ZERO) }))
    })
}

/// Takes note of an event. Must not wait.
fn hear(event: Event, signals: &mpsc::Sender<Signal>, dropped: &Dropped) {
    let signal = match event {
        Event::LameDuckMode => Signal::LameDuck,
        Event::SlowConsumer(number) => {
            let index = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
            if let Some(&channel) = Channel::EACH.get(index) {
                dropped.add(channel, 1);
            }
            Signal::Dropped
        }
        Event::ServerError(ServerError::Other(text)) => match denied(&text) {
            Some((right, subject)) => Signal::Denied(right, subject.to_owned()),
            None => Signal::Said(text),
        },
        Event::ServerError(error) => Signal::Said(error.to_string()),
        // The end of the subscriptions shows the end of the connection; these events may be lost.
        Event::Connected | Event::Disconnected | Event::Draining | Event::Closed | Event::ClientError(_) => return,
    };
    // Whoever denies once denies again; drops are counted above.
    _ = signals.try_send(signal);
}

/// Reads the server's words for a missing right.
fn denied(text: &str) -> Option<(Right, &str)> {
    let rest = text.strip_prefix("Permissions Violation for ")?;
    let right = if rest.starts_with("Subscription") { Right::Subscribe } else { Right::Publish };
    Some((right, rest.split('"').nth(1).unwrap_or(rest)))
}

/// Returns what the server says about itself, if it can be used.
fn describe(server: &str, info: &ServerInfo) -> Result<ServerDescription, BusError> {
    let server = server.to_owned();
    if info.lame_duck_mode {
        return Err(BusError::Unreachable { server, reason: "it is about to stop".to_owned() });
    }
    if !info.headers {
        return Err(BusError::NoResponders { server, reason: HEADERS_OFF.to_owned() });
    }
    if info.max_payload < super::subject::MAX_FRAME {
        return Err(BusError::Payload { server, max: info.max_payload, needed: super::subject::MAX_FRAME });
    }
    let (name, version, max_payload) = (info.server_name.clone(), info.version.clone(), info.max_payload);
    Ok(ServerDescription { server, name, version, max_payload })
}

const HEADERS_OFF: &str = "its headers are off (no_header_support)";

/// Says why a connection failed.
fn explain(server: &str, error: &ConnectError) -> BusError {
    let name = server.to_owned();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    let mut text = error.kind().to_string();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<io::Error>();
        text = io.map_or_else(|| inner.to_string(), io_reason);
        if let Some(tls) = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return BusError::Tls { server: name, reason: tls_reason(tls) };
        }
        if let Some(said) = inner.downcast_ref::<ServerError>() {
            let reason = said.to_string().trim_start_matches("nats: ").to_owned();
            // A client that wants notices is turned away by a server without headers.
            return match reason.contains("requires headers") {
                true => BusError::NoResponders { server: name, reason: HEADERS_OFF.to_owned() },
                false => BusError::Refused { server: name, reason },
            };
        }
        cause = inner.source();
    }
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            BusError::Refused { server: name, reason: text }
        }
        ConnectErrorKind::Tls => BusError::Tls { server: name, reason: text },
        ConnectErrorKind::ServerParse => BusError::setting("servers", text),
        ConnectErrorKind::Dns => BusError::unreachable(server, format_args!("its name has no address: {text}")),
        ConnectErrorKind::TimedOut => BusError::unreachable(server, "it does not answer"),
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => BusError::unreachable(server, text),
    }
}

fn tls_reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("it refuses the handshake ({alert:?})"),
        // The second is what a certificate of another authority with the same name gets.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate comes from an authority that is not trusted".to_owned()
        }
        rustls::Error::InvalidCertificate(reason) => format!("its certificate is not valid: {reason}"),
        error => error.to_string(),
    }
}

impl Client {
    /// Hands a message to the task that writes. Does not wait.
    ///
    /// # Errors
    /// If it was not handed over. Then it is never sent.
    pub(super) fn publish(&self, subject: String, reply: Option<String>, bytes: Bytes) -> Result<(), PublishError> {
        // Both futures wait only for room in the queue. `unconstrained`, because a task that has done much in its turn
        // would else be told to wait although there is room. Dropping them takes the message back.
        let sent = match reply {
            None => tokio::task::unconstrained(self.0.publish(subject, bytes)).now_or_never(),
            Some(reply) => tokio::task::unconstrained(self.0.publish_with_reply(subject, reply, bytes)).now_or_never(),
        };
        match sent {
            None => Err(PublishError::Full),
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge,
                PublishErrorKind::Send | PublishErrorKind::InvalidSubject => PublishError::Disconnected,
            }),
        }
    }
}

impl Drop for Client {
    /// Ends the connection, even if its subscriptions are still held.
    fn drop(&mut self) {
        // If the queue is full, the connection ends with the last of its subscriptions, or when its pings fail.
        _ = tokio::task::unconstrained(self.0.drain()).now_or_never();
    }
}

impl Subscription {
    /// Returns the next message; `None` when the connection has ended and all its messages were returned.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        match self.early.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None => self.poll_queue(cx),
        }
    }

    /// Like [`poll_next`](Self::poll_next), but does not return messages that were put back.
    pub(super) fn poll_queue(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let message = poll_ready!(Pin::new(&mut self.subscriber).poll_next(cx));
        Poll::Ready(message.map(Incoming))
    }

    /// Puts a message back. It is returned after those that were put back before.
    pub(super) fn put_back(&mut self, message: Incoming) {
        self.early.push_back(message);
    }

    /// Returns the next message.
    pub(super) fn next(&mut self) -> impl Future<Output = Option<Incoming>> + Send + '_ {
        std::future::poll_fn(|cx| self.poll_next(cx))
    }
}

impl Incoming {
    /// The subject.
    pub(super) fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The subject for answers.
    pub(super) fn reply(&self) -> Option<&str> {
        self.0.reply.as_deref()
    }

    /// Returns `true` if the server says that nobody listens.
    pub(super) fn is_no_responders(&self) -> bool {
        self.0.status == Some(StatusCode::NO_RESPONDERS)
    }

    /// Returns `true` if it has no content.
    pub(super) fn is_empty(&self) -> bool {
        self.0.payload.is_empty()
    }

    /// Returns the content.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rights_are_read() {
        let publish = r#"Permissions Violation for Publish to "hg.all""#;
        assert_eq!(denied(publish), Some((Right::Publish, "hg.all")));
        let subscribe = r#"Permissions Violation for Subscription to "hg.i.00.>""#;
        assert_eq!(denied(subscribe), Some((Right::Subscribe, "hg.i.00.>")));
        assert_eq!(denied("Maximum Payload Violation"), None);
    }
}
