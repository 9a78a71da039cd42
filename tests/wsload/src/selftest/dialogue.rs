//! The answers of the test server, and the faults that it makes on request.

use std::time::Duration;

use super::Mode;
use super::pair::json_pair;
use super::server::{Kind, Server};
use crate::ws;

/// Returns `true` for every `every`-th number. 0 is never.
pub(super) fn nth(n: u64, every: u64) -> bool {
    every > 0 && n.is_multiple_of(every)
}

impl Server {
    pub(super) fn upgrade(&mut self, id: u32, head: &[u8]) {
        let head = String::from_utf8_lossy(head).to_string();
        let Some(key) = ws::header(&head, "Sec-WebSocket-Key") else { return self.drop_peer(id) };
        let mut accept = ws::accept_for(key);
        if self.args.bad_accept {
            accept.replace_range(0..1, if accept.starts_with('A') { "B" } else { "A" });
        }
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let p = &mut self.peers[id as usize];
        p.out.extend_from_slice(answer.as_bytes());
        p.kind = Kind::Ws;
        self.touch(id);
        if self.args.mode == Mode::Origin {
            self.frame(id, ws::TEXT, &[b"HeartBeat"]);
        }
    }

    /// Handles a text message of a WebSocket client.
    pub(super) fn text(&mut self, id: u32, body: &[u8]) {
        if self.args.mode == Mode::Echo {
            return self.deliver(id, body);
        }
        if !self.peers[id as usize].authed {
            self.auths += 1;
            let uid = json_pair(body, b"id", None).map(|(u, _)| u.to_vec());
            let refused = self.refusing || nth(self.auths, self.args.refuse_auth_every);
            let Some(uid) = uid.filter(|_| !refused) else {
                self.frame(id, ws::TEXT, &[b"Auth_failed"]);
                self.frame(id, ws::CLOSE, &[&1008u16.to_be_bytes()]);
                self.peers[id as usize].closing = true;
                return;
            };
            self.by_uid.entry(uid.clone()).or_default().push(id);
            let p = &mut self.peers[id as usize];
            (p.uid, p.authed) = (uid, true);
            return self.frame(id, ws::TEXT, &[b"Link_successful"]);
        }
        let Some((uid, msg)) = json_pair(body, b"id", Some(b"msg")) else {
            return self.frame(id, ws::TEXT, &[b"Bad_message"]);
        };
        let target = self.newest(uid);
        if let Some(target) = target {
            self.deliver(target, msg);
        }
        self.answers += 1;
        if !nth(self.answers, self.args.mute_every) {
            self.frame(id, ws::TEXT, &[b"Already_Linked"]);
        }
        // A message to nobody is not counted, because the next message may be for the client that was just closed.
        if target.is_some() && self.messages == self.args.close_at {
            self.frame(id, ws::CLOSE, &[&1011u16.to_be_bytes()]);
            self.peers[id as usize].closing = true;
        }
    }

    pub(super) fn newest(&self, uid: &[u8]) -> Option<u32> {
        self.by_uid.get(uid)?.last().copied()
    }

    /// Handles a line of the text port.
    pub(super) fn line(&mut self, id: u32, line: &[u8]) {
        let target = json_pair(line, b"uid", None).and_then(|(uid, _)| self.newest(uid));
        if let Some(ok) = self.push(target, line) {
            let p = &mut self.peers[id as usize];
            p.out.extend_from_slice(if ok { b"ok\n" } else { b"fail\n" });
            self.touch(id);
        }
    }

    /// Pushes a message. Returns `None` if there is no answer, else `Some(true)` if the answer says that it is
    /// delivered.
    pub(super) fn push(&mut self, target: Option<u32>, message: &[u8]) -> Option<bool> {
        self.answers += 1;
        if let Some(t) = target {
            if self.args.bare_broadcast {
                let all = self.by_uid.get(&self.peers[t as usize].uid).cloned().unwrap_or_default();
                self.broadcast(&all, message);
            } else {
                self.deliver(t, message);
            }
        }
        let ok = (target.is_some() || self.args.ok_for_offline) && !nth(self.answers, self.args.fail_every);
        (!nth(self.answers, self.args.mute_every)).then_some(ok)
    }

    /// Sends a message to these clients.
    pub(super) fn broadcast(&mut self, all: &[u32], line: &[u8]) {
        let mut frame = Vec::with_capacity(line.len() + 10);
        ws::put_frame(&mut frame, ws::TEXT, None, &[line]);
        for &id in all {
            self.messages += 1;
            if !nth(self.messages, self.args.drop_every) {
                self.send_now(id, &frame);
            }
            if nth(self.messages, self.args.dup_every) {
                self.send_now(id, &frame);
            }
        }
    }

    /// Sends `msg` to a client, with the requested faults.
    fn deliver(&mut self, target: u32, msg: &[u8]) {
        self.messages += 1;
        let n = self.messages;
        if nth(n, self.args.drop_every) {
            return;
        }
        if nth(n, self.args.misroute_every) {
            let other = (1..self.peers.len() as u32)
                .map(|d| (target + d) % self.peers.len() as u32)
                .find(|i| self.peers[*i as usize].authed && self.peers[*i as usize].kind == Kind::Ws);
            if let Some(other) = other {
                return self.frame(other, ws::TEXT, &[msg]);
            }
        }
        if nth(n, self.args.corrupt_every) {
            let mut bad = msg.to_vec();
            let at = bad.len() - 3;
            bad[at] ^= 1;
            return self.frame(target, ws::TEXT, &[&bad]);
        }
        if nth(n, self.args.swap_every) && self.held.is_none() {
            self.held = Some((target, msg.to_vec()));
            return;
        }
        self.send_message(target, msg);
        if nth(n, self.args.dup_every) {
            self.send_message(target, msg);
        }
        if let Some((_, old)) = self.held.take_if(|h| h.0 == target) {
            self.send_message(target, &old);
        }
        if self.args.bad_frame_at > 0 && n == self.args.bad_frame_at {
            self.peers[target as usize].out.extend_from_slice(&[0x83, 0]);
        }
    }

    fn send_message(&mut self, target: u32, msg: &[u8]) {
        if !self.args.fragment {
            return self.frame(target, ws::TEXT, &[msg]);
        }
        let (a, b) = (msg.len() / 3, msg.len() * 2 / 3);
        let out = &mut self.peers[target as usize].out;
        for (fin, op, part) in [(false, ws::TEXT, &msg[..a]), (false, ws::CONT, &msg[a..b])] {
            ws::put_head(out, fin, op, part.len(), None);
            out.extend_from_slice(part);
        }
        ws::put_frame(out, ws::PING, None, &[b"between"]);
        ws::put_head(out, true, ws::CONT, msg.len() - b, None);
        out.extend_from_slice(&msg[b..]);
        self.touch(target);
    }

    pub(super) fn each_client(&mut self, f: impl Fn(&mut Server, u32)) {
        for id in 0..self.peers.len() as u32 {
            let p = &self.peers[id as usize];
            if p.kind == Kind::Ws && !p.closing && (p.authed || self.args.mode == Mode::Echo) {
                f(self, id);
            }
        }
    }

    pub(super) fn ping_all(&mut self) {
        self.each_client(|s, id| {
            if s.args.enforce_pong && s.peers[id as usize].pinged {
                return s.drop_peer(id);
            }
            s.peers[id as usize].pinged = true;
            s.frame(id, ws::PING, &[b"srv"]);
        });
    }

    /// Checks faults and timers that need no event.
    pub(super) fn tick(&mut self) {
        if let Some(f) = &self.args.stall_file
            && std::fs::remove_file(f).is_ok()
        {
            std::thread::sleep(Duration::from_millis(self.args.stall_ms));
        }
        if let Some(f) = &self.args.refuse_file {
            self.refusing = f.exists();
        }
    }
}
