//! Pushes lines that go to many connections, and measures the time until the last connection has each line.

use std::collections::VecDeque;
use std::net::SocketAddr;

use clap::Args;
use serde_json::json;

use crate::address::loopback;
use crate::api::Api;
use crate::cli::{Adapter, Common};
use crate::crowd::{Crowd, HasCrowd, Uids};
use crate::http::Message;
use crate::net::{ConnId, Gone, Handler, Net};
use crate::open::{Sources, make_net, open_all, require_descriptors, secs};
use crate::payload::padding;
use crate::proto::sample;
use crate::stats::{Latency, Mark, Report, Samples, head, round};
use crate::traffic::Carrier;

/// The tag of the sender's connection. Clients have tags from 0.
const SENDER: u32 = u32::MAX;

#[derive(Args, Clone)]
pub(crate) struct BroadcastArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How the lines are pushed: text (to the uid) or http (to everyone)
    #[arg(long, value_enum, default_value_t = Carrier::Text)]
    sender: Carrier,
    /// WebSocket clients, all of one uid
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Bytes of the line
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Number of lines
    #[arg(long, default_value_t = 20)]
    repeat: u32,
    /// Lines that may be under way at the same time
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Seconds between one line and the next
    #[arg(long, default_value_t = 0.2)]
    pause: f64,
}

#[derive(Default)]
struct Counts {
    delivered: u64,
    lost: u64,
    /// Deliveries of a line that had arrived already, or was written off.
    surplus: u64,
    unexpected: u64,
    ok: u64,
    fail: u64,
}

/// A line that has not reached everybody yet.
struct Line {
    sent_at: u64,
    missing: usize,
}

struct Broadcast {
    crowd: Crowd,
    sender: Option<ConnId>,
    /// What is sent before and after a line.
    around: (String, &'static str),
    /// The number of connections that the HTTP API must reach with the last line. `None` for the text port.
    reach: Option<usize>,
    /// The line that is sent, without its number. The number stands at `digits`.
    line: Vec<u8>,
    digits: usize,
    /// The lines under way, the newest last.
    under_way: VecDeque<Line>,
    sent: u32,
    /// The number of the line that each client expects next.
    next: Vec<u32>,
    /// The time of the last sending or arrival.
    progress_at: u64,
    /// The number of answers that are written off.
    written_off: u64,
    n: Counts,
    oddities: Samples,
    closures: Samples,
    /// The times from sending a line to each delivery, and to the last delivery.
    each: Latency,
    last: Latency,
    last_ms: Vec<f64>,
}

/// The number of digits of a line's number.
const DIGITS: usize = 8;

impl Broadcast {
    fn connect_sender(&mut self, net: &mut Net, c: &Common, address: SocketAddr) -> Result<ConnId, String> {
        net.open_raw(&address, SENDER).map_err(|e| format!("sender: {e}"))?;
        let give_up = net.now() + secs(c.connect_timeout);
        while self.closures.total == 0 && net.now() < give_up {
            self.turn(net)?;
            if let Some(sender) = self.sender {
                return Ok(sender);
            }
        }
        Err(format!("sender: no connection: {}", self.closures.json()))
    }

    /// Sends the next line.
    fn send(&mut self, net: &mut Net, sender: ConnId) -> Result<(), String> {
        let missing = self.crowd.alive();
        if missing == 0 {
            return Err("all connections are gone".into());
        }
        let number = format!("{:0DIGITS$}", self.sent);
        self.line[self.digits..self.digits + DIGITS].copy_from_slice(number.as_bytes());
        self.progress_at = net.now();
        self.under_way.push_back(Line { sent_at: self.progress_at, missing });
        self.sent += 1;
        self.reach = self.reach.map(|_| missing);
        net.write(sender, |out| {
            for part in [self.around.0.as_bytes(), &self.line, self.around.1.as_bytes()] {
                out.extend_from_slice(part);
            }
        });
        net.flush_one(sender);
        Ok(())
    }

    /// Waits until at most `most` lines are under way. Without progress for too long, lines count as lost.
    fn wait(&mut self, net: &mut Net, args: &BroadcastArgs, most: usize) -> Result<(), String> {
        let patience = secs(args.common.loss_timeout);
        while self.under_way.len() > most || self.unanswered() > most as u64 {
            self.turn(net)?;
            if net.now() > self.progress_at + patience {
                self.n.lost += self.under_way.drain(..).map(|line| line.missing as u64).sum::<u64>();
                self.next.fill(self.sent);
                self.written_off += self.unanswered();
            }
        }
        Ok(())
    }

    /// Handles an answer of the HTTP API. It is right if it says that everybody was reached.
    fn api_answer(&mut self, data: &[u8], reach: usize, now: u64) -> Result<usize, String> {
        let Some(Message { head, body, size }) = Message::parse(data)? else { return Ok(0) };
        self.progress_at = now;
        if head.status() == 200 && *body == *format!("{{\"reached\":{reach}}}").as_bytes() {
            self.n.ok += 1;
        } else {
            self.n.fail += 1;
            self.oddities.add(&sample(&[head.start_line().as_bytes(), b" ", &body].concat()));
        }
        Ok(size)
    }

    fn unanswered(&self) -> u64 {
        u64::from(self.sent).saturating_sub(self.n.ok + self.n.fail + self.written_off)
    }

    fn pause(&mut self, net: &mut Net, seconds: f64) -> Result<(), String> {
        let until = net.now() + secs(seconds);
        while net.now() < until {
            self.turn(net)?;
        }
        Ok(())
    }

    fn turn(&mut self, net: &mut Net) -> Result<(), String> {
        net.flush();
        net.poll(self, 5_000_000).map_err(|e| format!("epoll: {e}"))
    }

    /// Reads the number of a received line. `None` if the line is changed or incomplete.
    fn number(&self, data: &[u8]) -> Option<u32> {
        let (before, after) = (self.digits, self.digits + DIGITS);
        let same = data.len() == self.line.len()
            && data[..before] == self.line[..before]
            && data[after..] == self.line[after..];
        same.then(|| std::str::from_utf8(&data[before..after]).ok()?.parse().ok()).flatten()
    }

    fn delivered(&mut self, i: u32, number: u32, now: u64) {
        let next = self.next[i as usize];
        if number < next || number >= self.sent {
            self.n.surplus += 1;
            return;
        }
        self.n.lost += u64::from(number - next);
        self.n.delivered += 1;
        self.settle(i, number + 1, Some(now));
    }

    /// Removes lines before `next` from those under way to this client. The last of them was delivered at the time
    /// `at`, or, for `None`, none was.
    fn settle(&mut self, i: u32, next: u32, at: Option<u64>) {
        let first = self.sent - self.under_way.len() as u32;
        let from = std::mem::replace(&mut self.next[i as usize], next);
        for number in from.max(first)..next {
            let line = &mut self.under_way[(number - first) as usize];
            line.missing -= 1;
            if let Some(now) = at.filter(|_| number + 1 == next) {
                let took = now - line.sent_at;
                self.progress_at = now;
                self.each.record(took);
                if line.missing == 0 {
                    self.last.record(took);
                    self.last_ms.push(round(took as f64 / 1e6, 3));
                }
            }
        }
        while self.under_way.front().is_some_and(|line| line.missing == 0) {
            self.under_way.pop_front();
        }
    }
}

impl Handler for Broadcast {
    fn on_open(&mut self, net: &mut Net, conn: ConnId, tag: u32, _now: u64) {
        match tag {
            SENDER => self.sender = Some(conn),
            client => self.crowd.on_open(net, conn, client),
        }
    }

    fn on_message(&mut self, net: &mut Net, _conn: ConnId, i: u32, data: &[u8], now: u64) {
        if self.crowd.on_message(net, i, data) {
            return;
        }
        match self.number(data) {
            Some(number) => self.delivered(i, number, now),
            None => {
                self.n.unexpected += 1;
                self.oddities.add(&sample(data));
            }
        }
    }

    fn on_raw(&mut self, net: &mut Net, conn: ConnId, tag: u32, data: &[u8], now: u64) -> usize {
        if let Some(reach) = self.reach {
            return self.api_answer(data, reach, now).unwrap_or_else(|why| {
                net.close(conn, true);
                self.on_close(net, conn, tag, &Gone::Answer(why), now);
                data.len()
            });
        }
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &data[used..]) {
            self.progress_at = now;
            match &data[used..used + end] {
                b"ok" => self.n.ok += 1,
                _ => self.n.fail += 1,
            }
            used += end + 1;
        }
        used
    }

    fn on_close(&mut self, _net: &mut Net, _conn: ConnId, tag: u32, why: &Gone, _now: u64) {
        if tag == SENDER {
            self.sender = None;
            self.closures.add(&format!("sender: {why}"));
            return;
        }
        if self.crowd.members[tag as usize].ready {
            self.n.lost += u64::from(self.sent - self.next[tag as usize]);
            self.settle(tag, self.sent, None);
        }
        self.crowd.on_close(tag, why);
    }
}

impl HasCrowd for Broadcast {
    fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    fn crowd_mut(&mut self) -> &mut Crowd {
        &mut self.crowd
    }
}

pub(crate) fn run(a: &BroadcastArgs) -> Result<Report, String> {
    let c = &a.common;
    c.check()?;
    if c.adapter != Adapter::Origin {
        return Err("a broadcast is pushed, which only the origin adapter can".into());
    }
    if a.connections == 0 || a.repeat == 0 || a.window == 0 {
        return Err("--connections, --repeat and --window must be at least 1".into());
    }
    if !(a.pause.is_finite() && (0.0..=60.0).contains(&a.pause)) {
        return Err("--pause must be between 0 and 60".into());
    }
    require_descriptors(a.connections + 1)?;
    let http = match a.sender {
        Carrier::Text => false,
        Carrier::Http if a.window == 1 => true,
        Carrier::Http => return Err("--sender http has one line under way: --window must be 1".into()),
        Carrier::Batch | Carrier::Stream => return Err("--sender must be text or http".into()),
    };
    let (mut net, path, v4) = make_net(c, true)?;
    let sources = Sources::new(c, a.connections, v4);
    let mut h = Broadcast {
        crowd: Crowd::new(c, &path, sources, a.connections, Uids::Same(format!("{}0", c.uid_prefix))),
        sender: None,
        around: (String::new(), "\n"),
        reach: None,
        line: Vec::new(),
        digits: 0,
        under_way: VecDeque::new(),
        sent: 0,
        next: vec![0; a.connections],
        progress_at: 0,
        written_off: 0,
        n: Counts::default(),
        oddities: Samples::default(),
        closures: Samples::default(),
        each: Latency::default(),
        last: Latency::default(),
        last_ms: Vec::new(),
    };
    let prefix = format!("{{\"uid\":\"{}\",\"msg\":\"", h.crowd.uid(0));
    let suffix = "\"}";
    h.digits = prefix.len();
    let room = a.size.saturating_sub(prefix.len() + DIGITS + suffix.len());
    h.line = [prefix.as_bytes(), &[b'0'; DIGITS], &padding(room), suffix.as_bytes()].concat();
    let setup_s = open_all(&mut net, &mut h, a.connections, c, true)?;
    let address = if http {
        let api = Api::new(c)?;
        h.around = (api.post("/v1/push?everyone=true", "text/plain", Some(h.line.len())), "");
        h.reach = Some(0);
        api.address
    } else {
        loopback("--text", &c.text)?
    };
    let sender = h.connect_sender(&mut net, c, address)?;
    let begin = Mark::take(&net, &c.server_pid);
    for _ in 0..a.repeat {
        h.pause(&mut net, a.pause)?;
        h.wait(&mut net, a, a.window - 1)?;
        h.send(&mut net, sender)?;
    }
    h.wait(&mut net, a, 0)?;
    // Anything that arrives from now on is counted as surplus.
    h.pause(&mut net, a.pause)?;
    let end = Mark::take(&net, &c.server_pid);
    h.crowd.leave(&mut net);

    let n = &h.n;
    let unanswered = u64::from(a.repeat).saturating_sub(n.ok + n.fail);
    let closed = h.crowd.closures.total + h.closures.total;
    let mut json = head(
        "broadcast",
        c,
        json!({
            "sender": a.sender.name(), "connections": a.connections, "size": a.size, "repeat": a.repeat,
            "window": a.window, "pause_s": a.pause,
        }),
    );
    json.insert("setup_s".into(), json!(round(setup_s, 4)));
    json.insert("effective_size".into(), json!(h.line.len()));
    json.insert("last_us".into(), h.last.json());
    json.insert("latency_us".into(), h.each.json());
    json.insert("last_ms".into(), json!(h.last_ms));
    json.insert(
        "counts".into(),
        json!({
            "sent": a.repeat, "delivered": n.delivered, "lost": n.lost, "surplus": n.surplus,
            "unexpected": n.unexpected, "unexpected_samples": h.oddities.json(),
            "replies_ok": n.ok, "replies_fail": n.fail, "replies_missing": unanswered,
            "connections_closed": closed, "closed_reasons": h.crowd.closures.json(),
        }),
    );
    json.insert("tool".into(), begin.tool_json(&end, c.spin));
    json.insert("server".into(), begin.server_json(&end, &c.server_pid, n.delivered));
    let human = format!(
        "{} lines to {} connections\n  until the last has it  {}\n  delivered {}  lost {}  surplus {}  unexpected {}  closed {closed}\n",
        a.repeat,
        a.connections,
        h.last.line(),
        n.delivered,
        n.lost,
        n.surplus,
        n.unexpected,
    );
    let faults = n.lost + n.surplus + n.unexpected + n.fail + unanswered + closed;
    Ok(Report { json, human, faults, aborted: None })
}
