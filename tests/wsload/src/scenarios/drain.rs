//! Has a gateway drained: its clients are closed one after the other, and come back at another gateway, where others
//! log in meanwhile.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use clap::Args;
use serde_json::json;

use crate::address::{loopback, split_ws};
use crate::cli::Common;
use crate::commands::{Commands, Planned};
use crate::crowd::{Crowd, HasCrowd, Uids};
use crate::net::{ConnId, Gone, Handler, Net};
use crate::newcomers::Newcomers;
use crate::open::{Sources, make_net, open_all, require_descriptors, secs};
use crate::rng::Rng;
use crate::stats::{Latency, Mark, Report, Samples, head, round};

/// The first tag of newcomers. The connections that are closed have tags from 0.
const NEWCOMERS: u32 = 1 << 30;
/// The time limit of the command that starts the drain.
const COMMAND_S: f64 = 120.0;

#[derive(Args, Clone)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Idle connections, which the server is to close
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Where the clients come back, and the newcomers log in [default: at --ws]
    #[arg(long)]
    elsewhere: Option<String>,
    /// Newcomers a second
    #[arg(long, default_value_t = 200.0)]
    auth_rate: f64,
    /// Shell command that makes the server at --ws drain, like 'kill -TERM 1234'
    #[arg(long)]
    command: String,
    /// Second at which the command runs [default: --warmup and 3]
    #[arg(long)]
    drain_at: Option<f64>,
    /// Longest time, in seconds, that a client waits before it comes back: a random time up to this
    #[arg(long, default_value_t = 5.0)]
    retry: f64,
    /// Planned closes a second [default: the average]
    #[arg(long)]
    planned: Option<f64>,
}

struct Drain {
    crowd: Crowd,
    newcomers: Newcomers,
    rng: Rng,
    retry: u64,
    /// When each connection was closed.
    closed: Vec<u64>,
    /// When each client comes back, and which one.
    back: BinaryHeap<Reverse<(u64, u32)>>,
    /// The time from then until each was logged in.
    back_due: Vec<u64>,
    back_latency: Latency,
    /// Ends that were no close frame, and refusals of those who came back.
    faults: Samples,
}

impl Drain {
    /// Starts the clients that come back now. Returns when the next one does.
    fn come_back(&mut self, net: &mut Net) -> u64 {
        loop {
            let Some(Reverse((due, i))) = self.back.peek().copied() else { return u64::MAX };
            if due > net.now() {
                return due;
            }
            self.back.pop();
            self.back_due[i as usize] = due;
            self.crowd.start(net, i as usize);
        }
    }
}

impl Handler for Drain {
    fn on_open(&mut self, net: &mut Net, conn: ConnId, tag: u32, now: u64) {
        if tag < NEWCOMERS {
            self.crowd.on_open(net, conn, tag);
        } else {
            self.newcomers.on_open(net, &self.crowd.proto, conn, tag, now);
        }
    }

    fn on_message(&mut self, net: &mut Net, _conn: ConnId, tag: u32, data: &[u8], now: u64) {
        if tag >= NEWCOMERS {
            return self.newcomers.on_message(net, &self.crowd.proto, tag, data, now);
        }
        let was_ready = self.crowd.members[tag as usize].ready;
        self.crowd.on_message(net, tag, data);
        let due = self.back_due[tag as usize];
        if due > 0 && !was_ready && self.crowd.members[tag as usize].ready {
            self.back_latency.record(now.saturating_sub(due));
        }
    }

    fn on_close(&mut self, _net: &mut Net, _conn: ConnId, tag: u32, why: &Gone, now: u64) {
        if tag >= NEWCOMERS {
            return self.newcomers.on_close(tag, why);
        }
        let was_ready = self.crowd.members[tag as usize].ready;
        self.crowd.on_close(tag, why);
        if !was_ready || self.back_due[tag as usize] > 0 {
            return self.faults.add(&why.to_string());
        }
        if !matches!(why, Gone::CloseFrame(_)) {
            self.faults.add(&why.to_string());
        }
        self.closed.push(now);
        let wait = (self.retry as f64 * (self.rng.draw() as u32 as f64 / f64::from(u32::MAX))) as u64;
        self.back.push(Reverse((now + wait, tag)));
    }
}

impl HasCrowd for Drain {
    fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    fn crowd_mut(&mut self) -> &mut Crowd {
        &mut self.crowd
    }
}

/// The most events within any second. The times are in order.
fn busiest_second(times: &[u64]) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, time) in times.iter().enumerate() {
        while times[first] + 1_000_000_000 <= *time {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

pub(crate) fn run(a: &DrainArgs) -> Result<Report, String> {
    let c = &a.common;
    c.check()?;
    let drain_at = a.drain_at.unwrap_or(c.warmup + 3.0);
    if !(drain_at > c.warmup && drain_at < c.duration) {
        return Err("--drain-at must be after --warmup and before the end".into());
    }
    if a.connections == 0 || !(a.auth_rate > 0.0 && a.auth_rate <= 1e6) || !(0.0..=3600.0).contains(&a.retry) {
        return Err("--connections and --auth-rate must be positive, --retry from 0 to 3600".into());
    }
    let elsewhere = split_ws(a.elsewhere.as_ref().unwrap_or(&c.ws))?.0;
    let address = loopback("--elsewhere", &elsewhere)?;
    let newcomers = Newcomers::new(c, a.auth_rate, 0.0, NEWCOMERS);
    require_descriptors(a.connections + newcomers.places())?;
    let (mut net, path, v4) = make_net(c, true)?;
    let sources = Sources::new(c, a.connections, v4 && address.is_ipv4());
    let mut h = Drain {
        crowd: Crowd::new(c, &path, sources, a.connections, Uids::Own(c.uid_prefix.clone())),
        newcomers,
        rng: Rng::new(c.seed ^ 0xD8A1_7BAC),
        retry: secs(a.retry),
        closed: Vec::new(),
        back: BinaryHeap::new(),
        back_due: vec![0; a.connections],
        back_latency: Latency::default(),
        faults: Samples::default(),
    };
    let setup_s = open_all(&mut net, &mut h, a.connections, c, true)?;
    net.redirect(address, elsewhere);

    let begin = Mark::take(&net, &c.server_pid);
    let t0 = net.now();
    let (from, drain, until) = (t0 + secs(c.warmup), t0 + secs(drain_at), t0 + secs(c.duration));
    let mut commands = Commands::new(vec![Planned { at_s: drain_at, shell: a.command.clone() }], COMMAND_S);
    commands.start(0);
    loop {
        let now = net.now();
        let under_way = h.newcomers.under_way() > 0 || h.crowd.alive() < a.connections;
        if now >= until && (!under_way || now >= until + secs(c.drain)) {
            break;
        }
        let wake = h.come_back(&mut net).min(now + 10_000_000);
        let wake = wake.min(h.newcomers.start(&mut net, &h.crowd.proto, &sources, (t0, until)));
        net.flush();
        h.newcomers.tick(&mut net, now);
        net.poll(&mut h, wake.saturating_sub(net.now())).map_err(|e| format!("epoll: {e}"))?;
    }
    let end = Mark::take(&net, &c.server_pid);
    let command = commands.finish().pop().map(|ran| ran.result);

    let (before, during) = (h.newcomers.latency(from, drain), h.newcomers.latency(drain, until));
    let closed_s = match (h.closed.first(), h.closed.last()) {
        (Some(first), Some(last)) => (last - first) as f64 / 1e9,
        _ => 0.0,
    };
    let planned = a.planned.unwrap_or(h.closed.len() as f64 / closed_s.max(1.0));
    let busiest = busiest_second(&h.closed);
    let ratio = round(busiest as f64 / planned.max(1e-9), 3);
    let early = h.closed.iter().filter(|time| **time < drain).count() as u64;
    let away = (a.connections - h.crowd.alive()) as u64;
    let (failed, skipped, unfinished) = (h.newcomers.failed(), h.newcomers.skipped, h.newcomers.under_way());
    let commanded = matches!(command, Some(Ok(0)));
    let mut json = head(
        "drain",
        c,
        json!({
            "connections": a.connections, "auth_rate": a.auth_rate, "drain_at_s": drain_at, "retry_s": a.retry,
            "elsewhere": address.to_string(), "command": a.command,
        }),
    );
    json.insert("setup_s".into(), json!(round(setup_s, 4)));
    json.insert("closed_s".into(), json!(round(closed_s, 3)));
    json.insert("busiest_second".into(), json!(busiest));
    json.insert("planned_per_s".into(), json!(round(planned, 1)));
    json.insert("busiest_to_planned".into(), json!(ratio));
    json.insert("before_us".into(), before.json());
    json.insert("during_us".into(), during.json());
    json.insert("back_us".into(), h.back_latency.json());
    json.insert(
        "counts".into(),
        json!({
            "closed": h.closed.len(), "closed_before": early, "closed_reasons": h.crowd.closures.json(), "away": away,
            "faults": h.faults.json(), "auth_ok": h.newcomers.logged_in(), "auth_failed": failed,
            "auth_skipped": skipped, "auth_unfinished": unfinished, "failures": h.newcomers.errors.json(),
            "command_exit_0": commanded,
        }),
    );
    json.insert("tool".into(), begin.tool_json(&end, c.spin));
    json.insert("server".into(), begin.server_json(&end, &c.server_pid, h.closed.len() as u64));
    let human = format!(
        "{} connections closed in {closed_s:.2} s, at most {busiest} in a second ({ratio} of the plan), {away} not back\n  \
         logins before  {}\n  logins during  {}\n  who came back  {}\n  ok {}  failed {failed}  skipped {skipped}  unfinished {unfinished}\n",
        h.closed.len(),
        before.line(),
        during.line(),
        h.back_latency.line(),
        h.newcomers.logged_in(),
    );
    let faults = failed + skipped + unfinished + early + away + h.faults.total + u64::from(!commanded);
    Ok(Report { json, human, faults, aborted: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_may_begin_at_any_time() {
        let s = |tenths: &[u64]| tenths.iter().map(|tenth| tenth * 100_000_000).collect::<Vec<_>>();
        assert_eq!(busiest_second(&[]), 0);
        assert_eq!(busiest_second(&s(&[0, 9, 10, 11, 12, 18, 30])), 5);
    }
}
