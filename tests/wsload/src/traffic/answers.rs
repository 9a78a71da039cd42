//! The account of the answers that senders get.

use std::collections::HashMap;

use serde_json::Value;

use super::{Carrier, Traffic, Via};
use crate::http::{Head, Length, Lines, Message};
use crate::proto::sample;

/// The answer to a push by the HTTP API that has reached one connection, and the result of such an item.
const REACHED: &[u8] = br#"{"reached":1}"#;
const ITEM_REACHED: &[u8] = br#"{"status":200,"reached":1}"#;

/// An answer to one message.
enum Answer<'a> {
    Ok,
    Fail,
    Other(&'a str),
}

/// The answer to a stream, as far as it has arrived.
#[derive(Default)]
pub(super) struct StreamAnswer {
    /// True after the head.
    begun: bool,
    lines: Lines,
    /// The number of results so far.
    results: u64,
    /// True after the summary.
    pub(super) summarised: bool,
}

impl Traffic {
    /// Handles bytes that a sender has received. Returns the number of used bytes. An error ends the connection.
    pub(super) fn answers(&mut self, m: u32, data: &[u8], now: u64) -> Result<usize, String> {
        match self.cfg.via {
            Via::Push(Carrier::Stream) => self.stream_results(m, data, now),
            Via::Push(Carrier::Http | Carrier::Batch) => self.responses(m, data, now),
            _ => Ok(self.text_replies(m, data, now)),
        }
    }

    #[inline]
    fn reply(&mut self, m: u32, answer: &Answer<'_>, now: u64) {
        let Some(w) = self.push_senders[m as usize].waiting.pop_front() else {
            self.n.replies_other += 1;
            self.oddities.add("answer without a line");
            return;
        };
        let (ts, online) = (w >> 1, w & 1 == 1);
        match answer {
            Answer::Ok => {
                self.n.replies_ok += 1;
                self.n.ok_for_offline += !online as u64;
            }
            Answer::Fail => {
                self.n.replies_fail += 1;
                self.n.fail_for_online += online as u64;
            }
            Answer::Other(text) => self.other(text.as_bytes()),
        }
        if matches!(answer, Answer::Ok) != online
            && let Some(t) = &mut self.timeline
        {
            t.error(now);
        }
        if now >= self.measure_from && now < self.measure_to {
            self.n.replies_measured += 1;
        }
        if ts >= self.measure_from {
            self.reply_latency.record(now.saturating_sub(ts));
        }
        self.release(m, 1, now);
    }

    fn other(&mut self, text: &[u8]) {
        self.n.replies_other += 1;
        if self.n.replies_other <= 1000 {
            self.oddities.add(&sample(text));
        }
    }

    fn text_replies(&mut self, m: u32, data: &[u8], now: u64) -> usize {
        let mut pos = 0;
        loop {
            let rest = &data[pos..];
            if rest.starts_with(b"ok\n") {
                self.reply(m, &Answer::Ok, now);
                pos += 3;
            } else if rest.starts_with(b"fail\n") {
                self.reply(m, &Answer::Fail, now);
                pos += 5;
            } else {
                let Some(nl) = memchr::memchr(b'\n', rest) else { return pos };
                match rest[..nl].strip_suffix(b"\r").unwrap_or(&rest[..nl]) {
                    b"ok" => self.reply(m, &Answer::Ok, now),
                    b"fail" => self.reply(m, &Answer::Fail, now),
                    other => self.other(other),
                }
                pos += nl + 1;
            }
        }
    }

    // ------------------------------------------------------------ the HTTP API

    /// Handles complete answers to pushes or batches.
    fn responses(&mut self, m: u32, data: &[u8], now: u64) -> Result<usize, String> {
        let mut pos = 0;
        while let Some(Message { head, body, size }) = Message::parse(&data[pos..])? {
            pos += size;
            match (head.status(), &*body) {
                (200, REACHED) => self.reply(m, &Answer::Ok, now),
                (200, body) if self.cfg.via.is(Carrier::Batch) => self.batch_results(m, body, now),
                (status, body) => {
                    let text = format!("{status} {}", String::from_utf8_lossy(body));
                    let object = serde_json::from_slice(body).unwrap_or_default();
                    // A refused batch is the answer to each of its items.
                    for _ in 0..self.push_senders[m as usize].waiting.len().max(1) {
                        self.reply(m, &meaning(status.into(), &object, &text), now);
                    }
                }
            }
        }
        Ok(pos)
    }

    fn batch_results(&mut self, m: u32, body: &[u8], now: u64) {
        let items = self.push_senders[m as usize].waiting.len();
        let list = body.strip_prefix(b"{\"results\":[").and_then(|rest| rest.strip_suffix(b"]}"));
        // Parsing would cost more than everything else here, so the usual results are only compared.
        let usual = list.is_some_and(|list| {
            let mut results = list.chunks(ITEM_REACHED.len() + 1);
            results.len() == items && results.all(|it| it.strip_suffix(b",").unwrap_or(it) == ITEM_REACHED)
        });
        if usual {
            return (0..items).for_each(|_| self.reply(m, &Answer::Ok, now));
        }
        let mut answer: HashMap<String, Vec<Value>> = serde_json::from_slice(body).unwrap_or_default();
        let mut results = answer.remove("results").unwrap_or_default();
        // Results that are missing are null.
        results.resize(results.len().max(items), Value::Null);
        results.iter().for_each(|result| self.item_result(m, result, now));
    }

    fn item_result(&mut self, m: u32, result: &Value, now: u64) {
        let status = result["status"].as_u64().unwrap_or(0);
        self.reply(m, &meaning(status, result, &result.to_string()), now);
    }

    /// Handles the answer to a stream as it arrives.
    fn stream_results(&mut self, m: u32, data: &[u8], now: u64) -> Result<usize, String> {
        let mut answer = std::mem::take(&mut self.push_senders[m as usize].stream);
        let mut pos = 0;
        if !answer.begun {
            let Some(head) = Head::parse(data)? else { return Ok(0) };
            if head.status() != 200 || head.length != Length::Chunked {
                let body = String::from_utf8_lossy(&data[head.text.len()..]);
                return Err(format!("the stream is refused: {} {body}", head.start_line()));
            }
            (answer.begun, pos) = (true, head.text.len());
        }
        let StreamAnswer { lines, results, summarised, .. } = &mut answer;
        pos += lines.read(&data[pos..], |line| {
            if line == ITEM_REACHED {
                *results += 1;
                return self.reply(m, &Answer::Ok, now);
            }
            let result: Value = serde_json::from_slice(line).unwrap_or_default();
            match result.get("summary") {
                Some(summary) => {
                    *summarised = true;
                    if summary["items"] != *results || summary.get("ended").is_some() {
                        self.other(line);
                    }
                }
                None => {
                    *results += 1;
                    self.item_result(m, &result, now);
                }
            }
        })?;
        self.push_senders[m as usize].stream = answer;
        Ok(pos)
    }
}

/// What a status of the API and its object mean. Every uid has one connection.
fn meaning<'a>(status: u64, object: &Value, text: &'a str) -> Answer<'a> {
    match status {
        200 if object["reached"] == 1 => Answer::Ok,
        404 if object["reason"] == "offline" => Answer::Fail,
        _ => Answer::Other(text),
    }
}
