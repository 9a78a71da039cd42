//! Holds many authenticated connections open.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::Common;
use crate::crowd::{Crowd, HasCrowd, Uids};
use crate::net::{ConnId, Gone, Handler, Net};
use crate::open::{Sources, make_net, open_all, require_descriptors, secs};
use crate::proto::sample;
use crate::stats::{Latency, Mark, Report, Samples, head, round};
use crate::{sys, ws};

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
    /// Kind of keepalive
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

struct Idle<'a> {
    args: &'a IdleArgs,
    crowd: Crowd,
    other: u64,
    other_samples: Samples,
    pongs: u64,
    probing: bool,
    /// The time of the last ping of each connection, until its pong.
    probed: Vec<Option<u64>>,
    responsive: usize,
    probe: Latency,
}

impl Idle<'_> {
    /// Handles events until `until`, and sends keepalives when they are due.
    fn hold(&mut self, net: &mut Net, until: u64, keepalive: bool) -> Result<u64, String> {
        let from = net.now();
        let every = if keepalive { secs(self.args.keepalive) } else { 0 };
        let gap = (every as f64 / self.crowd.members.len().max(1) as f64).max(1.0);
        let mut sent = 0u64;
        loop {
            let now = net.now();
            if now >= until {
                return Ok(sent);
            }
            let mut wake = until.min(now + 50_000_000);
            if every > 0 {
                // Keepalives go to one connection after another, so that each gets one every K seconds.
                loop {
                    let due = from + ((sent + 1) as f64 * gap) as u64;
                    if due > now {
                        wake = wake.min(due);
                        break;
                    }
                    let i = (sent % self.crowd.members.len() as u64) as usize;
                    let member = &self.crowd.members[i];
                    sent += 1;
                    if member.ready {
                        match self.args.keepalive_kind {
                            KeepaliveKind::Ping => net.put(member.conn, ws::PING, &[b"k"]),
                            KeepaliveKind::Text => {
                                let text = self.args.keepalive_text.replace("{uid}", &self.crowd.uid(i));
                                net.put(member.conn, ws::TEXT, &[text.as_bytes()]);
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

impl HasCrowd for Idle<'_> {
    fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    fn crowd_mut(&mut self) -> &mut Crowd {
        &mut self.crowd
    }
}

impl Handler for Idle<'_> {
    fn on_open(&mut self, net: &mut Net, c: ConnId, i: u32, _now: u64) {
        self.crowd.on_open(net, c, i);
    }

    fn on_message(&mut self, net: &mut Net, _c: ConnId, i: u32, data: &[u8], _now: u64) {
        if !self.crowd.on_message(net, i, data) {
            self.other += 1;
            if self.other <= 1000 {
                self.other_samples.add(&sample(data));
            }
        }
    }

    fn on_pong(&mut self, _net: &mut Net, _c: ConnId, i: u32, now: u64) {
        self.pongs += 1;
        if self.probing
            && let Some(probed) = self.probed[i as usize].take()
        {
            self.probe.record(now - probed);
            self.responsive += 1;
        }
    }

    fn on_close(&mut self, _net: &mut Net, _c: ConnId, i: u32, why: &Gone, _now: u64) {
        self.crowd.on_close(i, why);
    }
}

pub(crate) fn run(a: &IdleArgs) -> Result<Report, String> {
    // All connections are held for the whole duration, so there is no warm-up.
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
    let crowd =
        Crowd::new(c, &path, Sources::new(c, a.connections, v4), a.connections, Uids::Own(c.uid_prefix.clone()));
    let mut h = Idle {
        args: a,
        crowd,
        other: 0,
        other_samples: Samples::default(),
        pongs: 0,
        probing: false,
        probed: vec![None; a.connections],
        responsive: 0,
        probe: Latency::default(),
    };
    let pids = &c.server_pid;
    let before = sys::usage(pids);
    let mark_setup = Mark::take(&net, pids);
    let setup_s = open_all(&mut net, &mut h, a.connections, c, false)?;
    let mark_ready = Mark::take(&net, pids);
    if h.crowd.progress.ready == 0 {
        return Err(format!(
            "no connection could be made ({} failures): {}",
            h.crowd.progress.failed,
            h.crowd.errors.json()
        ));
    }
    let opened = h.crowd.progress.ready;
    let settle_until = net.now() + secs(a.settle);
    h.hold(&mut net, settle_until, false)?;
    let settled = sys::usage(pids);

    let begin = Mark::take(&net, pids);
    let until = net.now() + secs(c.duration);
    let keepalives = h.hold(&mut net, until, true)?;
    let end = Mark::take(&net, pids);
    let after = sys::usage(pids);
    let alive = h.crowd.alive();

    // Pings each connection at the end: a connection may have ended unnoticed.
    if !a.no_probe {
        h.probing = true;
        for i in 0..h.crowd.members.len() {
            if h.crowd.members[i].ready {
                h.probed[i] = Some(net.now());
                net.put(h.crowd.members[i].conn, ws::PING, &[b"probe"]);
                if i % 256 == 255 {
                    net.flush();
                    net.poll(&mut h, 0).map_err(|e| format!("epoll: {e}"))?;
                }
            }
        }
        let until = net.now() + secs(c.drain);
        while net.now() < until && h.responsive < h.crowd.alive() {
            let step = (net.now() + 20_000_000).min(until);
            h.hold(&mut net, step, false)?;
        }
    }
    h.crowd.leave(&mut net);

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
            "opened": opened, "failed": h.crowd.progress.failed, "failures": h.crowd.errors.json(),
            "alive": alive, "closed": opened - alive, "closed_reasons": h.crowd.closures.json(),
            "responsive": if a.no_probe { None } else { Some(h.responsive) },
            "greetings": h.crowd.greetings, "pings_received": net.stats.pings, "pongs_received": h.pongs,
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
    let faults = (h.crowd.progress.failed + opened - alive) as u64;
    Ok(Report { json, human, faults, aborted: None })
}
