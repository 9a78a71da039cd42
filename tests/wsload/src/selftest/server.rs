//! The connections of the test server: accepting, reading, writing.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::ServerArgs;
use super::api::Stream;
use crate::sys::{self, Epoll, Event, Flags};
use crate::ws::{self, Parsed};

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    #[default]
    Free,
    WsListener,
    TextListener,
    ApiListener,
    Handshake,
    Ws,
    Text,
    Api,
}

/// A place for a socket.
#[derive(Default)]
pub(super) struct Peer {
    socket: Option<OwnedFd>,
    generation: u32,
    pub(super) kind: Kind,
    writable: bool,
    dirty: bool,
    pub(super) authed: bool,
    /// True while a ping is unanswered.
    pub(super) pinged: bool,
    /// True if the connection is closed once everything is written.
    pub(super) closing: bool,
    pub(super) uid: Vec<u8>,
    /// A request for a stream that is under way.
    pub(super) stream: Option<Box<Stream>>,
    rest: Vec<u8>,
    pub(super) out: Vec<u8>,
    pos: usize,
}

pub(super) struct Server {
    pub(super) args: ServerArgs,
    epoll: Epoll,
    pub(super) peers: Vec<Peer>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    /// The connections of each uid, the newest last.
    pub(super) by_uid: HashMap<Vec<u8>, Vec<u32>>,
    scratch: Vec<u8>,
    pub(super) messages: u64,
    pub(super) answers: u64,
    pub(super) auths: u64,
    pub(super) batches: u64,
    /// A message that is delivered after its successor.
    pub(super) held: Option<(u32, Vec<u8>)>,
    /// True while first packets are refused.
    pub(super) refusing: bool,
}

impl Server {
    pub(super) fn new(args: ServerArgs) -> io::Result<Server> {
        Ok(Server {
            args,
            epoll: Epoll::new()?,
            peers: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            by_uid: HashMap::new(),
            scratch: Vec::new(),
            messages: 0,
            answers: 0,
            auths: 0,
            batches: 0,
            held: None,
            refusing: false,
        })
    }

    /// Listens on a port of the loopback address. Returns the port.
    pub(super) fn listen(&mut self, port: u16, kind: Kind) -> io::Result<u16> {
        let (listener, port) = sys::listen(&SocketAddr::from(([127, 0, 0, 1], port)), &self.args.congestion)?;
        self.add(listener, kind, sys::IN)?;
        Ok(port)
    }

    fn add(&mut self, socket: OwnedFd, kind: Kind, flags: Flags) -> io::Result<()> {
        let id = self.free.pop().unwrap_or_else(|| {
            self.peers.push(Peer::default());
            self.peers.len() as u32 - 1
        });
        let p = &mut self.peers[id as usize];
        self.epoll.add(&socket, u64::from(p.generation) << 32 | u64::from(id), flags)?;
        (p.socket, p.kind) = (Some(socket), kind);
        (p.writable, p.authed, p.pinged, p.closing) = (false, false, false, false);
        Ok(())
    }

    pub(super) fn drop_peer(&mut self, id: u32) {
        let p = &mut self.peers[id as usize];
        if p.socket.take().is_none() {
            return;
        }
        p.kind = Kind::Free;
        p.generation = p.generation.wrapping_add(1);
        p.rest.clear();
        p.out.clear();
        p.pos = 0;
        p.stream = None;
        let uid = std::mem::take(&mut p.uid);
        if self.args.leave_us > 0 {
            std::thread::sleep(Duration::from_micros(self.args.leave_us));
        }
        if let Some(same) = self.by_uid.get_mut(&uid) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.by_uid.remove(&uid);
            }
        }
        self.free.push(id);
    }

    pub(super) fn touch(&mut self, id: u32) {
        let p = &mut self.peers[id as usize];
        if !p.dirty {
            p.dirty = true;
            self.dirty.push(id);
        }
    }

    pub(super) fn frame(&mut self, id: u32, op: u8, parts: &[&[u8]]) {
        ws::put_frame(&mut self.peers[id as usize].out, op, None, parts);
        self.touch(id);
    }

    /// Sends a frame at once. Bytes that do not fit are queued like other output.
    pub(super) fn send_now(&mut self, id: u32, frame: &[u8]) {
        let p = &mut self.peers[id as usize];
        let Some(socket) = p.socket.as_ref().filter(|_| p.writable && p.out.is_empty()) else {
            p.out.extend_from_slice(frame);
            return self.touch(id);
        };
        match sys::send(socket, frame) {
            Ok(Some(sent)) if sent == frame.len() => {}
            Ok(sent) => {
                p.writable = false;
                p.out.extend_from_slice(&frame[sent.unwrap_or(0)..]);
                self.touch(id);
            }
            Err(_) => self.drop_peer(id),
        }
    }

    pub(super) fn flush(&mut self) {
        let mut list = std::mem::take(&mut self.dirty);
        for id in list.drain(..) {
            self.peers[id as usize].dirty = false;
            self.flush_one(id);
        }
        if self.dirty.is_empty() {
            self.dirty = list;
        }
    }

    fn flush_one(&mut self, id: u32) {
        let trickle = self.args.trickle;
        let p = &mut self.peers[id as usize];
        let Some(socket) = &p.socket else { return };
        while p.writable && p.pos < p.out.len() {
            let end = if trickle > 0 { p.out.len().min(p.pos + trickle) } else { p.out.len() };
            match sys::send(socket, &p.out[p.pos..end]) {
                Ok(Some(n)) => p.pos += n,
                Ok(None) => p.writable = false,
                Err(_) => return self.drop_peer(id),
            }
            if trickle > 0 && p.pos < p.out.len() {
                // The rest is sent in the next round.
                return self.touch(id);
            }
        }
        if p.pos == p.out.len() {
            p.out.clear();
            p.pos = 0;
            if p.closing {
                self.drop_peer(id);
            }
        } else if p.pos > 1 << 20 {
            p.out.drain(..p.pos);
            p.pos = 0;
        }
    }

    /// Waits at most `timeout_ns` for events and handles them.
    pub(super) fn poll(&mut self, events: &mut Vec<Event>, timeout_ns: u64) -> io::Result<()> {
        let timeout_ns = if self.dirty.is_empty() { timeout_ns } else { 0 };
        self.epoll.wait(events, timeout_ns)?;
        for event in events.drain(..) {
            let (token, flags) = (event.data.u64(), event.flags);
            let (id, generation) = (token as u32, (token >> 32) as u32);
            let p = &mut self.peers[id as usize];
            if p.generation != generation {
                continue;
            }
            if flags.contains(sys::OUT) && !p.writable {
                p.writable = true;
                self.touch(id);
            }
            let hangup = flags.intersects(sys::RDHUP | sys::HUP | sys::ERR);
            if hangup || flags.contains(sys::IN) {
                self.readable(id, hangup)?;
            }
        }
        Ok(())
    }

    fn accept_all(&mut self, listener: u32, kind: Kind) -> io::Result<()> {
        while let Some(socket) = self.peers[listener as usize].socket.as_ref().map_or(Ok(None), sys::accept)? {
            self.add(socket, kind, sys::IN | sys::OUT | sys::RDHUP | sys::EDGE)?;
        }
        Ok(())
    }

    fn readable(&mut self, id: u32, hangup: bool) -> io::Result<()> {
        match self.peers[id as usize].kind {
            Kind::Free => return Ok(()),
            Kind::WsListener => return self.accept_all(id, Kind::Handshake),
            Kind::TextListener => return self.accept_all(id, Kind::Text),
            Kind::ApiListener => return self.accept_all(id, Kind::Api),
            _ => {}
        }
        let generation = self.peers[id as usize].generation;
        let mut buf = std::mem::take(&mut self.scratch);
        loop {
            let p = &mut self.peers[id as usize];
            let Some(socket) = &p.socket else { break };
            let have = p.rest.len();
            if buf.len() < have + 65536 {
                buf.resize(have + 262_144, 0);
            }
            buf[..have].copy_from_slice(&p.rest);
            p.rest.clear();
            match sys::receive(socket, &mut buf[have..]) {
                Ok(Some(n)) if n > 0 => {
                    let total = have + n;
                    let used = self.consume(id, &mut buf[..total]);
                    let p = &mut self.peers[id as usize];
                    if p.generation != generation {
                        break;
                    }
                    p.rest.extend_from_slice(&buf[used..total]);
                    if total < buf.len() && !hangup {
                        break;
                    }
                }
                Ok(None) => {
                    p.rest.extend_from_slice(&buf[..have]);
                    break;
                }
                _ => {
                    self.drop_peer(id);
                    break;
                }
            }
        }
        self.scratch = buf;
        Ok(())
    }

    fn consume(&mut self, id: u32, buf: &mut [u8]) -> usize {
        let generation = self.peers[id as usize].generation;
        let mut pos = 0;
        if self.peers[id as usize].kind == Kind::Text {
            while let Some(nl) = memchr::memchr(b'\n', &buf[pos..]) {
                self.line(id, &buf[pos..pos + nl]);
                pos += nl + 1;
            }
            return pos;
        }
        if self.peers[id as usize].kind == Kind::Api {
            return self.api(id, buf);
        }
        if self.peers[id as usize].kind == Kind::Handshake {
            let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") else { return 0 };
            pos = end + 4;
            self.upgrade(id, &buf[..pos]);
        }
        while self.peers[id as usize].generation == generation && !self.peers[id as usize].closing {
            let head = match ws::parse_head(&buf[pos..], 1 << 24) {
                Parsed::Head(h) => h,
                Parsed::Incomplete => return pos,
                Parsed::Bad(_) => {
                    self.drop_peer(id);
                    return pos;
                }
            };
            let (start, end) = (pos + head.size, pos + head.size + head.len);
            if end > buf.len() {
                return pos;
            }
            let Some(key) = head.mask else {
                self.drop_peer(id);
                return pos;
            };
            let body = &mut buf[start..end];
            ws::apply_mask(body, key);
            pos = end;
            match head.op {
                ws::TEXT | ws::BINARY if head.fin => self.text(id, body),
                ws::PING if !self.args.no_pong => self.frame(id, ws::PONG, &[body]),
                ws::PONG => self.peers[id as usize].pinged = false,
                ws::CLOSE => {
                    self.frame(id, ws::CLOSE, &[&body[..body.len().min(2)]]);
                    self.peers[id as usize].closing = true;
                }
                _ => {}
            }
        }
        pos
    }
}
