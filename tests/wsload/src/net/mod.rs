//! The event loop: non-blocking client connections over edge-triggered epoll.
//!
//! A connection is a WebSocket client or a raw TCP stream. For a WebSocket client, this module handles handshake,
//! framing, pings and closes. Received bytes go to one shared scratch buffer. Only an incomplete tail is copied out of
//! it. So an idle connection holds no buffer, and a busy connection causes no allocation.

mod connection;
mod receive;
mod tls;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

pub(crate) use connection::{ConnId, Gone, Handler, NO_CONN};

use self::connection::{Aside, Conn, State};
pub(crate) use self::tls::TlsClient;
use crate::rng::Rng;
use crate::sys::{self, Epoll, Event};
use crate::ws;

const SCRATCH: usize = 256 * 1024;
const MAX_EVENTS: usize = 512;

/// Counters of the loop itself.
#[derive(Default, Clone)]
pub(crate) struct NetStats {
    pub(crate) loops: u64,
    pub(crate) events: u64,
    pub(crate) recvs: u64,
    pub(crate) sends: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) pings: u64,
    /// Nanoseconds spent waiting (or spinning) with nothing to do.
    pub(crate) idle_ns: u64,
}

pub(crate) struct NetConfig {
    pub(crate) host: String,
    pub(crate) addr: SocketAddr,
    pub(crate) headers: Vec<String>,
    pub(crate) answer_pings: bool,
    pub(crate) zero_mask: bool,
    pub(crate) max_frame: usize,
    pub(crate) seed: u64,
    /// TCP congestion control. Empty: the system's default.
    pub(crate) congestion: String,
    /// TLS of WebSocket clients, if the server wants it.
    pub(crate) tls: Option<TlsClient>,
}

pub(crate) struct Net {
    epoll: Epoll,
    cfg: NetConfig,
    conns: Vec<Conn>,
    free: Vec<ConnId>,
    dirty: Vec<ConnId>,
    failed: Vec<(ConnId, u32, Gone)>,
    scratch: Vec<u8>,
    events: Vec<Event>,
    epoch: u64,
    rng: Rng,
    buffered: usize,
    /// The last poll: its end, whether it was empty, and the sends until then.
    last_poll: (u64, bool, u64),
    pub(crate) stats: NetStats,
}

impl Net {
    pub(crate) fn new(cfg: NetConfig) -> io::Result<Net> {
        sys::precise_timers();
        Ok(Net {
            epoll: Epoll::new()?,
            rng: Rng::new(cfg.seed ^ 0x5EED_04E7),
            cfg,
            conns: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            failed: Vec::new(),
            scratch: vec![0; SCRATCH],
            events: Vec::with_capacity(MAX_EVENTS),
            epoch: sys::monotonic_ns(),
            buffered: 0,
            last_poll: (0, false, 0),
            stats: NetStats::default(),
        })
    }

    /// Nanoseconds since the tool started.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        sys::monotonic_ns() - self.epoch
    }

    /// Bytes accepted for sending that the kernel has not taken yet.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    // ------------------------------------------------------------ opening and closing

    /// Opens further connections to this address.
    pub(crate) fn redirect(&mut self, addr: SocketAddr, host: String) {
        (self.cfg.addr, self.cfg.host) = (addr, host);
    }

    pub(crate) fn open_ws(&mut self, path: String, tag: u32, source: Option<Ipv4Addr>) -> io::Result<ConnId> {
        let fd = sys::connect(&self.cfg.addr, source, &self.cfg.congestion)?;
        let (a, b) = (self.rng.draw(), self.rng.draw());
        let mut nonce = [0u8; 16];
        nonce[..8].copy_from_slice(&a.to_le_bytes());
        nonce[8..].copy_from_slice(&b.to_le_bytes());
        let mask = if self.cfg.zero_mask { 0 } else { (self.rng.draw() as u32).max(1) };
        let aside = Aside { key: ws::key_from(nonce), path, fragments: None };
        let tls = self.cfg.tls.as_ref().map(TlsClient::session).transpose()?;
        let id = self.insert(fd, tag, false, mask, Some(Box::new(aside)))?;
        self.conns[id as usize].tls = tls;
        Ok(id)
    }

    pub(crate) fn open_raw(&mut self, addr: &SocketAddr, tag: u32) -> io::Result<ConnId> {
        let fd = sys::connect(addr, None, &self.cfg.congestion)?;
        self.insert(fd, tag, true, 0, None)
    }

    fn insert(
        &mut self,
        socket: OwnedFd,
        tag: u32,
        raw: bool,
        mask: u32,
        aside: Option<Box<Aside>>,
    ) -> io::Result<ConnId> {
        let id = self.free.last().copied().unwrap_or(self.conns.len() as ConnId);
        if self.free.is_empty() {
            self.conns.push(Conn::default());
            self.free.push(id);
        }
        let c = &mut self.conns[id as usize];
        let token = u64::from(c.generation) << 32 | u64::from(id);
        self.epoll.add(&socket, token, sys::IN | sys::OUT | sys::RDHUP | sys::EDGE)?;
        self.free.pop();
        (c.socket, c.state, c.raw, c.tag, c.mask, c.aside) = (Some(socket), State::Connecting, raw, tag, mask, aside);
        (c.writable, c.failed, c.close_sent) = (false, false, false);
        Ok(id)
    }

    /// Closes without telling the handler. A reset leaves no TIME_WAIT behind.
    pub(crate) fn close(&mut self, id: ConnId, reset: bool) {
        let c = &mut self.conns[id as usize];
        let Some(socket) = c.socket.take() else { return };
        if reset {
            sys::close_with_reset(socket);
        }
        self.buffered -= c.out.len() - c.out_pos;
        c.generation = c.generation.wrapping_add(1);
        c.rest.clear();
        c.out.clear();
        c.out_pos = 0;
        c.aside = None;
        c.tls = None;
        self.free.push(id);
    }

    /// Sends a close frame. The peer's answer arrives as `on_close`.
    pub(crate) fn send_close(&mut self, id: ConnId, code: u16) {
        self.put(id, ws::CLOSE, &[&code.to_be_bytes()]);
        self.conns[id as usize].close_sent = true;
    }

    // ------------------------------------------------------------ sending

    #[inline]
    pub(crate) fn mask(&self, id: ConnId) -> Option<u32> {
        Some(self.conns[id as usize].mask)
    }

    /// Appends to a connection's output through `f`. The next flush sends it.
    #[inline]
    pub(crate) fn write<F: FnOnce(&mut Vec<u8>)>(&mut self, id: ConnId, f: F) {
        let c = &mut self.conns[id as usize];
        if c.socket.is_none() || c.state != State::Open || c.failed {
            return;
        }
        let before = c.out.len();
        f(&mut c.out);
        self.buffered += c.out.len() - before;
        if !c.dirty {
            c.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Appends one masked WebSocket frame.
    #[inline]
    pub(crate) fn put(&mut self, id: ConnId, op: u8, parts: &[&[u8]]) {
        let mask = self.mask(id);
        self.write(id, |out| ws::put_frame(out, op, mask, parts));
    }

    /// Sends all output that was written since the last flush.
    pub(crate) fn flush(&mut self) {
        let mut list = std::mem::take(&mut self.dirty);
        for id in list.drain(..) {
            self.conns[id as usize].dirty = false;
            if self.conns[id as usize].writable {
                self.flush_one(id);
            }
        }
        self.dirty = list;
    }

    #[inline]
    pub(crate) fn flush_one(&mut self, id: ConnId) {
        let c = &mut self.conns[id as usize];
        let Some(socket) = c.socket.as_ref().filter(|_| c.writable && !c.failed) else { return };
        while c.out_pos < c.out.len() {
            self.stats.sends += 1;
            let sent = match &mut c.tls {
                Some(tls) => tls.send(socket, &c.out[c.out_pos..]),
                None => sys::send(socket, &c.out[c.out_pos..]),
            };
            match sent {
                Ok(Some(n)) => {
                    self.stats.bytes_out += n as u64;
                    self.buffered -= n;
                    c.out_pos += n;
                }
                Ok(None) => {
                    c.writable = false;
                    if c.out_pos > 64 * 1024 {
                        c.out.drain(..c.out_pos);
                        c.out_pos = 0;
                    }
                    return;
                }
                Err(e) => {
                    // The next poll reports it: there is no handler here.
                    c.failed = true;
                    self.failed.push((id, c.generation, Gone::Io(e.to_string())));
                    return;
                }
            }
        }
        c.out.clear();
        c.out_pos = 0;
    }

    // ------------------------------------------------------------ the loop

    /// Waits at most `timeout_ns` for events and handles them. Call `flush` afterwards.
    pub(crate) fn poll<H: Handler>(&mut self, h: &mut H, timeout_ns: u64) -> io::Result<()> {
        self.stats.loops += 1;
        while let Some((id, generation, why)) = self.failed.pop() {
            if self.conns[id as usize].generation == generation {
                let now = self.now();
                self.gone(h, id, why, now);
            }
        }
        let before = sys::monotonic_ns();
        let mut events = std::mem::take(&mut self.events);
        let waited = self.epoll.wait(&mut events, timeout_ns);
        let n = events.len();
        let after = sys::monotonic_ns();
        let spent = after - before;
        if n == 0 || spent > 2_000 + 100 * n as u64 {
            // A call that only collected ready events counts as work, not as idle time.
            self.stats.idle_ns += spent;
        }
        let (ended, empty, sends) = self.last_poll;
        if empty && sends == self.stats.sends {
            // A round without events and sends was spinning.
            self.stats.idle_ns += before - ended;
        }
        self.last_poll = (after, n == 0, self.stats.sends);
        self.stats.events += n as u64;
        for event in events.drain(..) {
            let (token, flags) = (event.data.u64(), event.flags);
            let (id, generation) = (token as u32, (token >> 32) as u32);
            if self.conns[id as usize].generation != generation {
                continue; // an event of a connection closed in this batch
            }
            if flags.contains(sys::OUT) && !self.conns[id as usize].writable {
                self.on_writable(h, id);
                if self.conns[id as usize].generation != generation {
                    continue;
                }
            }
            let hangup = flags.intersects(sys::RDHUP | sys::HUP | sys::ERR);
            if hangup || flags.contains(sys::IN) {
                self.on_readable(h, id, hangup);
            }
        }
        self.events = events;
        waited
    }

    fn gone<H: Handler>(&mut self, h: &mut H, id: ConnId, why: Gone, now: u64) {
        let tag = self.conns[id as usize].tag;
        self.close(id, false);
        h.on_close(self, id, tag, &why, now);
    }
}
