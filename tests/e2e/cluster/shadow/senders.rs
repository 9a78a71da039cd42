//! Senders that push to uids, the group and everyone, each on one gateway and then on another.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::clients::{Crowd, GROUP};
use super::random::Random;
use super::record::{Outcome, To};
use super::world::{GATEWAYS, Place};

/// How long a sender waits for a result. The gateway may be stopped for some seconds.
const RESULT: Duration = Duration::from_secs(10);

/// The most messages that a sender pushes before it goes to another gateway.
const VISIT: usize = 60;

/// Pushes again and again, to one gateway after the other.
pub(super) async fn push_on(crowd: Arc<Crowd>, uids: usize, way: Way, mut random: Random) {
    loop {
        let busy = crowd.begin().await;
        if visit(&crowd, uids, way, &mut random).await.is_err() {
            drop(busy);
            sleep(random.time(50..200)).await;
        }
    }
}

/// How a sender pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By the HTTP API, which carries out one message after the other.
    Http,
    /// By the text port, which has many under way at the same time.
    Text,
}

impl Way {
    /// The most messages that a sender sends before it reads the answers.
    fn most(self) -> usize {
        match self {
            // If one waited for another, nobody could say when it began.
            Self::Http => 1,
            Self::Text => 30,
        }
    }

    fn line(self, to: To, number: u64) -> String {
        match (self, to) {
            (Self::Http, To::Uid(uid)) => format!("{{\"uid\":\"u{uid}\",\"text\":\"{number}\"}}\n"),
            (Self::Http, To::Group) => format!("{{\"group\":\"{GROUP}\",\"text\":\"{number}\"}}\n"),
            (Self::Http, To::Everyone) => format!("{{\"everyone\":true,\"text\":\"{number}\"}}\n"),
            (Self::Text, To::Uid(uid)) => format!("to u{uid} {number}\n"),
            (Self::Text, To::Group) => format!("group {GROUP} {number}\n"),
            (Self::Text, To::Everyone) => format!("everyone {number}\n"),
        }
    }
}

/// Pushes some messages through one gateway.
async fn visit(crowd: &Crowd, uids: usize, way: Way, random: &mut Random) -> io::Result<()> {
    let (gateway, place) = crowd.places.any(random).ok_or(io::ErrorKind::NotFound)?;
    let mut requests = Requests::open(&place, way).await?;
    let stream = crowd.record.stream();
    for _ in 0..1 + random.below(VISIT) {
        if !crowd.is_running() {
            break;
        }
        let (mut numbers, mut lines) = (Vec::new(), String::new());
        for _ in 0..1 + random.below(way.most()) {
            let to = match random.below(20) {
                0 => To::Everyone,
                1 | 2 => To::Group,
                // Nobody has the last one.
                _ => To::Uid(random.below(uids + 1)),
            };
            let number = crowd.record.push(stream, gateway, to);
            lines += &way.line(to, number);
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

/// A connection on which one message a line goes in, and one answer a line comes out.
struct Requests {
    stream: TcpStream,
    way: Way,
    received: Vec<u8>,
    /// True once an HTTP answer has begun, unless it is a refusal.
    is_accepted: bool,
}

impl Requests {
    async fn open(place: &Place, way: Way) -> io::Result<Self> {
        let address = if way == Way::Http { place.api.address } else { place.text };
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if way == Way::Http {
            let request = place.api.request("POST /v1/stream").and("Transfer-Encoding", "chunked");
            stream.write_all(&request.encode()).await?;
        }
        Ok(Self { stream, way, received: Vec::new(), is_accepted: false })
    }

    /// Sends lines and reads as many results. Fewer results come with the error that ended the request.
    async fn ask(&mut self, lines: &str, count: usize) -> (Vec<Outcome>, io::Result<()>) {
        let mut outcomes = Vec::new();
        let chunk = match self.way {
            Way::Http => format!("{:x}\r\n{lines}\r\n", lines.len()),
            Way::Text => lines.to_owned(),
        };
        if let Err(error) = self.stream.write_all(chunk.as_bytes()).await {
            return (outcomes, Err(error));
        }
        while outcomes.len() < count {
            let value = match timeout(RESULT, self.next()).await {
                Ok(Ok(value)) => value,
                Ok(Err(error)) => return (outcomes, Err(error)),
                Err(_) => return (outcomes, Err(io::ErrorKind::TimedOut.into())),
            };
            match self.outcome(&value) {
                Ok(outcome) => outcomes.push(outcome),
                Err(reason) => {
                    outcomes.resize(count, Outcome::Failed(reason.to_owned()));
                    return (outcomes, Err(io::ErrorKind::ConnectionAborted.into()));
                }
            }
        }
        (outcomes, Ok(()))
    }

    /// The next answer: a JSON object, or a word. The heads of the HTTP answer and of its chunks are none.
    async fn next(&mut self) -> io::Result<Value> {
        loop {
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                if self.way == Way::Text {
                    return Ok(String::from_utf8_lossy(line.trim_ascii()).into());
                }
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

    /// What an answer says of one message; or why the gateway carries out none of those that have no answer yet.
    fn outcome<'a>(&self, answer: &'a Value) -> Result<Outcome, &'a str> {
        match (answer.as_str(), answer["status"].as_u64(), answer["reason"].as_str()) {
            // The text port says nothing of gateways that have not answered yet.
            (Some("ok"), ..) => Ok(Outcome::Reached(1, (0..GATEWAYS).collect())),
            // The text port does not say whether it is certain.
            (Some("fail"), ..) => Ok(Outcome::Unknown),
            (None, Some(200), _) => {
                let missing = answer["missing"].as_array().into_iter().flatten();
                // Gateways count from 1.
                let missing = missing.map(|node| node.as_u64().expect("a number") as usize - 1).collect();
                Ok(Outcome::Reached(answer["reached"].as_u64().expect("a number") as usize, missing))
            }
            (None, Some(504), Some("unknown")) => Ok(Outcome::Unknown),
            (None, Some(_), Some(reason)) if self.is_accepted => Ok(Outcome::Failed(reason.to_owned())),
            // The whole request was refused.
            (None, None, Some(reason)) if !self.is_accepted => Err(reason),
            _ => Err(answer["summary"]["ended"].as_str().unwrap_or_else(|| panic!("an answer, not {answer}"))),
        }
    }
}
