//! Opens, authenticates and closes connections as fast as possible.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::Common;
use crate::net::{ConnId, Gone, Handler, NO_CONN, Net};
use crate::open::{Sources, make_net, require_descriptors, secs};
use crate::proto::{Proto, Step};
use crate::stats::{Latency, Mark, Report, Samples, head, per_second, round};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum CloseMode {
    /// Close frame, wait for the server's side (up to a second), then close
    Clean,
    /// Close frame and FIN at once
    Fin,
    /// Reset
    Rst,
}

#[derive(Args, Clone)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Connections under way at the same time
    #[arg(long, default_value_t = 64)]
    pub(crate) concurrency: usize,
    /// Distinct uids used in turn
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) uid_space: u64,
    /// How connections are closed
    #[arg(long, value_enum, default_value_t = CloseMode::Clean)]
    pub(crate) close: CloseMode,
    /// Stop after the handshake (no first packet)
    #[arg(long)]
    pub(crate) no_auth: bool,
}

/// The longest time for a clean close. After it, the close counts as missing.
const CLOSE_WAIT_NS: u64 = 1_000_000_000;
/// The default number of source addresses: closed connections keep their port in TIME_WAIT for a minute.
const SOURCES: u32 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Vacant,
    Connecting,
    Authenticating,
    Closing,
}

struct Place {
    conn: ConnId,
    phase: Phase,
    began: u64,
    upgraded: u64,
    closing: u64,
    uid: String,
}

struct Churn<'a> {
    args: &'a ConnectArgs,
    proto: Proto,
    sources: Sources,
    places: Vec<Place>,
    vacant: Vec<u32>,
    started: u64,
    from: u64,
    to: u64,
    ready: u64,
    ready_measured: u64,
    upgraded: u64,
    clean_closes: u64,
    close_timeouts: u64,
    failed: u64,
    failures: Samples,
    total: Latency,
    handshake: Latency,
    auth: Latency,
    close: Latency,
}

impl Churn<'_> {
    fn begin(&mut self, net: &mut Net) {
        while let Some(i) = self.vacant.pop() {
            let k = self.started;
            self.started += 1;
            let uid = format!("{}{}", self.args.common.uid_prefix, k % self.args.uid_space.max(1));
            let now = net.now();
            match net.open_ws(self.proto.path(&uid), i, self.sources.pick(k)) {
                Ok(conn) => {
                    self.places[i as usize] =
                        Place { conn, phase: Phase::Connecting, began: now, upgraded: 0, closing: 0, uid };
                }
                Err(e) => {
                    self.fail(i, &format!("connect: {e}"));
                    // Ports or descriptors are probably used up. Some become free later.
                    return;
                }
            }
        }
    }

    fn vacate(&mut self, i: u32) {
        let s = &mut self.places[i as usize];
        (s.conn, s.phase) = (NO_CONN, Phase::Vacant);
        self.vacant.push(i);
    }

    fn fail(&mut self, i: u32, why: &str) {
        self.failed += 1;
        self.failures.add(why);
        self.vacate(i);
    }

    fn step(&mut self, net: &mut Net, i: u32, step: Step, now: u64) {
        match step {
            Step::Wait => self.places[i as usize].phase = Phase::Authenticating,
            Step::Failed(e) => {
                net.close(self.places[i as usize].conn, true);
                self.fail(i, &e);
            }
            Step::Ready => {
                let s = &mut self.places[i as usize];
                self.ready += 1;
                if now >= self.from && now < self.to {
                    self.ready_measured += 1;
                }
                if s.began >= self.from {
                    self.total.record(now - s.began);
                    self.handshake.record(s.upgraded - s.began);
                    self.auth.record((now - s.upgraded).max(1));
                }
                (s.phase, s.closing) = (Phase::Closing, now);
                let conn = s.conn;
                match self.args.close {
                    CloseMode::Clean => net.send_close(conn, 1000),
                    CloseMode::Fin => {
                        net.send_close(conn, 1000);
                        net.flush_one(conn);
                        net.close(conn, false);
                        self.vacate(i);
                    }
                    CloseMode::Rst => {
                        net.close(conn, true);
                        self.vacate(i);
                    }
                }
            }
        }
    }

    fn expire(&mut self, net: &mut Net, now: u64) {
        let limit = secs(self.args.common.connect_timeout);
        for i in 0..self.places.len() as u32 {
            let s = &self.places[i as usize];
            match s.phase {
                Phase::Connecting if now > s.began + limit => {
                    net.close(s.conn, true);
                    self.fail(i, "handshake timed out");
                }
                Phase::Authenticating if now > s.began + limit => {
                    net.close(s.conn, true);
                    self.fail(i, "no answer to the first packet");
                }
                Phase::Closing if now > s.closing + CLOSE_WAIT_NS => {
                    net.close(s.conn, true);
                    self.close_timeouts += 1;
                    self.vacate(i);
                }
                _ => {}
            }
        }
    }
}

impl Handler for Churn<'_> {
    fn on_open(&mut self, net: &mut Net, c: ConnId, i: u32, now: u64) {
        self.upgraded += 1;
        self.places[i as usize].upgraded = now;
        let step =
            if self.args.no_auth { Step::Ready } else { self.proto.on_open(net, c, &self.places[i as usize].uid) };
        self.step(net, i, step, now);
    }

    fn on_message(&mut self, net: &mut Net, _c: ConnId, i: u32, data: &[u8], now: u64) {
        if self.places[i as usize].phase == Phase::Authenticating {
            let step = self.proto.on_setup_message(data);
            self.step(net, i, step, now);
        }
    }

    fn on_close(&mut self, _net: &mut Net, _c: ConnId, i: u32, why: &Gone, now: u64) {
        let s = &self.places[i as usize];
        if s.phase == Phase::Closing {
            match why {
                Gone::CloseFrame(_) | Gone::Eof => {
                    self.clean_closes += 1;
                    self.close.record((now - s.closing).max(1));
                }
                _ => {}
            }
            self.vacate(i);
        } else {
            let phase = if s.phase == Phase::Connecting { "handshake" } else { "auth" };
            self.fail(i, &format!("{phase}: {why}"));
        }
    }
}

pub(crate) fn run(a: &ConnectArgs) -> Result<Report, String> {
    let c = &a.common;
    c.check()?;
    if a.concurrency == 0 {
        return Err("--concurrency must be at least 1".into());
    }
    require_descriptors(a.concurrency)?;
    let (mut net, path, v4) = make_net(c, true)?;
    let mut spread = c.clone();
    if spread.source_addrs == 0 {
        spread.source_addrs = SOURCES;
    }
    let mut h = Churn {
        args: a,
        proto: Proto::new(c, &path),
        sources: Sources::new(&spread, a.concurrency, v4),
        places: (0..a.concurrency)
            .map(|_| Place {
                conn: NO_CONN,
                phase: Phase::Vacant,
                began: 0,
                upgraded: 0,
                closing: 0,
                uid: String::new(),
            })
            .collect(),
        vacant: (0..a.concurrency as u32).rev().collect(),
        started: 0,
        from: 0,
        to: 0,
        ready: 0,
        ready_measured: 0,
        upgraded: 0,
        clean_closes: 0,
        close_timeouts: 0,
        failed: 0,
        failures: Samples::default(),
        total: Latency::default(),
        handshake: Latency::default(),
        auth: Latency::default(),
        close: Latency::default(),
    };
    let t0 = net.now();
    (h.from, h.to) = (t0 + secs(c.warmup), t0 + secs(c.duration));
    let (mut begin, mut end): (Option<Mark>, Option<Mark>) = (None, None);
    let mut next_expire = t0;
    let mut give_up = u64::MAX;
    loop {
        let now = net.now();
        if begin.is_none() && now >= h.from {
            begin = Some(Mark::take(&net, &c.server_pid));
        }
        if end.is_none() && now >= h.to {
            end = Some(Mark::take(&net, &c.server_pid));
            give_up = now + secs(c.drain);
        }
        if end.is_none() {
            h.begin(&mut net);
            // No connection has ever worked: ends early.
            if h.ready == 0 && h.failed >= 1000 {
                break;
            }
        } else if h.vacant.len() == h.places.len() || now >= give_up {
            break;
        }
        net.flush();
        // Failed connections are retried after a pause, not in a tight loop.
        let wait = if h.vacant.is_empty() { 5_000_000 } else { 1_000_000 };
        net.poll(&mut h, if c.spin { 0 } else { wait }).map_err(|e| format!("epoll: {e}"))?;
        if now >= next_expire {
            next_expire = now + 50_000_000;
            h.expire(&mut net, now);
        }
    }
    if h.ready == 0 {
        return Err(format!("no connection could be made ({} failures): {}", h.failed, h.failures.json()));
    }
    let unfinished = h.places.iter().filter(|s| matches!(s.phase, Phase::Connecting | Phase::Authenticating)).count();
    let end = end.unwrap_or_else(|| Mark::take(&net, &c.server_pid));
    let begin = begin.unwrap_or_else(|| end.clone());
    let measured_s = (h.to - h.from) as f64 / 1e9;
    let rate = per_second(h.ready_measured, measured_s);
    let mut json = head(
        "connect",
        c,
        json!({
            "concurrency": a.concurrency, "close": format!("{:?}", a.close).to_lowercase(), "auth": !a.no_auth,
            "source_addrs": h.sources.count(), "uid_space": a.uid_space,
        }),
    );
    json.insert("measured_s".into(), json!(round(measured_s, 4)));
    json.insert("connects_per_s".into(), json!(rate));
    json.insert("latency_us".into(), h.total.json());
    json.insert("handshake_us".into(), h.handshake.json());
    json.insert("auth_us".into(), h.auth.json());
    json.insert("close_us".into(), h.close.json());
    json.insert(
        "counts".into(),
        json!({
            "started": h.started, "upgraded": h.upgraded, "ready": h.ready, "ready_measured": h.ready_measured,
            "failed": h.failed, "failures": h.failures.json(), "unfinished": unfinished,
            "clean_closes": h.clean_closes, "close_timeouts": h.close_timeouts,
        }),
    );
    json.insert("tool".into(), begin.tool_json(&end, c.spin));
    json.insert("server".into(), begin.server_json(&end, &c.server_pid, h.ready_measured));
    let human = format!(
        "{rate:.0} connections/s over {measured_s:.1} s at concurrency {}\n  ready     {}\n  handshake {}\n  auth      {}\n  ready {}  failed {}  unfinished {unfinished}  close timeouts {}\n",
        a.concurrency,
        h.total.line(),
        h.handshake.line(),
        h.auth.line(),
        h.ready,
        h.failed,
        h.close_timeouts,
    );
    let faults = h.failed + unfinished as u64 + h.close_timeouts;
    Ok(Report { json, human, faults, aborted: None })
}
