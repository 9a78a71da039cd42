//! TCP senders pushing to connected WebSocket clients.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{Adapter, Common};
use crate::stats::{Report, head};
use crate::traffic::{Config, Plan, Traffic, Via};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Spread {
    RoundRobin,
    Zipf,
}

#[derive(Args, Clone)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// WebSocket clients
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// TCP senders
    #[arg(long, default_value_t = 4)]
    pub(crate) senders: usize,
    /// Bytes of the delivered message: of the whole line
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Lines in flight per sender (closed loop)
    #[arg(long, default_value_t = 64)]
    pub(crate) window: u32,
    /// Total lines per second (open loop; replaces --window)
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How a sender goes through the clients
    #[arg(long, value_enum, default_value_t = Spread::RoundRobin)]
    pub(crate) spread: Spread,
    /// Exponent of --spread zipf
    #[arg(long, default_value_t = 1.0)]
    pub(crate) zipf_s: f64,
    /// Share of lines for uids that are not connected
    #[arg(long, default_value_t = 0.0)]
    pub(crate) offline_ratio: f64,
}

pub(crate) fn via(adapter: Adapter) -> Result<Via, String> {
    match adapter {
        Adapter::Origin => Ok(Via::Text),
        Adapter::Echo => Err("the echo adapter has no push scenario".into()),
    }
}

pub(crate) fn run(a: &PushArgs) -> Result<Report, String> {
    let plan = match a.spread {
        Spread::RoundRobin => Plan::RoundRobin,
        Spread::Zipf if a.zipf_s.is_finite() && a.zipf_s >= 0.0 => Plan::Zipf { s: a.zipf_s },
        Spread::Zipf => return Err("--zipf-s must not be negative".into()),
    };
    let (mut t, mut net) = Traffic::new(Config {
        common: a.common.clone(),
        via: via(a.common.adapter)?,
        plan,
        clients: a.connections,
        text_senders: a.senders,
        size: a.size,
        window: a.window,
        rate: a.rate,
        offline_ratio: a.offline_ratio,
        newcomers: (0.0, 0.0),
    })?;
    let o = t.run(&mut net, None)?;
    let mut json = head(
        "push",
        &a.common,
        json!({
            "connections": a.connections, "senders": a.senders, "size": a.size,
            "window": if a.rate.is_some() { None } else { Some(a.window) }, "rate": a.rate,
            "spread": if a.spread == Spread::Zipf { "zipf" } else { "round-robin" },
            "zipf_s": if a.spread == Spread::Zipf { Some(a.zipf_s) } else { None },
            "offline_ratio": a.offline_ratio,
        }),
    );
    super::traffic_json(&t, &o, &mut json);
    Ok(Report { json, human: t.human(&o), faults: t.faults(&o), aborted: o.aborted })
}
