//! Open-loop traffic while shell commands change the server.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::{Adapter, Common};
use crate::commands::{Commands, Planned};
use crate::open::secs;
use crate::stats::{Report, head, per_second, round};
use crate::timeline::{Row, Timeline, effect, median, rows_json};
use crate::traffic::{Carrier, Config, Item, Plan, Traffic, Via};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SwapVia {
    Relay,
    Push,
}

#[derive(Args, Clone)]
pub(crate) struct SwapArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Kind of traffic
    #[arg(long, value_enum, default_value_t = SwapVia::Relay)]
    pub(crate) via: SwapVia,
    /// WebSocket clients
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// TCP senders (--via push)
    #[arg(long, default_value_t = 4)]
    pub(crate) senders: usize,
    /// Bytes of the delivered message
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Total messages per second
    #[arg(long, default_value_t = 5000.0)]
    pub(crate) rate: f64,
    /// SECONDS:COMMAND: a shell command, run this long after the start of the traffic (repeatable)
    #[arg(long)]
    pub(crate) at: Vec<String>,
    /// Longest time of a command, in seconds
    #[arg(long, default_value_t = 30.0)]
    pub(crate) command_timeout: f64,
    /// New connections authenticated per second
    #[arg(long, default_value_t = 0.0)]
    pub(crate) auth_rate: f64,
    /// Seconds until such a connection is closed
    #[arg(long, default_value_t = 0.0)]
    pub(crate) auth_hold: f64,
    /// Length of a timeline bucket
    #[arg(long, default_value_t = 100)]
    pub(crate) bucket_ms: u64,
    /// Seconds after a command that are compared with the time before it
    #[arg(long, default_value_t = 10.0)]
    pub(crate) after: f64,
}

pub(crate) fn run(a: &SwapArgs) -> Result<Report, String> {
    let c = &a.common;
    let (via, plan) = match (a.via, c.adapter) {
        (SwapVia::Relay, Adapter::Origin) => (Via::Relay, Plan::Paired),
        (SwapVia::Relay, Adapter::Echo) => (Via::Echo, Plan::Paired),
        (SwapVia::Push, adapter) => (super::push::via(adapter, Carrier::Text)?, Plan::RoundRobin),
    };
    let planned = a.at.iter().map(|s| Planned::parse(s)).collect::<Result<Vec<_>, _>>()?;
    if let Some(p) = planned.iter().find(|p| p.at_s >= c.duration) {
        return Err(format!("--at {}: after the end of the traffic ({} s)", p.at_s, c.duration));
    }
    if !(10..=60_000).contains(&a.bucket_ms) {
        return Err("--bucket-ms must be between 10 and 60000".into());
    }
    for (name, v, max) in [
        ("auth-rate", a.auth_rate, 1e6),
        ("auth-hold", a.auth_hold, 3600.0),
        ("after", a.after, 86_400.0),
        ("command-timeout", a.command_timeout, 3600.0),
    ] {
        if !(v.is_finite() && (0.0..=max).contains(&v)) {
            return Err(format!("--{name} must be between 0 and {max}"));
        }
    }
    let (mut t, mut net) = Traffic::new(Config {
        common: c.clone(),
        via,
        plan,
        clients: a.connections,
        push_senders: if a.via == SwapVia::Push { a.senders } else { 0 },
        size: a.size,
        window: 0,
        item: Item::Json,
        rate: Some(a.rate),
        offline_ratio: 0.0,
        newcomers: (a.auth_rate, a.auth_hold),
    })?;
    let bucket_s = a.bucket_ms as f64 / 1000.0;
    t.timeline = Some(Timeline::new(a.bucket_ms * 1_000_000, secs(c.duration), a.rate));
    let mut commands = Commands::new(planned.clone(), a.command_timeout);
    let result = t.run(&mut net, Some(&mut commands));
    let ran = commands.finish();
    let o = result?;
    let rows = t.timeline.take().map(|mut tl| tl.rows(&t.newcomers.arrivals)).unwrap_or_default();

    let mut command_faults = 0;
    let mut human = t.human(&o);
    let mut list = Vec::new();
    for (i, p) in planned.iter().enumerate() {
        let r = ran.iter().find(|r| r.index == i);
        let began = r.map_or(p.at_s, |r| r.started_s);
        let e = effect(&rows, bucket_s, c.warmup, began, a.after);
        let (status, problem) = match r.map(|r| &r.result) {
            Some(Ok(code)) => (json!(code), None),
            Some(Err(e)) => (Value::Null, Some(e.clone())),
            None => (Value::Null, Some("not run: the traffic ended before".to_string())),
        };
        command_faults += (status != json!(0)) as u64;
        human += &format!(
            "  at {began:.3} s ran {:?} (exit {}, {:.1} ms): max {} -> {} us, p50 {} -> {} us, lost {}, auth failed {}\n",
            p.shell,
            problem.clone().unwrap_or_else(|| status.to_string()),
            r.map_or(0.0, |r| r.took_s * 1e3),
            e["max"]["median_before_us"],
            e["max"]["worst_after_us"],
            e["p50"]["median_before_us"],
            e["p50"]["worst_after_us"],
            e["lost_after"],
            e["auth_failed_after"],
        );
        list.push(json!({
            "at_s": p.at_s,
            "command": p.shell,
            "started_s": round(began, 4),
            "took_s": r.map(|r| round(r.took_s, 4)),
            "exit": status,
            "problem": problem,
            "stderr": r.map(|r| r.output.clone()).unwrap_or_default(),
            "effect": e,
        }));
    }
    if a.auth_rate > 0.0 {
        human += &format!(
            "  newcomers: ok {}  failed {}  skipped {}; latency {}\n",
            t.newcomers.logged_in(),
            t.newcomers.failed(),
            t.newcomers.skipped,
            t.auth_latency().line()
        );
    }

    let mut json = head(
        "swap",
        c,
        json!({
            "via": if a.via == SwapVia::Push { "push" } else { "relay" },
            "connections": a.connections, "senders": if a.via == SwapVia::Push { Some(a.senders) } else { None },
            "size": a.size, "rate": a.rate, "auth_rate": a.auth_rate, "auth_hold_s": a.auth_hold,
            "bucket_ms": a.bucket_ms, "after_s": a.after,
        }),
    );
    super::traffic_json(&t, &o, &mut json);
    json.insert(
        "auth".into(),
        json!({
            "ok": t.newcomers.logged_in(), "failed": t.newcomers.failed(), "skipped": t.newcomers.skipped,
            "failures": t.newcomers.errors.json(),
            "ok_per_s": per_second(t.newcomers.logged_in(), c.duration),
            "latency_us": t.auth_latency().json(),
        }),
    );
    let measured = || rows.iter().filter(|r| r.at_s >= c.warmup);
    let typical = |f: fn(&Row) -> Option<f64>| median(measured().filter_map(f));
    let worst = measured().filter_map(|r| r.max.map(|m| (m, r.at_s))).max_by(|a, b| a.0.total_cmp(&b.0));
    json.insert(
        "buckets".into(),
        json!({
            "median_p50_us": typical(|r| r.p50),
            "median_p99_us": typical(|r| r.p99),
            "median_max_us": typical(|r| r.max),
            "worst_max_us": worst.map(|w| w.0),
            "worst_at_s": worst.map(|w| w.1),
        }),
    );
    json.insert("commands".into(), Value::Array(list));
    json.insert("timeline".into(), rows_json(&rows));
    Ok(Report { json, human, faults: t.faults(&o) + command_faults, aborted: o.aborted })
}
