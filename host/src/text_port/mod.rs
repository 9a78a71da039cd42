//! The life of one internal sender's TCP connection: lines come in, each is answered, in order. Many lines may arrive
//! in one read; their answers leave in one write.

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
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::lines::Lines;
use crate::config::TextConfig;
use crate::delivery;
use crate::message::ConnectionId;
use crate::metrics::{METRICS, PushFailure};
use crate::policy::{Answer, Policy, Sender};
use crate::registry::Registry;

/// Answers gathered before they are written although more lines wait.
const MAX_ANSWERS: usize = 16 << 10;
/// How long a sender may leave its answers unread. Its lines are not read meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that is being closed may take to read why.
const LINGER: Duration = Duration::from_secs(2);

const OK: &str = "ok";
const FAIL: &str = "fail";

/// What every sender's connection needs.
pub struct Context {
    /// Bounds and rules of the text port.
    pub config: TextConfig,
    /// What the plugins decide.
    pub policy: Arc<Policy>,
    /// Who is connected.
    pub registry: Arc<Registry>,
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
    let end = converse(&context, &mut stream, &sender, &shutdown).await;
    debug!(connection = connection.0, ?end, "sender's connection ended");
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
    /// A line was too long, or is HTTP.
    Refused,
    /// The gateway shuts down.
    Shutdown,
}

async fn converse(context: &Context, stream: &mut TcpStream, sender: &Sender, shutdown: &CancellationToken) -> End {
    let mut lines = Lines::new(context.config.max_line);
    let mut answers = String::new();
    loop {
        let mut refused = false;
        loop {
            match lines.next() {
                Ok(None) => break,
                Ok(Some(line)) => refused = answer(context, sender, line, &mut answers).await.is_err(),
                Err(too_long) => {
                    debug!(connection = sender.connection.0, %too_long);
                    fail(&mut answers, PushFailure::TooLong);
                    refused = true;
                }
            }
            if refused || answers.len() >= MAX_ANSWERS {
                break;
            }
            // Nobody waits behind a sender that has a great many lines ready.
            tokio::task::coop::consume_budget().await;
        }
        if !answers.is_empty() {
            let written = timeout(WRITE_TIMEOUT, stream.write_all(answers.as_bytes())).await;
            if !matches!(written, Ok(Ok(()))) {
                return End::Gone;
            }
            answers.clear();
            if !refused && lines.has_more() {
                continue;
            }
        }
        if refused {
            return End::Refused;
        }
        tokio::select! {
            () = shutdown.cancelled() => return End::Shutdown,
            read = stream.read_buf(lines.buffer()) => match read {
                Ok(0) | Err(_) => return End::Gone,
                Ok(_) => {}
            }
        }
    }
}

/// HTTP has come to the wrong port: by mistake, or sent by a web page in the hope that its body is taken for lines.
struct Http;

async fn answer(context: &Context, sender: &Sender, line: &[u8], answers: &mut String) -> Result<(), Http> {
    if is_http_request(line) {
        fail(answers, PushFailure::Malformed);
        return Err(Http);
    }
    let Ok(line) = str::from_utf8(line).map(ByteString::from) else {
        fail(answers, PushFailure::Malformed);
        return Ok(());
    };
    let answer = match context.policy.router.push(sender, &line).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_refused)) => Err(PushFailure::Refused),
        Err(_logged) => Err(PushFailure::Failed),
    };
    let Answer { commands, reply } = match answer {
        Ok(answer) => answer,
        Err(why) => {
            fail(answers, why);
            return Ok(());
        }
    };
    let reached = delivery::act_alone(&context.registry, commands).await;
    match reply {
        None if !reached => fail(answers, PushFailure::Unreached),
        reply => {
            METRICS.pushes_ok.increment();
            push_line(answers, reply.as_deref().unwrap_or(OK));
        }
    }
    Ok(())
}

fn fail(answers: &mut String, why: PushFailure) {
    METRICS.pushes_failed.increment(why);
    push_line(answers, FAIL);
}

fn push_line(answers: &mut String, line: &str) {
    answers.push_str(line);
    answers.push('\n');
}

/// `METHOD target HTTP/x`, as every HTTP/1 client begins (RFC 9112 §3).
fn is_http_request(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == b' ');
    let method = words.next().is_some_and(|word| !word.is_empty() && word.iter().all(u8::is_ascii_uppercase));
    method && words.next().is_some() && words.next().is_some_and(|word| word.starts_with(b"HTTP/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_recognised_and_nothing_else() {
        for line in ["GET / HTTP/1.1", "POST /push?x=1 HTTP/1.0", "OPTIONS * HTTP/1.1", "PRI * HTTP/2.0"] {
            assert!(is_http_request(line.as_bytes()), "{line}");
        }
        for line in ["", " ", "GET", "GET /", r#"{"uid":"GET / HTTP/1.1"}"#, "Host: x", "get / HTTP/1.1"] {
            assert!(!is_http_request(line.as_bytes()), "{line}");
        }
    }

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
