//! Senders pushing to connected WebSocket clients.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{Adapter, Common};
use crate::stats::{Report, head};
use crate::traffic::{Carrier, Config, Item, Plan, Traffic, Via};

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
    /// How a sender pushes
    #[arg(long, value_enum, default_value_t = Carrier::Text)]
    pub(crate) sender: Carrier,
    /// Senders: each has one connection
    #[arg(long, default_value_t = 4)]
    pub(crate) senders: usize,
    /// Bytes of the delivered message: of the whole line
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Lines in flight per sender (closed loop; text and stream)
    #[arg(long, default_value_t = 64)]
    pub(crate) window: u32,
    /// Messages in a batch (--sender batch)
    #[arg(long, default_value_t = 100)]
    pub(crate) batch: u32,
    /// How an item has its message (batch and stream)
    #[arg(long, value_enum, default_value_t = Item::Json)]
    pub(crate) item: Item,
    /// Total lines per second (open loop; replaces --window; text and stream)
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

pub(crate) fn via(adapter: Adapter, carrier: Carrier) -> Result<Via, String> {
    match adapter {
        Adapter::Origin => Ok(Via::Push(carrier)),
        Adapter::Echo => Err("the echo adapter has no push scenario".into()),
    }
}

pub(crate) fn run(a: &PushArgs) -> Result<Report, String> {
    let plan = match a.spread {
        Spread::RoundRobin => Plan::RoundRobin,
        Spread::Zipf if a.zipf_s.is_finite() && a.zipf_s >= 0.0 => Plan::Zipf { s: a.zipf_s },
        Spread::Zipf => return Err("--zipf-s must not be negative".into()),
    };
    if a.rate.is_some() && a.sender.waits() {
        return Err(format!("--rate needs a sender that does not wait for each answer: not {}", a.sender.name()));
    }
    if a.batch == 0 {
        return Err("--batch must be at least 1".into());
    }
    let window = match a.sender {
        Carrier::Http => 1,
        Carrier::Batch => a.batch,
        Carrier::Text | Carrier::Stream => a.window,
    };
    let (mut t, mut net) = Traffic::new(Config {
        common: a.common.clone(),
        via: via(a.common.adapter, a.sender)?,
        plan,
        clients: a.connections,
        push_senders: a.senders,
        size: a.size,
        window,
        item: a.item,
        rate: a.rate,
        offline_ratio: a.offline_ratio,
        newcomers: (0.0, 0.0),
    })?;
    let o = t.run(&mut net, None)?;
    let mut json = head(
        "push",
        &a.common,
        json!({
            "connections": a.connections, "sender": a.sender.name(), "senders": a.senders, "size": a.size,
            "window": if a.rate.is_some() { None } else { Some(window) }, "rate": a.rate,
            "item": if a.sender.has_items() { Some(a.item.name()) } else { None },
            "spread": if a.spread == Spread::Zipf { "zipf" } else { "round-robin" },
            "zipf_s": if a.spread == Spread::Zipf { Some(a.zipf_s) } else { None },
            "offline_ratio": a.offline_ratio,
        }),
    );
    super::traffic_json(&t, &o, &mut json);
    Ok(Report { json, human: t.human(&o), faults: t.faults(&o), aborted: o.aborted })
}
