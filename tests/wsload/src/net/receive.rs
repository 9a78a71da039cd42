//! Events of sockets: connecting, the upgrade, frames.

use super::connection::{Aside, ConnId, Gone, Handler, State};
use super::{Net, SCRATCH};
use crate::sys;
use crate::ws::{self, Parsed};

impl Net {
    pub(super) fn on_writable<H: Handler>(&mut self, h: &mut H, id: ConnId) {
        let c = &mut self.conns[id as usize];
        c.writable = true;
        if c.state != State::Connecting {
            if let (Some(tls), Some(socket)) = (&mut c.tls, &c.socket) {
                // An error is found by the next read.
                _ = tls.flush(socket);
            }
            self.flush_one(id);
            return;
        }
        let now = sys::monotonic_ns() - self.epoch;
        if let Some(e) = c.socket.as_ref().and_then(sys::connect_error) {
            return self.gone(h, id, Gone::Refused(e.to_string()), now);
        }
        c.state = State::Open;
        if c.raw {
            let tag = c.tag;
            h.on_open(self, id, tag, now);
            return;
        }
        let aside = c.aside.take().unwrap_or_default();
        let (host, headers) = (std::mem::take(&mut self.cfg.host), std::mem::take(&mut self.cfg.headers));
        self.write(id, |out| ws::request(out, &host, &aside.path, &aside.key, &headers));
        (self.cfg.host, self.cfg.headers) = (host, headers);
        self.flush_one(id);
        let c = &mut self.conns[id as usize];
        c.state = State::Upgrading;
        c.aside = Some(aside);
    }

    pub(super) fn on_readable<H: Handler>(&mut self, h: &mut H, id: ConnId, hangup: bool) {
        let generation = self.conns[id as usize].generation;
        if self.conns[id as usize].state == State::Connecting {
            // The peer hung up before the connection was writable.
            let now = self.now();
            let e = self.conns[id as usize].socket.as_ref().and_then(sys::connect_error);
            let text = e.map_or("connection hung up".into(), |e| e.to_string());
            return self.gone(h, id, Gone::Refused(text), now);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        loop {
            let c = &mut self.conns[id as usize];
            let Some(socket) = &c.socket else { break };
            let have = c.rest.len();
            if have > 0 {
                if scratch.len() < have + SCRATCH / 2 {
                    scratch.resize(have + SCRATCH, 0);
                }
                scratch[..have].copy_from_slice(&c.rest);
                c.rest.clear();
            }
            self.stats.recvs += 1;
            let got = match &mut c.tls {
                Some(tls) => tls.receive(socket, &mut scratch[have..]),
                None => sys::receive(socket, &mut scratch[have..]),
            };
            let now = sys::monotonic_ns() - self.epoch;
            let n = match got {
                Ok(Some(0)) => {
                    self.gone(h, id, Gone::Eof, now);
                    break;
                }
                Ok(Some(n)) => n,
                Ok(None) => {
                    c.rest.extend_from_slice(&scratch[..have]);
                    break;
                }
                Err(e) => {
                    let why = if c.state == State::Upgrading {
                        Gone::Handshake(format!("handshake: {e}"))
                    } else {
                        Gone::Io(e.to_string())
                    };
                    self.gone(h, id, why, now);
                    break;
                }
            };
            self.stats.bytes_in += n as u64;
            let total = have + n;
            let used = self.consume(h, id, generation, &scratch[..total], now);
            let c = &mut self.conns[id as usize];
            if c.generation != generation {
                break;
            }
            if used < total {
                c.rest.extend_from_slice(&scratch[used..total]);
            }
            // With edge-triggered events, a short read means that the stream is drained. After a hang-up, reading goes
            // on until the end of the stream.
            if total < scratch.len() && !hangup && c.tls.is_none() {
                break;
            }
        }
        if scratch.len() > 16 * SCRATCH {
            scratch.truncate(SCRATCH);
            scratch.shrink_to_fit();
        }
        self.scratch = scratch;
    }

    /// Handles everything complete in `buf`. Returns the number of used bytes.
    #[inline]
    fn consume<H: Handler>(&mut self, h: &mut H, id: ConnId, generation: u32, buf: &[u8], now: u64) -> usize {
        let c = &mut self.conns[id as usize];
        let tag = c.tag;
        if c.raw {
            return h.on_raw(self, id, tag, buf, now);
        }
        let mut pos = 0;
        if c.state == State::Upgrading {
            let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") else {
                if buf.len() > ws::MAX_HEAD {
                    self.gone(h, id, Gone::Handshake("handshake: response head too long".into()), now);
                }
                return 0;
            };
            pos = end + 4;
            let key = c.aside.take().map(|a| a.key).unwrap_or_default();
            if let Err(e) = ws::check_response(&buf[..pos], &key) {
                self.gone(h, id, Gone::Handshake(e), now);
                return 0;
            }
            c.state = State::Open;
            h.on_open(self, id, tag, now);
        }
        loop {
            if self.conns[id as usize].generation != generation {
                return pos;
            }
            let head = match ws::parse_head(&buf[pos..], self.cfg.max_frame) {
                Parsed::Head(h) => h,
                Parsed::Incomplete => return pos,
                Parsed::Bad(e) => {
                    self.gone(h, id, Gone::Protocol(e), now);
                    return pos;
                }
            };
            if head.mask.is_some() {
                self.gone(h, id, Gone::Protocol("masked frame from a server"), now);
                return pos;
            }
            let start = pos + head.size;
            let end = start + head.len;
            if end > buf.len() {
                return pos;
            }
            let body = &buf[start..end];
            pos = end;
            if (head.op == ws::TEXT || head.op == ws::BINARY) && head.fin && self.conns[id as usize].aside.is_none() {
                h.on_message(self, id, tag, body, now); // the hot path
            } else if !self.rare_frame(h, id, head, body, now) {
                return pos;
            }
        }
    }

    /// Handles fragmented frames and control frames. Returns `false` when the connection has ended.
    #[cold]
    fn rare_frame<H: Handler>(&mut self, h: &mut H, id: ConnId, head: ws::Head, body: &[u8], now: u64) -> bool {
        let c = &mut self.conns[id as usize];
        let tag = c.tag;
        match head.op {
            ws::PING => {
                self.stats.pings += 1;
                if self.cfg.answer_pings {
                    self.put(id, ws::PONG, &[body]);
                }
            }
            ws::PONG => h.on_pong(self, id, tag, now),
            ws::CLOSE => {
                let code = match body {
                    [a, b, ..] => u16::from_be_bytes([*a, *b]),
                    [] => 1005,
                    _ => {
                        self.gone(h, id, Gone::Protocol("close frame with one byte"), now);
                        return false;
                    }
                };
                if !c.close_sent {
                    self.put(id, ws::CLOSE, &[&body[..body.len().min(2)]]);
                    self.flush_one(id);
                }
                self.gone(h, id, Gone::CloseFrame(code), now);
                return false;
            }
            ws::CONT => {
                let Some(mut whole) = c.aside.as_mut().and_then(|a| a.fragments.take()) else {
                    self.gone(h, id, Gone::Protocol("continuation without a start"), now);
                    return false;
                };
                if whole.len() + body.len() > self.cfg.max_frame {
                    self.gone(h, id, Gone::Protocol("message too large"), now);
                    return false;
                }
                whole.extend_from_slice(body);
                if head.fin {
                    c.aside = None;
                    h.on_message(self, id, tag, &whole, now);
                } else if let Some(a) = c.aside.as_mut() {
                    a.fragments = Some(whole);
                }
            }
            _ => {
                if c.aside.is_some() {
                    self.gone(h, id, Gone::Protocol("new message inside a fragmented one"), now);
                    return false;
                }
                if head.fin {
                    h.on_message(self, id, tag, body, now);
                } else {
                    let aside = Aside { fragments: Some(body.to_vec()), ..Aside::default() };
                    c.aside = Some(Box::new(aside));
                }
            }
        }
        true
    }
}
