//! Pushes lines that go to many connections, and measures the time until the last connection has each line.

use std::collections::VecDeque;

use clap::Args;
use serde_json::json;

use crate::address::loopback;
use crate::cli::{Adapter, Common};
use crate::crowd::{Crowd, HasCrowd, Uids};
use crate::net::{ConnId, Gone, Handler, Net};
use crate::open::{Sources, make_net, open_all, require_descriptors, secs};
use crate::payload::padding;
use crate::proto::sample;
use crate::stats::{Latency, Mark, Report, Samples, head, round};

/// The tag of the sender's connection. Clients have tags from 0.
const SENDER: u32 = u32::MAX;

#[derive(Args, Clone)]
pub(crate) struct BroadcastArgs {
    #[command(flatten)]
    pub(crate) common: Common,
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
    fn connect_sender(&mut self, net: &mut Net, c: &Common) -> Result<ConnId, String> {
        let address = loopback("--text", &c.text)?;
        net.open_raw(&address, SENDER).map_err(|e| format!("text port: {e}"))?;
        let give_up = net.now() + secs(c.connect_timeout);
        while self.closures.total == 0 && net.now() < give_up {
            self.turn(net)?;
            if let Some(sender) = self.sender {
                return Ok(sender);
            }
        }
        Err(format!("text port: no connection: {}", self.closures.json()))
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
        net.write(sender, |out| {
            out.extend_from_slice(&self.line);
            out.push(b'\n');
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

    fn on_raw(&mut self, _net: &mut Net, _conn: ConnId, _tag: u32, data: &[u8], now: u64) -> usize {
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
        return Err("a broadcast goes through the text port, which only the origin adapter has".into());
    }
    if a.connections == 0 || a.repeat == 0 || a.window == 0 {
        return Err("--connections, --repeat and --window must be at least 1".into());
    }
    if !(a.pause.is_finite() && (0.0..=60.0).contains(&a.pause)) {
        return Err("--pause must be between 0 and 60".into());
    }
    require_descriptors(a.connections + 1)?;
    let (mut net, path, v4) = make_net(c, true)?;
    let sources = Sources::new(c, a.connections, v4);
    let mut h = Broadcast {
        crowd: Crowd::new(c, &path, sources, a.connections, Uids::Same(format!("{}0", c.uid_prefix))),
        sender: None,
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
    let sender = h.connect_sender(&mut net, c)?;
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
        json!({"connections": a.connections, "size": a.size, "repeat": a.repeat, "window": a.window, "pause_s": a.pause}),
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
