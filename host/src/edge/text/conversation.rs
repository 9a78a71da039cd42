//! The connection of one sender: its lines, and the answers to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::answers::{Answers, Reply};
use super::context::Context;
use super::foreign::ProtocolCheck;
use super::lines::Lines;
use crate::base::message::ConnectionId;
use crate::base::metrics::{METRICS, PushFailure, PushWay};
use crate::edge::listener::Stream;
use crate::hub::command::{Answer, Outcome, Sender};
use crate::hub::delivery::{self, Unanswered};
use crate::policy::PushError;

/// How long a sender may leave its answers unread. Its lines are not read meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closing connection may take to read its last answers. Also how long to wait for more lines of a sender
/// that no longer reads its answers.
const LINGER: Duration = Duration::from_secs(2);
/// How long it may take to carry out the lines of such a sender.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one sender until the sender or `shutdown` ends the connection.
pub(super) async fn serve(
    context: Arc<Context>,
    mut stream: impl Stream,
    peer: SocketAddr,
    connection: ConnectionId,
    shutdown: CancellationToken,
) {
    let sender = Sender { connection, remote_address: peer.to_string() };
    let end = SenderConversation::new(&context, &sender).run(&mut stream, &shutdown).await;
    debug!(connection = connection.0, ?end, "sender's connection ended");
    if end == End::Foreign {
        context.refuse(peer, "it speaks another protocol, such as HTTP or TLS, to the text port");
    }
    if end != End::Gone {
        // Discard further lines: closing with unread data would reset the connection, and the last answers might be
        // lost.
        let discard = async {
            stream.shutdown().await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        let _ = timeout(LINGER, discard).await;
    }
}

/// Carries out one line of an operator. Returns what the text port would answer.
pub(in crate::edge) async fn push_line(context: &Context, peer: SocketAddr, line: &[u8]) -> String {
    let sender = Sender { connection: ConnectionId::next(), remote_address: peer.to_string() };
    let mut conversation = SenderConversation::new(context, &sender);
    let buffer = conversation.lines.buffer();
    buffer.extend_from_slice(line);
    buffer.extend_from_slice(b"\n");
    // Its error says that the connection would end. The answer is there nevertheless.
    let _ = conversation.answer_lines().await;
    conversation.answers.wait_for_all().await;
    String::from_utf8_lossy(conversation.answers.as_bytes()).trim_end_matches('\n').to_owned()
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The sender ended the connection, or is gone.
    Gone,
    /// A line was too long.
    TooLong,
    /// The client speaks another protocol.
    Foreign,
    /// The gateway shuts down.
    Shutdown,
}

/// The lines and answers of one sender.
struct SenderConversation<'a> {
    context: &'a Context,
    sender: &'a Sender,
    lines: Lines,
    opening: ProtocolCheck,
    /// Answers that have not been written yet.
    answers: Answers<'a>,
}

impl<'a> SenderConversation<'a> {
    fn new(context: &'a Context, sender: &'a Sender) -> Self {
        let lines = Lines::new(context.live.load().text.max_line);
        Self { context, sender, lines, opening: ProtocolCheck::default(), answers: Answers::new(&context.replies) }
    }

    async fn run(&mut self, stream: &mut impl Stream, shutdown: &CancellationToken) -> End {
        loop {
            let answered = self.answer_lines().await;
            if answered.is_err() {
                self.answers.wait_for_all().await;
            }
            if !self.answers.is_empty() {
                if !self.write_answers(stream).await {
                    return match answered {
                        Ok(()) => self.carry_out_rest(stream, shutdown).await,
                        Err(_) => End::Gone,
                    };
                }
                if answered.is_ok() && self.lines.has_more() && !self.answers.too_many_wait() {
                    continue;
                }
            }
            if let Err(end) = answered {
                return end;
            }
            let end = tokio::select! {
                () = self.answers.wait_for_some(), if self.answers.has_waiting() => continue,
                () = shutdown.cancelled() => End::Shutdown,
                read = stream.read_buf(self.lines.buffer()), if !self.answers.too_many_wait() => match read {
                    Ok(0) | Err(_) => End::Gone,
                    Ok(_) => continue,
                }
            };
            if self.answers.has_waiting() {
                self.answers.wait_for_all().await;
                self.write_answers(stream).await;
            }
            return end;
        }
    }

    /// Writes all answers that are known. Returns `false` if the sender does not take them.
    async fn write_answers(&mut self, stream: &mut impl Stream) -> bool {
        let write = async {
            stream.write_all(self.answers.as_bytes()).await?;
            stream.flush().await
        };
        let written = timeout(WRITE_TIMEOUT, write).await;
        self.answers.written();
        matches!(written, Ok(Ok(())))
    }

    /// Carries out the lines of a sender that no longer reads its answers: the sender has left, or has not read for too
    /// long.
    async fn carry_out_rest(&mut self, stream: &mut impl Stream, shutdown: &CancellationToken) -> End {
        let rest = async {
            while self.answer_lines().await.is_ok() && !shutdown.is_cancelled() {
                self.answers.forget_waiting();
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

    /// Answers the complete lines that have arrived, until the answers are enough for one write.
    async fn answer_lines(&mut self) -> Result<(), End> {
        while !self.answers.are_many() && !self.answers.too_many_wait() {
            let line = match self.lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    let foreign = self.opening.is_binary(self.lines.unfinished());
                    return if foreign { Err(self.refuse(PushFailure::Malformed, End::Foreign)) } else { Ok(()) };
                }
                Err(too_long) => {
                    debug!(connection = self.sender.connection.0, %too_long, "line refused");
                    return Err(self.refuse(PushFailure::TooLong, End::TooLong));
                }
            };
            if self.opening.is_foreign(line) {
                return Err(self.refuse(PushFailure::Malformed, End::Foreign));
            }
            answer(self.context, self.sender, line, &mut self.answers).await;
            // A sender with very many lines must not keep its thread from others.
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
    let begun = Instant::now();
    match carry_out(context, sender, line, answers).await {
        None => METRICS.push_seconds.observe(PushWay::Text, begun.elapsed()),
        Some(Unfinished { reached, unanswered, reply }) => answers.later(begun, reached, unanswered, reply),
    }
}

/// A line for which other gateways are asked.
struct Unfinished {
    /// True if each of its other deliveries has reached somebody.
    reached: bool,
    unanswered: Unanswered,
    reply: Option<Reply>,
}

/// Carries a line out. Answers it, unless other gateways have to answer first.
async fn carry_out(context: &Context, sender: &Sender, line: &[u8], answers: &mut Answers<'_>) -> Option<Unfinished> {
    let fail = |answers: &mut Answers<'_>, why| {
        answers.fail(why);
        None
    };
    let Ok(line) = str::from_utf8(line).map(ByteString::from) else {
        return fail(answers, PushFailure::Malformed);
    };
    let Answer { commands, reply } = match context.policy.router.push(sender, &line).await {
        Ok(answer) => answer,
        Err(PushError::Refused) => return fail(answers, PushFailure::Refused),
        Err(PushError::Failed) => return fail(answers, PushFailure::Failed),
    };
    // Before anything is carried out: without room for its reply, a line must have no effect.
    let Ok(reply) = reply.map(|reply| answers.make_room(reply).ok_or(())).transpose() else {
        return fail(answers, PushFailure::NoRoom);
    };
    let mut reached = true;
    let count = |_, outcome: Outcome| reached &= outcome.reached > 0;
    let unanswered = delivery::apply_commands(&context.registry, commands, count).await;
    if !unanswered.is_empty() {
        return Some(Unfinished { reached, unanswered, reply });
    }
    answers.delivered(reached, reply);
    None
}
