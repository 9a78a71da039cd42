//! Authenticates a client after its upgrade: greeting, packets and prompts, within one deadline.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::timeout;

use super::context::Context;
use super::end::{End, try_again};
use super::session::queue;
use super::socket::Socket;
use crate::base::message::Cause;
use crate::base::trace::{Payload, TRACE, TraceEvent};
use crate::edge::heartbeat::Link;
use crate::edge::listener::Stream;
use crate::hub::outbox::Close;
use crate::policy::{Decider, Decision, Handshake, Identity};

/// Asks the authenticators about the handshake, then about packets, until one of them decides. Sets `decider` to this
/// one.
pub(super) async fn authenticate(
    context: &Context,
    socket: &mut Socket<impl Stream>,
    link: &Arc<Link>,
    handshake: &Handshake,
    decider: &mut Option<Decider>,
) -> Result<Identity, End> {
    let deadline = context.live.load().websocket.authentication_timeout;
    match timeout(deadline, ask(context, socket, link, handshake, decider)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(End::new(Cause::Unauthenticated, 4901, "not authenticated in time")),
    }
}

async fn ask(
    context: &Context,
    socket: &mut Socket<impl Stream>,
    link: &Arc<Link>,
    handshake: &Handshake,
    decider: &mut Option<Decider>,
) -> Result<Identity, End> {
    let authenticator = &context.policy.authenticator;
    let (mut login, mut decision) = socket.sending(pin!(authenticator.greet(handshake))).await?;
    loop {
        *decider = login.take_decider();
        match decision {
            Decision::Accept(identity) => return Ok(identity),
            Decision::Deny(cause, reason) => return Err(End::Closing(Close { reason, cause })),
            Decision::Failed => return Err(try_again()),
            Decision::Prompt(message) => {
                if let Some(message) = message {
                    queue(context, link.id, &link.outbox, message).await?;
                }
                let packet = socket.receive().await?;
                TRACE.record(link.id, || TraceEvent::Packet(Payload::of(&packet)));
                let judged = pin!(authenticator.authenticate(&mut login, handshake, &packet));
                decision = socket.sending(judged).await?;
            }
        }
    }
}
