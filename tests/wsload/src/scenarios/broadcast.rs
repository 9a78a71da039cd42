//! One pushed line that goes to many connections: how long until the last of them has it.

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

/// The tag of the sender's connection; clients are numbered from 0.
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
    /// Lines, one after the other has reached everybody
    #[arg(long, default_value_t = 20)]
    repeat: u32,
    /// Seconds between one line and the next
    #[arg(long, default_value_t = 0.2)]
    pause: f64,
}

#[derive(Default)]
struct Counts {
    delivered: u64,
    lost: u64,
    /// More than once, or after the time for it.
    surplus: u64,
    unexpected: u64,
    ok: u64,
    fail: u64,
}

struct Broadcast {
    crowd: Crowd,
    sender: Option<ConnId>,
    /// The line that is under way, as it is to arrive.
    line: Vec<u8>,
    sent_at: u64,
    /// Who has not had it yet.
    waiting: Vec<bool>,
    missing: usize,
    n: Counts,
    oddities: Samples,
    closures: Samples,
    /// From sending to each delivery, and to the last one of each line.
    each: Latency,
    last: Latency,
    last_ms: Vec<f64>,
}

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

    /// Sends one line and waits until everybody has it.
    fn line(&mut self, net: &mut Net, args: &BroadcastArgs, number: u32, sender: ConnId) -> Result<(), String> {
        let prefix = format!("{{\"uid\":\"{}\",\"msg\":\"{number:08}", self.crowd.uid(0));
        let suffix = "\"}";
        let room = args.size.saturating_sub(prefix.len() + suffix.len());
        self.line = [prefix.as_bytes(), &padding(room), suffix.as_bytes()].concat();
        for (waiting, member) in self.waiting.iter_mut().zip(&self.crowd.members) {
            *waiting = member.ready;
        }
        let addressed = self.crowd.alive();
        self.missing = addressed;
        let answers = self.n.ok + self.n.fail + 1;

        self.sent_at = net.now();
        let line = std::mem::take(&mut self.line);
        net.write(sender, |out| {
            out.extend_from_slice(&line);
            out.push(b'\n');
        });
        self.line = line;
        net.flush_one(sender);
        let give_up = self.sent_at + secs(args.common.loss_timeout);
        while (self.missing > 0 || self.n.ok + self.n.fail < answers) && net.now() < give_up {
            self.turn(net)?;
        }
        self.n.lost += self.missing as u64;
        self.missing = 0;
        self.waiting.fill(false);
        if addressed == 0 { Err("all connections are gone".into()) } else { Ok(()) }
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

    fn delivered(&mut self, i: u32, now: u64) {
        if !std::mem::take(&mut self.waiting[i as usize]) {
            self.n.surplus += 1;
            return;
        }
        let took = now - self.sent_at;
        self.n.delivered += 1;
        self.each.record(took);
        self.missing -= 1;
        if self.missing == 0 {
            self.last.record(took);
            self.last_ms.push(round(took as f64 / 1e6, 3));
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
        if data == self.line {
            self.delivered(i, now);
        } else {
            self.n.unexpected += 1;
            self.oddities.add(&sample(data));
        }
    }

    fn on_raw(&mut self, _net: &mut Net, _conn: ConnId, _tag: u32, data: &[u8], _now: u64) -> usize {
        let Some(end) = memchr::memchr(b'\n', data) else { return 0 };
        match &data[..end] {
            b"ok" => self.n.ok += 1,
            _ => self.n.fail += 1,
        }
        end + 1
    }

    fn on_close(&mut self, _net: &mut Net, _conn: ConnId, tag: u32, why: &Gone, _now: u64) {
        if tag == SENDER {
            self.sender = None;
            self.closures.add(&format!("sender: {why}"));
            return;
        }
        if std::mem::take(&mut self.waiting[tag as usize]) {
            self.n.lost += 1;
            self.missing -= 1;
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
    if a.connections == 0 || a.repeat == 0 {
        return Err("--connections and --repeat must be at least 1".into());
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
        sent_at: 0,
        waiting: vec![false; a.connections],
        missing: 0,
        n: Counts::default(),
        oddities: Samples::default(),
        closures: Samples::default(),
        each: Latency::default(),
        last: Latency::default(),
        last_ms: Vec::new(),
    };
    let setup_s = open_all(&mut net, &mut h, a.connections, c, true)?;
    let sender = h.connect_sender(&mut net, c)?;
    let begin = Mark::take(&net, &c.server_pid);
    for number in 0..a.repeat {
        h.pause(&mut net, a.pause)?;
        h.line(&mut net, a, number, sender)?;
    }
    // Whatever else comes is too much.
    h.pause(&mut net, a.pause)?;
    let end = Mark::take(&net, &c.server_pid);
    h.crowd.leave(&mut net);

    let n = &h.n;
    let unanswered = u64::from(a.repeat).saturating_sub(n.ok + n.fail);
    let closed = h.crowd.closures.total + h.closures.total;
    let mut json = head(
        "broadcast",
        c,
        json!({"connections": a.connections, "size": a.size, "repeat": a.repeat, "pause_s": a.pause}),
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
