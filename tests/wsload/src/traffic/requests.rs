//! What is sent around a message when it is pushed, and the requests of the HTTP API.

use std::io::Write as _;

use serde_json::Value;

use super::{Carrier, Item, Traffic, Via};
use crate::net::Net;

const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

impl Traffic {
    /// What is sent before and after stamp and padding of a message that is pushed to `uid`. The receiver gets `prefix`
    /// and `suffix` around them.
    pub(super) fn around_push(
        &self,
        carrier: Carrier,
        uid: &str,
        prefix: &str,
        suffix: &str,
    ) -> Result<(String, String), String> {
        let end = match (carrier, &self.api) {
            (Carrier::Text, _) | (_, None) => return Ok((prefix.to_string(), format!("{suffix}\n"))),
            (Carrier::Http, Some(api)) => {
                let head = api.post(&format!("/v1/push?uid={uid}"), "text/plain", Some(self.size));
                return Ok((head + prefix, suffix.to_string()));
            }
            (Carrier::Batch, Some(_)) => "},",
            (Carrier::Stream, Some(_)) => "}\n",
        };
        match self.cfg.item {
            Item::Json if serde_json::from_str::<Value>(&format!("{prefix}x{suffix}")).is_err() => {
                Err("--line-template is no JSON: it needs --item text".into())
            }
            Item::Json => Ok((format!("{{\"uid\":\"{uid}\",\"json\":{prefix}"), format!("{suffix}{end}"))),
            Item::Text => {
                let escaped = |text: &str| {
                    let quoted = Value::from(text).to_string();
                    quoted[1..quoted.len() - 1].to_string()
                };
                let before = format!("{{\"uid\":\"{uid}\",\"text\":\"{}", escaped(prefix));
                Ok((before, format!("{}\"{end}", escaped(suffix))))
            }
        }
    }

    /// Sends the head of a stream's request.
    pub(super) fn begin_stream(&mut self, net: &mut Net, m: u32) {
        let Some(api) = self.api.as_ref().filter(|_| self.cfg.via.is(Carrier::Stream)) else { return };
        let head = api.post("/v1/stream", NDJSON, None);
        net.write(self.push_senders[m as usize].conn, |out| out.extend_from_slice(head.as_bytes()));
    }

    /// Ends the requests of all streams.
    pub(super) fn end_streams(&self, net: &mut Net) {
        for p in self.push_senders.iter().filter(|p| p.ready && self.cfg.via.is(Carrier::Stream)) {
            net.write(p.conn, |out| out.extend_from_slice(b"0\r\n\r\n"));
        }
    }

    /// Sends the items of a sender that `emit` has gathered: as a batch, or as a chunk of the stream.
    #[inline]
    pub(super) fn send_items(&mut self, net: &mut Net, s: u32) {
        let (Via::Push(carrier), Some(api)) = (self.cfg.via, &self.api) else { return };
        let p = &mut self.push_senders[s as usize];
        if p.items.is_empty() {
            return;
        }
        let (start, end) = if carrier == Carrier::Stream {
            (format!("{:x}\r\n", p.items.len()), "\r\n")
        } else {
            // Without the comma after the last item.
            p.items.pop();
            let (start, end) = ("{\"items\":[", "]}");
            (api.post("/v1/batch", JSON, Some(start.len() + p.items.len() + end.len())) + start, end)
        };
        net.write(p.conn, |out| {
            // Writing to memory does not fail.
            let _ = write!(out, "{start}");
            out.extend_from_slice(&p.items);
            out.extend_from_slice(end.as_bytes());
        });
        p.items.clear();
    }
}
