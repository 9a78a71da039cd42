//! The scenarios: one module for each subcommand.

pub(crate) mod broadcast;
pub(crate) mod connect;
pub(crate) mod drain;
pub(crate) mod idle;
pub(crate) mod push;
pub(crate) mod relay;
pub(crate) mod storm;
pub(crate) mod swap;

use serde_json::{Map, Value, json};

use crate::stats::per_second;
use crate::traffic::{Outcome, Traffic};

/// Writes the part of the result that relay, push and swap have in common.
fn traffic_json(t: &Traffic, o: &Outcome, out: &mut Map<String, Value>) {
    let c = &t.config().common;
    let n = &t.n;
    out.insert("effective_size".into(), json!(t.effective_size()));
    out.insert("setup_s".into(), json!(crate::stats::round(o.setup_s, 4)));
    out.insert("drain_s".into(), json!(crate::stats::round(o.drain_s, 4)));
    out.insert("measured_s".into(), json!(o.measured_s));
    out.insert("delivered_per_s".into(), json!(per_second(n.delivered_measured, o.measured_s)));
    out.insert("sent_per_s".into(), json!(per_second(n.sent_measured, o.measured_s)));
    if t.config().via == crate::traffic::Via::Relay {
        out.insert("acks_per_s".into(), json!(per_second(n.acks_measured, o.measured_s)));
    }
    if n.replies_measured > 0 {
        out.insert("replies_per_s".into(), json!(per_second(n.replies_measured, o.measured_s)));
    }
    out.insert("latency_us".into(), t.latency.json());
    if t.reply_latency.count() > 0 {
        out.insert("reply_latency_us".into(), t.reply_latency.json());
    }
    out.insert("counts".into(), t.counts_json(o));
    if t.config().rate.is_some() {
        out.insert("schedule_lag_us".into(), t.lag.json());
    }
    out.insert("tool".into(), o.begin.tool_json(&o.end, c.spin));
    out.insert("server".into(), o.begin.server_json(&o.end, &c.server_pid, n.delivered_measured));
}
