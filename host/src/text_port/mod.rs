//! The life of one internal sender's TCP connection: lines come in, each is answered, in order. Many lines may arrive
//! in one read; their answers leave in one write.

mod answers;
mod foreign;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lines;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::answers::Answers;
use self::foreign::Opening;
use self::lines::Lines;
use crate::config::TextConfig;
use crate::delivery;
use crate::message::ConnectionId;
use crate::metrics::PushFailure;
use crate::policy::{Answer, Policy, Sender};
use crate::registry::Registry;
use crate::throttle::Throttle;

/// How long a sender may leave its answers unread. Its lines are not read meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that is being closed may take to read why. Also how long to wait for more of what a sender has
/// sent that does not take its answers.
const LINGER: Duration = Duration::from_secs(2);
/// How long what such a sender has sent may take to be carried out.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// Peers refused that are logged in a second, and at once.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 5;

/// What every sender's connection needs.
pub struct Context {
    /// Bounds and rules of the text port.
    pub config: TextConfig,
    /// What the plugins decide.
    pub policy: Arc<Policy>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// Room for plugins' own replies, in bytes, until they have been written (`text.total_replies`).
    replies: Arc<Semaphore>,
    /// Limits the lines of the log about those who are no senders: they come as fast as they like.
    refusals: Throttle,
}

impl Context {
    /// What the text port is served with.
    pub fn new(config: TextConfig, policy: Arc<Policy>, registry: Arc<Registry>) -> Self {
        let replies = Arc::new(Semaphore::new(config.total_replies));
        let refusals = Throttle::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE);
        Self { config, policy, registry, replies, refusals }
    }

    /// Logs that a peer is refused, unless many are.
    pub fn refuse(&self, peer: SocketAddr, reason: &str) {
        if let Some(unlogged) = self.refusals.admit(0) {
            warn!(%peer, reason, unlogged, "sender refused");
        }
    }
}

/// Whether a peer may connect: one of `allow_from`, or, when that is empty, of this machine.
pub fn is_allowed(allow_from: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    if allow_from.is_empty() { peer.is_loopback() } else { allow_from.iter().any(|net| net.contains(&peer)) }
}

/// Serves one sender until it ends the connection, or `shutdown` does.
pub async fn serve(
    context: Arc<Context>,
    mut stream: TcpStream,
    peer: SocketAddr,
    connection: ConnectionId,
    shutdown: CancellationToken,
) {
    let sender = Sender { connection, remote_address: peer.to_string() };
    let end = Conversation::new(&context, &sender).run(&mut stream, &shutdown).await;
    debug!(connection = connection.0, ?end, "sender's connection ended");
    if end == End::Foreign {
        context.refuse(peer, "it speaks another protocol, such as HTTP or TLS, to the text port");
    }
    if end != End::Gone {
        // What the sender still sends is discarded: closing with unread data would reset the connection, and the
        // last answers might be lost.
        let discard = async {
            stream.shutdown().await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        let _ = timeout(LINGER, discard).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The sender ended it, or went away.
    Gone,
    /// A line was too long.
    TooLong,
    /// This is no sender.
    Foreign,
    /// The gateway shuts down.
    Shutdown,
}

/// One sender's lines and answers.
struct Conversation<'a> {
    context: &'a Context,
    sender: &'a Sender,
    lines: Lines,
    opening: Opening,
    /// Answers that have not been written yet.
    answers: Answers<'a>,
}

impl<'a> Conversation<'a> {
    fn new(context: &'a Context, sender: &'a Sender) -> Self {
        let lines = Lines::new(context.config.max_line);
        Self { context, sender, lines, opening: Opening::default(), answers: Answers::new(&context.replies) }
    }

    async fn run(&mut self, stream: &mut TcpStream, shutdown: &CancellationToken) -> End {
        loop {
            let answered = self.answer_lines().await;
            if !self.answers.is_empty() {
                let written = timeout(WRITE_TIMEOUT, stream.write_all(self.answers.as_bytes())).await;
                self.answers.written();
                if !matches!(written, Ok(Ok(()))) {
                    return match answered {
                        Ok(()) => self.carry_out_rest(stream, shutdown).await,
                        Err(_) => End::Gone,
                    };
                }
                if answered.is_ok() && self.lines.has_more() {
                    continue;
                }
            }
            if let Err(end) = answered {
                return end;
            }
            tokio::select! {
                () = shutdown.cancelled() => return End::Shutdown,
                read = stream.read_buf(self.lines.buffer()) => match read {
                    Ok(0) | Err(_) => return End::Gone,
                    Ok(_) => {}
                }
            }
        }
    }

    /// Carries out what has arrived from a sender that takes no answers any more: it has left without reading them, or
    /// has not read them for too long.
    async fn carry_out_rest(&mut self, stream: &mut TcpStream, shutdown: &CancellationToken) -> End {
        let rest = async {
            while self.answer_lines().await.is_ok() && !shutdown.is_cancelled() {
                self.answers.written();
                if !self.lines.has_more()
                    && !matches!(timeout(LINGER, stream.read_buf(self.lines.buffer())).await, Ok(Ok(1..)))
                {
                    break;
                }
            }
        };
        let _ = timeout(REST_TIMEOUT, rest).await;
        End::Gone
    }

    /// Answers the lines that have arrived whole, or as many of them as have answers for one write.
    async fn answer_lines(&mut self) -> Result<(), End> {
        while !self.answers.are_many() {
            let line = match self.lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    let foreign = self.opening.is_binary(self.lines.unfinished());
                    return if foreign { Err(self.refuse(PushFailure::Malformed, End::Foreign)) } else { Ok(()) };
                }
                Err(too_long) => {
                    debug!(connection = self.sender.connection.0, %too_long);
                    return Err(self.refuse(PushFailure::TooLong, End::TooLong));
                }
            };
            if self.opening.is_foreign(line) {
                return Err(self.refuse(PushFailure::Malformed, End::Foreign));
            }
            answer(self.context, self.sender, line, &mut self.answers).await;
            // Nobody waits behind a sender that has a great many lines ready.
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    fn refuse(&mut self, why: PushFailure, end: End) -> End {
        self.answers.fail(why);
        end
    }
}

async fn answer(context: &Context, sender: &Sender, line: &[u8], answers: &mut Answers<'_>) {
    let Ok(line) = str::from_utf8(line).map(ByteString::from) else {
        return answers.fail(PushFailure::Malformed);
    };
    let answer = match context.policy.router.push(sender, &line).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_refused)) => Err(PushFailure::Refused),
        Err(_logged) => Err(PushFailure::Failed),
    };
    let Answer { commands, reply } = match answer {
        Ok(answer) => answer,
        Err(why) => return answers.fail(why),
    };
    // Before anything is done: without room for its reply, the line comes to nothing.
    if reply.as_ref().is_some_and(|reply| !answers.make_room(reply.len())) {
        return answers.fail(PushFailure::NoRoom);
    }
    let reached = delivery::act_alone(&context.registry, commands).await;
    match reply {
        Some(reply) => answers.reply(&reply),
        None if reached => answers.ok(),
        None => answers.fail(PushFailure::Unreached),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_connect_unless_told_otherwise() {
        let office: IpNet = "192.0.2.0/24".parse().unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_allowed(&[], address("127.0.0.1")));
        assert!(is_allowed(&[], address("::1")));
        assert!(is_allowed(&[], address("::ffff:127.0.0.1")));
        assert!(!is_allowed(&[], address("192.0.2.7")));
        assert!(is_allowed(&[office], address("192.0.2.7")));
        assert!(!is_allowed(&[office], address("127.0.0.1")));
    }
}
