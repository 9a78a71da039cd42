//! Makes the calls of a conversation with a plugin, and carries out the answers on a registry of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use toml::Value;

use super::cases::{Call, Case, Client, Closed, Online, Opening};
use super::expectation::{self, FAILED};
use super::publication::Publication;
use crate::base::message::{ClientKey, ConnectionId, Message};
use crate::hub::command::{Action, Ending, Publisher, Ruling, Sender, Session};
use crate::hub::delivery;
use crate::hub::outbox::{Budget, Outbox};
use crate::hub::registry::{Peer, Registry};
use crate::plugin::{CallError, is_harmful};
use crate::policy::{Handshake, Harness, Verdict};

/// The connection of the conversation's client. Other connections have the numbers after it.
const OWN: ConnectionId = ConnectionId(1);
/// The connection of the internal sender.
const SENDER: ConnectionId = ConnectionId(1_000_000);
/// The HTTP connection of the publisher.
const PUBLISHER: ConnectionId = ConnectionId(1_000_001);
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
/// The bound of each outbox, in bytes. Nobody reads the connections.
const OUTBOX: usize = 64 << 20;

/// A conversation with a plugin.
pub(super) struct Conversation {
    harness: Harness,
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    handshake: Handshake,
    session: Session,
    /// The client's connection, from the first call of the router on.
    own: Option<Arc<Peer>>,
}

impl Outcome {
    /// Returns whether an authenticator gave this verdict.
    pub(super) fn is(&self, verdict: &str) -> bool {
        self.value.get(verdict).is_some() || self.value.as_str() == Some(verdict)
    }
}

/// The result of one call.
pub(super) struct Outcome {
    /// The answer in the notation of case files.
    pub(super) value: Value,
    /// The functions of the plugin in which the call failed, innermost first. Empty if the call did not fail.
    pub(super) backtrace: String,
}

impl Conversation {
    /// Begins a conversation on this registry, which must also be the registry of the plugin's runtime.
    pub(super) fn new(harness: Harness, registry: Arc<Registry>, opening: &Opening, client: &Client) -> Self {
        let handshake = Handshake {
            connection: OWN,
            remote_address: opening.remote_address.into(),
            path: opening.path.clone(),
            query: opening.query.clone(),
            headers: opening.headers.clone(),
        };
        let session = Session {
            connection: OWN,
            uid: client.uid.clone().into(),
            client: ClientKey::new(ADDRESS.ip(), &client.uid),
            attributes: client.attributes.clone(),
            state: client.state.bytes(),
        };
        Self { harness, registry, budget: Arc::new(Budget::new(usize::MAX, 1)), handshake, session, own: None }
    }

    /// Begins the conversation of a case.
    pub(super) fn of_case(harness: Harness, registry: Arc<Registry>, case: &Case) -> Self {
        let conversation = Self::new(harness, registry, &case.handshake, &case.session);
        for (number, Online { uid, groups }) in (OWN.0 + 1..).zip(&case.online) {
            if let Some(peer) = conversation.connect(ConnectionId(number), uid) {
                groups.iter().for_each(|group| _ = conversation.registry.join(&peer, &group.as_str().into()));
            }
        }
        conversation
    }

    fn connect(&self, id: ConnectionId, uid: &str) -> Option<Arc<Peer>> {
        let outbox = Arc::new(Outbox::new(OUTBOX, self.budget.clone()));
        Some(self.registry.register(id, uid.into(), outbox, ADDRESS).ok()?.peer)
    }

    /// Returns the client's connection. The first call registers it.
    fn own(&mut self) -> Option<Arc<Peer>> {
        if self.own.is_none() {
            self.own = self.connect(OWN, &self.session.uid.clone());
        }
        self.own.clone()
    }

    /// Makes a call, and carries out the answer.
    pub(super) async fn call(&mut self, call: &Call) -> Outcome {
        match self.outcome(call).await {
            Ok(value) => Outcome { value, backtrace: String::new() },
            Err(error) => {
                let failed = [(FAILED, error.kind().to_owned()), ("why", error.to_string())];
                let table = failed.into_iter().map(|(name, text)| (name.to_owned(), Value::String(text)));
                let backtrace = error.backtrace().map(|backtrace| backtrace.lines().join("\n")).unwrap_or_default();
                Outcome { value: Value::Table(table.collect()), backtrace }
            }
        }
    }

    async fn outcome(&mut self, call: &Call) -> Result<Value, CallError> {
        Ok(match call {
            Call::Greet => {
                let verdict = self.harness.greet(&self.handshake).await?;
                self.authenticated(verdict)
            }
            Call::Authenticate(packet) => {
                let verdict = self.harness.authenticate(&self.handshake, packet).await?;
                self.authenticated(verdict)
            }
            Call::Opened => {
                let own = self.own();
                let actions = self.harness.opened(&self.session).await?;
                let shown = expectation::actions(&actions);
                self.apply(own, actions).await;
                shown
            }
            Call::Route(packet) => {
                let own = self.own();
                let actions = self.harness.route(&self.session, packet).await?;
                let shown = expectation::actions(&actions);
                self.apply(own, actions).await;
                shown
            }
            Call::Closed(Closed { cause, code, groups, remaining }) => {
                if let Some(own) = self.own.take() {
                    self.registry.deregister(&own, *cause);
                }
                let groups = groups.iter().map(|group| group.as_str().into()).collect();
                let ending = Ending { cause: *cause, code: *code, groups, remaining: *remaining };
                let commands = self.harness.closed(&self.session, ending).await?;
                let shown = expectation::commands(&commands);
                _ = delivery::apply_commands(&self.registry, commands, |_, _| ()).await;
                shown
            }
            Call::Push(line) => {
                let sender = Sender { connection: SENDER, remote_address: ADDRESS.to_string() };
                let answer = self.harness.push(&sender, line).await?;
                let shown = expectation::answer(&answer);
                if let Ok(answer) = answer {
                    _ = delivery::apply_commands(&self.registry, answer.commands, |_, _| ()).await;
                }
                shown
            }
            Call::Publish(Publication { token, to, message }) => {
                let (token, remote_address) = (token.clone(), ADDRESS.to_string());
                let publisher = Publisher { connection: PUBLISHER, token, remote_address };
                let ruling = self.harness.publish(&publisher, to, message).await?;
                let shown = expectation::ruling(&ruling);
                // A message that passes is not sent: nobody reads the connections.
                if let Ruling::Instead(commands) = ruling {
                    _ = delivery::apply_commands(&self.registry, commands, |_, _| ()).await;
                }
                shown
            }
        })
    }

    /// Applies actions, and keeps the state that they remember.
    async fn apply(&mut self, own: Option<Arc<Peer>>, actions: Vec<Action>) {
        if let Some(own) = own
            && let Some(state) = delivery::apply(&self.registry, &own, actions).await.remember
        {
            self.session.state = state;
        }
    }

    /// Gives the router's session the identity that an authenticator has accepted.
    fn authenticated(&mut self, verdict: Verdict) -> Value {
        let shown = expectation::verdict(&verdict);
        if let Verdict::Accept(identity) = verdict {
            self.session.uid = identity.uid;
            self.session.attributes = identity.attributes;
        }
        shown
    }
}

/// Formats a call as one short line.
pub(super) fn shown(call: &Call) -> String {
    const MOST: usize = 100;
    let with = |name: &str, message: &Message| match message {
        Message::Text(text) => {
            let text: String = text.chars().map(|c| if is_harmful(c) { '\u{fffd}' } else { c }).collect();
            let end = text.floor_char_boundary(MOST);
            format!("{name} {}{}", &text[..end], if end < text.len() { "…" } else { "" })
        }
        Message::Binary(bytes) => format!("{name} ({} bytes)", bytes.len()),
    };
    match call {
        Call::Greet => "greet".to_owned(),
        Call::Authenticate(packet) => with("authenticate", packet),
        Call::Opened => "opened".to_owned(),
        Call::Route(packet) => with("route", packet),
        Call::Closed(_) => "closed".to_owned(),
        Call::Push(line) => with("push", &Message::Text(line.clone())),
        Call::Publish(publication) => with(&format!("publish {publication}"), &publication.message),
    }
}
