//! Senders that push to uids, the group and everyone, each on one gateway and then on another.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hotgate_tests::Admin;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::clients::{Crowd, GROUP};
use super::random::Random;
use super::record::{Outcome, To};

/// How long a sender waits for a result. The gateway may be stopped for some seconds.
const RESULT: Duration = Duration::from_secs(10);

/// The most messages that a sender pushes before it goes to another gateway.
const VISIT: usize = 60;

/// Pushes again and again. One sender in three sends several messages before it reads the results.
pub(super) async fn push_on(crowd: Arc<Crowd>, uids: usize, sends_ahead: bool, mut random: Random) {
    loop {
        let busy = crowd.begin().await;
        let most = if sends_ahead { 8 } else { 1 };
        if visit(&crowd, uids, most, &mut random).await.is_err() {
            drop(busy);
            sleep(random.time(50..200)).await;
        }
    }
}

/// Pushes some messages through one gateway.
async fn visit(crowd: &Crowd, uids: usize, most: usize, random: &mut Random) -> io::Result<()> {
    let (gateway, place) = crowd.places.any(random).ok_or(io::ErrorKind::NotFound)?;
    let mut requests = Requests::open(&place.api).await?;
    let stream = crowd.record.stream();
    for _ in 0..1 + random.below(VISIT) {
        if !crowd.is_running() {
            break;
        }
        let (mut numbers, mut lines) = (Vec::new(), String::new());
        for _ in 0..1 + random.below(most) {
            let to = match random.below(20) {
                0 => To::Everyone,
                1 | 2 => To::Group,
                // Nobody has the last one.
                _ => To::Uid(random.below(uids + 1)),
            };
            let number = crowd.record.push(stream, gateway, to);
            let recipient = match to {
                To::Uid(uid) => format!(r#""uid":"u{uid}""#),
                To::Group => format!(r#""group":"{GROUP}""#),
                To::Everyone => r#""everyone":true"#.to_owned(),
            };
            lines += &format!("{{{recipient},\"text\":\"{number}\"}}\n");
            numbers.push(number);
        }
        let (outcomes, result) = requests.ask(&lines, numbers.len()).await;
        let unknown = std::iter::repeat(Outcome::Unknown);
        for (number, outcome) in numbers.into_iter().zip(outcomes.into_iter().chain(unknown)) {
            crowd.record.pushed(number, outcome);
        }
        result?;
        sleep(random.time(1..40)).await;
    }
    Ok(())
}

/// A request that stays open: one message a line goes in, one result a line comes out.
struct Requests {
    stream: TcpStream,
    received: Vec<u8>,
    /// True once the answer has begun, unless it is a refusal.
    is_accepted: bool,
}

impl Requests {
    async fn open(api: &Admin) -> io::Result<Self> {
        let mut stream = TcpStream::connect(api.address).await?;
        stream.set_nodelay(true)?;
        let request = api.request("POST /v1/stream").and("Transfer-Encoding", "chunked");
        stream.write_all(&request.encode()).await?;
        Ok(Self { stream, received: Vec::new(), is_accepted: false })
    }

    /// Sends lines and reads as many results. Fewer results come with the error that ended the request.
    async fn ask(&mut self, lines: &str, count: usize) -> (Vec<Outcome>, io::Result<()>) {
        let mut outcomes = Vec::new();
        let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
        if let Err(error) = self.stream.write_all(chunk.as_bytes()).await {
            return (outcomes, Err(error));
        }
        while outcomes.len() < count {
            let value = match timeout(RESULT, self.next()).await {
                Ok(Ok(value)) => value,
                Ok(Err(error)) => return (outcomes, Err(error)),
                Err(_) => return (outcomes, Err(io::ErrorKind::TimedOut.into())),
            };
            // The whole request was refused, or the gateway has ended it: the other messages are not carried out.
            let ended = if self.is_accepted { value["summary"]["ended"].as_str() } else { value["reason"].as_str() };
            if let Some(reason) = ended {
                outcomes.resize(count, Outcome::Failed(reason.to_owned()));
                return (outcomes, Err(io::ErrorKind::ConnectionAborted.into()));
            }
            outcomes.push(outcome(&value));
        }
        (outcomes, Ok(()))
    }

    /// The next line of JSON in the answer. The heads of the answer and of chunks are none.
    async fn next(&mut self) -> io::Result<Value> {
        loop {
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                self.is_accepted |= line.starts_with(b"HTTP/1.1 200 ");
                if let Ok(value @ Value::Object(_)) = serde_json::from_slice(&line) {
                    return Ok(value);
                }
            }
            // A refusal has no line end.
            if let (false, Ok(value @ Value::Object(_))) = (self.is_accepted, serde_json::from_slice(&self.received)) {
                return Ok(value);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn outcome(result: &Value) -> Outcome {
    match (result["status"].as_u64(), result["reason"].as_str()) {
        (Some(200), _) => Outcome::Reached(result["reached"].as_u64().expect("a number") as usize),
        (Some(504), Some("unknown")) => Outcome::Unknown,
        (_, Some(reason)) => Outcome::Failed(reason.to_owned()),
        _ => panic!("a result, not {result}"),
    }
}
