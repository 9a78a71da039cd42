//! Holding many authenticated connections open.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::Common;
use crate::net::{ConnId, Gone, Handler, NO_CONN, Net};
use crate::open::{Opener, Progress, Sources, open_all, require_descriptors, secs};
use crate::proto::{Proto, Step, sample};
use crate::stats::{Latency, Mark, Report, Samples, head, round};
use crate::sys;
use crate::traffic::make_net;
use crate::ws;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum KeepaliveKind {
    Ping,
    Text,
}

#[derive(Args, Clone)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// WebSocket clients
    #[arg(long, default_value_t = 1000)]
    pub(crate) connections: usize,
    /// Seconds between keepalives of a connection (0: none)
    #[arg(long, default_value_t = 0.0)]
    pub(crate) keepalive: f64,
    /// What a keepalive is
    #[arg(long, value_enum, default_value_t = KeepaliveKind::Ping)]
    pub(crate) keepalive_kind: KeepaliveKind,
    /// Text of a keepalive; {uid} is replaced
    #[arg(long, default_value = "keepalive")]
    pub(crate) keepalive_text: String,
    /// Do not answer the server's pings
    #[arg(long)]
    pub(crate) ignore_pings: bool,
    /// No ping of every connection at the end
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// Seconds to wait before memory is read
    #[arg(long, default_value_t = 1.0)]
    pub(crate) settle: f64,
}

struct Client {
    conn: ConnId,
    ready: bool,
    started: u64,
    probed: u64,
}

struct Idle<'a> {
    args: &'a IdleArgs,
    proto: Proto,
    sources: Sources,
    clients: Vec<Client>,
    progress: Progress,
    errors: Samples,
    closures: Samples,
    greetings: u64,
    other: u64,
    other_samples: Samples,
    pongs: u64,
    probing: bool,
    responsive: usize,
    probe: Latency,
}

impl Idle<'_> {
    fn step(&mut self, net: &mut Net, i: u32, step: Step) {
        let c = &mut self.clients[i as usize];
        match step {
            Step::Wait => {}
            Step::Ready => {
                c.ready = true;
                self.progress.ready += 1;
            }
            Step::Failed(e) => {
                net.close(c.conn, false);
                c.conn = NO_CONN;
                self.progress.failed += 1;
                self.errors.add(&e);
            }
        }
    }

    fn alive(&self) -> usize {
        self.clients.iter().filter(|c| c.ready).count()
    }

    /// Handle events until `until`, sending the keepalives that are due.
    fn hold(&mut self, net: &mut Net, until: u64, keepalive: bool) -> Result<u64, String> {
        let from = net.now();
        let every = if keepalive { secs(self.args.keepalive) } else { 0 };
        let gap = (every as f64 / self.clients.len().max(1) as f64).max(1.0);
        let mut sent = 0u64;
        loop {
            let now = net.now();
            if now >= until {
                return Ok(sent);
            }
            let mut wake = until.min(now + 50_000_000);
            if every > 0 {
                // One connection after the other, so that each has its turn every K seconds.
                loop {
                    let due = from + ((sent + 1) as f64 * gap) as u64;
                    if due > now {
                        wake = wake.min(due);
                        break;
                    }
                    let i = (sent % self.clients.len() as u64) as usize;
                    let c = &self.clients[i];
                    sent += 1;
                    if c.ready {
                        match self.args.keepalive_kind {
                            KeepaliveKind::Ping => net.put(c.conn, ws::PING, &[b"k"]),
                            KeepaliveKind::Text => {
                                let uid = format!("{}{i}", self.args.common.uid_prefix);
                                let text = self.args.keepalive_text.replace("{uid}", &uid);
                                net.put(c.conn, ws::TEXT, &[text.as_bytes()]);
                            }
                        }
                    }
                }
            }
            net.flush();
            net.poll(self, wake.saturating_sub(net.now())).map_err(|e| format!("epoll: {e}"))?;
        }
    }
}

impl Opener for Idle<'_> {
    fn start(&mut self, net: &mut Net, i: usize) {
        self.progress.started += 1;
        let path = self.proto.path(&format!("{}{i}", self.args.common.uid_prefix));
        match net.open_ws(path, i as u32, self.sources.pick(i as u64)) {
            Ok(conn) => (self.clients[i].conn, self.clients[i].started) = (conn, net.now()),
            Err(e) => {
                self.progress.failed += 1;
                self.errors.add(&format!("connect: {e}"));
            }
        }
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn expire(&mut self, net: &mut Net, now: u64, limit_ns: u64) {
        for c in &mut self.clients {
            if c.conn != NO_CONN && !c.ready && now > c.started + limit_ns {
                net.close(c.conn, true);
                c.conn = NO_CONN;
                self.progress.failed += 1;
                self.errors.add("no answer within --connect-timeout");
            }
        }
    }

    fn first_error(&self) -> Option<String> {
        Some(self.errors.json().to_string())
    }
}

impl Handler for Idle<'_> {
    fn on_open(&mut self, net: &mut Net, c: ConnId, i: u32, _now: u64) {
        let step = self.proto.on_open(net, c, &format!("{}{i}", self.args.common.uid_prefix));
        self.step(net, i, step);
    }

    fn on_message(&mut self, net: &mut Net, _c: ConnId, i: u32, data: &[u8], _now: u64) {
        if self.proto.is_greeting(data) {
            self.greetings += 1;
        }
        if !self.clients[i as usize].ready {
            let step = self.proto.on_setup_message(data);
            self.step(net, i, step);
        } else if !self.proto.is_greeting(data) {
            self.other += 1;
            if self.other <= 1000 {
                self.other_samples.add(&sample(data));
            }
        }
    }

    fn on_pong(&mut self, _net: &mut Net, _c: ConnId, i: u32, now: u64) {
        self.pongs += 1;
        let c = &mut self.clients[i as usize];
        if self.probing && c.probed > 0 {
            self.probe.record(now - c.probed);
            c.probed = 0;
            self.responsive += 1;
        }
    }

    fn on_close(&mut self, _net: &mut Net, _c: ConnId, i: u32, why: &Gone, _now: u64) {
        let c = &mut self.clients[i as usize];
        c.conn = NO_CONN;
        if std::mem::replace(&mut c.ready, false) {
            self.closures.add(&why.to_string());
        } else {
            self.progress.failed += 1;
            self.errors.add(&why.to_string());
        }
    }
}

pub(crate) fn run(a: &IdleArgs) -> Result<Report, String> {
    // Everything is held for the whole duration: there is no warm-up.
    let common = Common { warmup: 0.0, ..a.common.clone() };
    let c = &common;
    c.check()?;
    if a.connections == 0 {
        return Err("--connections must be at least 1".into());
    }
    for (name, v) in [("keepalive", a.keepalive), ("settle", a.settle)] {
        if !(v.is_finite() && (0.0..=3600.0).contains(&v)) {
            return Err(format!("--{name} must be between 0 and 3600"));
        }
    }
    require_descriptors(a.connections)?;
    let (mut net, path, v4) = make_net(c, !a.ignore_pings)?;
    let mut h = Idle {
        args: a,
        proto: Proto::new(c, &path),
        sources: Sources::new(c, a.connections, v4),
        clients: (0..a.connections).map(|_| Client { conn: NO_CONN, ready: false, started: 0, probed: 0 }).collect(),
        progress: Progress::default(),
        errors: Samples::default(),
        closures: Samples::default(),
        greetings: 0,
        other: 0,
        other_samples: Samples::default(),
        pongs: 0,
        probing: false,
        responsive: 0,
        probe: Latency::default(),
    };
    let pids = &c.server_pid;
    let before = sys::usage(pids);
    let mark_setup = Mark::take(&net, pids);
    let setup_s = open_all(&mut net, &mut h, a.connections, c, false)?;
    let mark_ready = Mark::take(&net, pids);
    if h.progress.ready == 0 {
        return Err(format!("no connection could be made ({} failures): {}", h.progress.failed, h.errors.json()));
    }
    let opened = h.progress.ready;
    let settle_until = net.now() + secs(a.settle);
    h.hold(&mut net, settle_until, false)?;
    let settled = sys::usage(pids);

    let begin = Mark::take(&net, pids);
    let until = net.now() + secs(c.duration);
    let keepalives = h.hold(&mut net, until, true)?;
    let end = Mark::take(&net, pids);
    let after = sys::usage(pids);
    let alive = h.alive();

    // A last ping each: a connection may be gone without anyone having told us.
    if !a.no_probe {
        h.probing = true;
        for i in 0..h.clients.len() {
            if h.clients[i].ready {
                h.clients[i].probed = net.now();
                net.put(h.clients[i].conn, ws::PING, &[b"probe"]);
                if i % 256 == 255 {
                    net.flush();
                    net.poll(&mut h, 0).map_err(|e| format!("epoll: {e}"))?;
                }
            }
        }
        let until = net.now() + secs(c.drain);
        while net.now() < until && h.responsive < h.alive() {
            let step = (net.now() + 20_000_000).min(until);
            h.hold(&mut net, step, false)?;
        }
    }
    for cl in h.clients.iter().filter(|c| c.ready) {
        net.send_close(cl.conn, 1000);
    }
    net.flush();

    let per = |a: u64, b: u64| round((b as f64 - a as f64) / opened as f64, 1);
    let memory = if pids.is_empty() {
        serde_json::Value::Null
    } else {
        json!({
            "pids": pids,
            "rss_bytes_before": before.rss_bytes,
            "rss_bytes_connected": settled.rss_bytes,
            "rss_bytes_end": after.rss_bytes,
            "rss_per_connection": per(before.rss_bytes, settled.rss_bytes),
            "rss_per_connection_end": per(before.rss_bytes, after.rss_bytes),
            "private_bytes_before": before.private_bytes,
            "private_bytes_connected": settled.private_bytes,
            "private_per_connection": per(before.private_bytes, settled.private_bytes),
            "pss_bytes_before": before.pss_bytes,
            "pss_bytes_connected": settled.pss_bytes,
            "setup": mark_setup.server_json(&mark_ready, pids, opened as u64),
            "hold": begin.server_json(&end, pids, opened as u64),
        })
    };
    let mut json = head(
        "idle",
        c,
        json!({
            "connections": a.connections, "keepalive_s": a.keepalive,
            "keepalive_kind": format!("{:?}", a.keepalive_kind).to_lowercase(),
            "answer_pings": !a.ignore_pings,
        }),
    );
    json.insert("setup_s".into(), json!(round(setup_s, 4)));
    json.insert("held_s".into(), json!(c.duration));
    json.insert(
        "counts".into(),
        json!({
            "opened": opened, "failed": h.progress.failed, "failures": h.errors.json(),
            "alive": alive, "closed": opened - alive, "closed_reasons": h.closures.json(),
            "responsive": if a.no_probe { None } else { Some(h.responsive) },
            "greetings": h.greetings, "pings_received": net.stats.pings, "pongs_received": h.pongs,
            "keepalives_sent": keepalives, "other_messages": h.other, "other_samples": h.other_samples.json(),
        }),
    );
    json.insert("probe_us".into(), h.probe.json());
    json.insert("tool".into(), begin.tool_json(&end, c.spin));
    json.insert("server".into(), memory);
    let mut human = format!(
        "{opened} of {} connections opened in {setup_s:.2} s; {alive} alive after {} s, {} answered a ping\n",
        a.connections, c.duration, h.responsive
    );
    if !pids.is_empty() {
        human += &format!(
            "  server RSS {:.1} -> {:.1} MiB: {:.0} bytes per connection\n",
            before.rss_bytes as f64 / 1048576.0,
            settled.rss_bytes as f64 / 1048576.0,
            per(before.rss_bytes, settled.rss_bytes)
        );
    }
    let faults = (h.progress.failed + opened - alive) as u64;
    Ok(Report { json, human, faults, aborted: None })
}
