//! The HTTP API of the test server, as much of it as wsload's senders need.

use std::collections::HashMap;
use std::io::Write as _;

use serde_json::value::RawValue;

use super::dialogue::nth;
use super::server::{Kind, Server};
use crate::http::{Head, Lines, Message};
use crate::ws::header;

/// The members of a JSON object.
type Object<'a> = HashMap<String, &'a RawValue>;

/// A status, and the members of the JSON object beside it.
type Outcome = (u16, String);

/// A request for a stream.
#[derive(Default)]
pub(super) struct Stream {
    lines: Lines,
    items: u64,
    reached: u64,
}

fn failure(status: u16, reason: &str) -> Outcome {
    (status, format!("\"reason\":\"{reason}\",\"error\":\"an error for tests\""))
}

impl Server {
    /// Handles bytes of an API connection. Returns the number of used bytes.
    pub(super) fn api(&mut self, id: u32, buf: &[u8]) -> usize {
        let mut pos = 0;
        while !self.peers[id as usize].closing {
            let used = match self.peers[id as usize].stream.take() {
                Some(stream) => self.stream_items(id, stream, &buf[pos..]),
                None => self.request(id, &buf[pos..]),
            };
            match used {
                Ok(0) => break,
                Ok(bytes) => pos += bytes,
                Err(why) => {
                    eprintln!("selftest-server: {why}");
                    self.drop_peer(id);
                    break;
                }
            }
        }
        pos
    }

    fn request(&mut self, id: u32, data: &[u8]) -> Result<usize, String> {
        let Some(head) = Head::parse(data)? else { return Ok(0) };
        let target = head.start_line().split(' ').nth(1).unwrap_or_default();
        if header(head.text, "Authorization") != Some(&format!("Bearer {}", self.args.api_token)) {
            self.respond(id, &failure(401, "unauthorized"));
            self.peers[id as usize].closing = true;
            return Ok(data.len());
        }
        if target == "/v1/stream" {
            let p = &mut self.peers[id as usize];
            p.out.extend_from_slice(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            p.stream = Some(Box::default());
            self.touch(id);
            return Ok(head.text.len());
        }
        let Some(Message { body, size, .. }) = Message::parse(data)? else { return Ok(0) };
        let outcome = match target.split_once('=').unwrap_or((target, "")) {
            ("/v1/push?uid", uid) => self.push_to(uid, &body),
            ("/v1/push?everyone", "true") => self.push_to_everyone(&body),
            ("/v1/batch", _) => Some(self.batch(&body)),
            _ => Some(failure(404, "no-such-path")),
        };
        if let Some(outcome) = outcome {
            self.respond(id, &outcome);
        }
        Ok(size)
    }

    fn respond(&mut self, id: u32, (status, members): &Outcome) {
        // Writing to memory does not fail.
        let _ = write!(
            self.peers[id as usize].out,
            "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{{{members}}}",
            members.len() + 2
        );
        self.touch(id);
    }

    /// Pushes to the newest connection of a uid. Returns `None` if there is no answer.
    fn push_to(&mut self, uid: &str, message: &[u8]) -> Option<Outcome> {
        if nth(self.answers + 1, self.args.busy_every) {
            self.answers += 1;
            return Some(failure(503, "budget"));
        }
        let ok = self.push(self.newest(uid.as_bytes()), message)?;
        Some(if ok { (200, "\"reached\":1".into()) } else { failure(404, "offline") })
    }

    fn push_to_everyone(&mut self, message: &[u8]) -> Option<Outcome> {
        let peers = self.peers.iter().zip(0u32..);
        let all: Vec<u32> = peers.filter(|(p, _)| p.kind == Kind::Ws && p.authed).map(|(_, id)| id).collect();
        self.answers += 1;
        self.broadcast(&all, message);
        let reached = if nth(self.answers, self.args.fail_every) { 0 } else { all.len() };
        (!nth(self.answers, self.args.mute_every)).then(|| (200, format!("\"reached\":{reached}")))
    }

    fn batch(&mut self, body: &[u8]) -> Outcome {
        self.batches += 1;
        if nth(self.batches, self.args.busy_batch_every) {
            return failure(503, "budget");
        }
        let Ok(batch) = serde_json::from_slice::<HashMap<String, Vec<&RawValue>>>(body) else {
            return failure(400, "bad-request");
        };
        let items = batch.get("items").map_or(&[][..], Vec::as_slice);
        let results: Vec<String> =
            items.iter().filter_map(|item| Some(result(&self.item(item.get().as_bytes())?))).collect();
        (200, format!("\"results\":[{}]", results.join(",")))
    }

    fn item(&mut self, item: &[u8]) -> Option<Outcome> {
        let read = || {
            let object: Object<'_> = serde_json::from_slice(item).ok()?;
            let string = |name: &str| serde_json::from_str::<String>(object.get(name)?.get()).ok();
            let message = string("text").or_else(|| Some(object.get("json")?.get().to_owned()))?;
            Some((string("uid")?, message))
        };
        match read() {
            Some((uid, message)) => self.push_to(&uid, message.as_bytes()),
            None => Some(failure(400, "bad-request")),
        }
    }

    fn stream_items(&mut self, id: u32, mut stream: Box<Stream>, data: &[u8]) -> Result<usize, String> {
        let Stream { lines, items, reached } = &mut *stream;
        let mut results = String::new();
        let mut used = lines.read(data, |line| {
            let outcome = self.item(line);
            *items += 1;
            *reached += u64::from(outcome.as_ref().is_some_and(|(status, _)| *status == 200));
            if let Some(outcome) = outcome {
                results += &result(&outcome);
                results.push('\n');
            }
        })?;
        let cut = self.args.end_stream_at > 0 && *items >= self.args.end_stream_at;
        let end = if lines.ended || cut {
            let why = if cut { ",\"ended\":\"draining\"" } else { "" };
            let failed = *items - *reached;
            results +=
                &format!("{{\"summary\":{{\"items\":{items},\"reached\":{reached},\"failed\":{failed}{why}}}}}\n");
            "0\r\n\r\n"
        } else {
            ""
        };
        let p = &mut self.peers[id as usize];
        if !results.is_empty() {
            let _ = write!(p.out, "{:x}\r\n{results}\r\n{end}", results.len());
            self.touch(id);
        }
        let p = &mut self.peers[id as usize];
        if end.is_empty() {
            p.stream = Some(stream);
        } else if cut {
            p.closing = true;
            used = data.len();
        }
        Ok(used)
    }
}

fn result((status, members): &Outcome) -> String {
    format!("{{\"status\":{status},{members}}}")
}
