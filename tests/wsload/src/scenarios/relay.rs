//! WebSocket clients sending to each other (or, with the echo adapter, to themselves).

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{Adapter, Common};
use crate::stats::{Report, head};
use crate::traffic::{Config, Item, Plan, Traffic, Via};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Targets {
    /// 0<->1, 2<->3, ...
    Paired,
    /// Every sender gets --fanout fixed random targets and picks among them at random
    Random,
}

#[derive(Args, Clone)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// WebSocket clients
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Bytes of the delivered message
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Messages in flight per sender (closed loop)
    #[arg(long, default_value_t = 64)]
    pub(crate) window: u32,
    /// Total messages per second (open loop; replaces --window)
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Who writes to whom
    #[arg(long, value_enum, default_value_t = Targets::Paired)]
    pub(crate) targets: Targets,
    /// Targets per sender with --targets random
    #[arg(long, default_value_t = 4)]
    pub(crate) fanout: usize,
}

pub(crate) fn run(a: &RelayArgs) -> Result<Report, String> {
    let via = match a.common.adapter {
        Adapter::Origin => Via::Relay,
        Adapter::Echo => Via::Echo,
    };
    let plan = match (via, a.targets) {
        (Via::Relay, Targets::Random) => Plan::Random { fanout: a.fanout },
        _ => Plan::Paired,
    };
    let (mut t, mut net) = Traffic::new(Config {
        common: a.common.clone(),
        via,
        plan,
        clients: a.connections,
        push_senders: 0,
        size: a.size,
        window: a.window,
        item: Item::Json,
        rate: a.rate,
        offline_ratio: 0.0,
        newcomers: (0.0, 0.0),
    })?;
    let o = t.run(&mut net, None)?;
    let mut json = head(
        "relay",
        &a.common,
        json!({
            "connections": a.connections, "size": a.size, "window": if a.rate.is_some() { None } else { Some(a.window) },
            "rate": a.rate, "targets": if plan == Plan::Paired { "paired" } else { "random" },
            "fanout": if plan == Plan::Paired { 1 } else { a.fanout },
        }),
    );
    super::traffic_json(&t, &o, &mut json);
    Ok(Report { json, human: t.human(&o), faults: t.faults(&o), aborted: o.aborted })
}
