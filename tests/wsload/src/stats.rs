//! Histograms, counters, resource usage of processes, and their JSON.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::net::{Net, NetStats};
use crate::sys::{self, Usage};

/// Latencies in nanoseconds, up to ten minutes, with three significant digits.
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Latency {
        Latency(Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds"))
    }
}

impl Latency {
    #[inline]
    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// A quantile in microseconds.
    pub(crate) fn quantile_us(&self, q: f64) -> f64 {
        us(self.0.value_at_quantile(q))
    }

    pub(crate) fn max_us(&self) -> f64 {
        us(self.0.max())
    }

    pub(crate) fn json(&self) -> Value {
        if self.0.is_empty() {
            return json!({"count": 0});
        }
        json!({
            "count": self.0.len(),
            "min": us(self.0.min()),
            "mean": round(self.0.mean() / 1000.0, 2),
            "p50": self.quantile_us(0.50),
            "p90": self.quantile_us(0.90),
            "p99": self.quantile_us(0.99),
            "p999": self.quantile_us(0.999),
            "max": self.max_us(),
        })
    }

    /// A summary in one line.
    pub(crate) fn line(&self) -> String {
        if self.0.is_empty() {
            return "no samples".into();
        }
        let q = |p: f64| self.quantile_us(p);
        format!(
            "p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} us",
            q(0.5),
            q(0.9),
            q(0.99),
            q(0.999),
            self.max_us()
        )
    }
}

fn us(ns: u64) -> f64 {
    round(ns as f64 / 1000.0, 2)
}

pub(crate) fn round(v: f64, digits: i32) -> f64 {
    let k = 10f64.powi(digits);
    (v * k).round() / k
}

pub(crate) fn per_second(n: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { round(n as f64 / seconds, 1) } else { 0.0 }
}

/// A few examples of a fault, and the number of all.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) total: u64,
    kinds: Vec<(String, u64)>,
}

impl Samples {
    pub(crate) fn add(&mut self, text: &str) {
        self.total += 1;
        if let Some(k) = self.kinds.iter_mut().find(|(t, _)| t == text) {
            k.1 += 1;
        } else if self.kinds.len() < 8 {
            self.kinds.push((text.to_string(), 1));
        }
    }

    pub(crate) fn json(&self) -> Value {
        Value::Object(self.kinds.iter().map(|(t, n)| (t.clone(), json!(n))).collect())
    }
}

/// The resource usage of wsload and of the server at one moment.
#[derive(Clone, Default)]
pub(crate) struct Mark {
    pub(crate) at_ns: u64,
    own: Usage,
    server: Usage,
    net: NetStats,
}

impl Mark {
    pub(crate) fn take(net: &Net, pids: &[u32]) -> Mark {
        Mark {
            at_ns: net.now(),
            own: sys::usage(&[std::process::id()]),
            server: sys::usage(pids),
            net: net.stats.clone(),
        }
    }

    /// The resource usage of wsload between two marks.
    pub(crate) fn tool_json(&self, end: &Mark, spin: bool) -> Value {
        let wall = (end.at_ns - self.at_ns) as f64 / 1e9;
        let (a, b) = (&self.own, &end.own);
        let cpu = b.cpu_s() - a.cpu_s();
        let busy = 1.0 - (end.net.idle_ns - self.net.idle_ns) as f64 / 1e9 / wall.max(1e-9);
        let busy = busy.clamp(0.0, 1.0);
        json!({
            "wall_s": round(wall, 4),
            "cpu_user_s": round(b.user_s - a.user_s, 4),
            "cpu_kernel_s": round(b.kernel_s - a.kernel_s, 4),
            "cpu_ratio": round(cpu / wall.max(1e-9), 4),
            "busy_ratio": round(busy, 4),
            "saturated": busy > 0.9,
            "run_delay_s": round(b.run_delay_s - a.run_delay_s, 4),
            "involuntary_switches": b.involuntary_switches - a.involuntary_switches,
            "spin": spin,
            "loops": end.net.loops - self.net.loops,
            "events": end.net.events - self.net.events,
            "recv_calls": end.net.recvs - self.net.recvs,
            "send_calls": end.net.sends - self.net.sends,
            "bytes_in": end.net.bytes_in - self.net.bytes_in,
            "bytes_out": end.net.bytes_out - self.net.bytes_out,
        })
    }

    /// The resource usage of the server between two marks, if its processes are known.
    pub(crate) fn server_json(&self, end: &Mark, pids: &[u32], units: u64) -> Value {
        if pids.is_empty() {
            return Value::Null;
        }
        let (a, b) = (&self.server, &end.server);
        // The usage of an ended process is not known any more.
        let whole = b.alive == pids.len() && a.alive == pids.len();
        let known = |v: f64, digits| if whole { json!(round(v, digits)) } else { Value::Null };
        let cpu = b.cpu_s() - a.cpu_s();
        let wall = (end.at_ns - self.at_ns) as f64 / 1e9;
        json!({
            "pids": pids,
            "alive": b.alive,
            "cpu_s": known(cpu, 3),
            "cpu_ratio": known(cpu / wall.max(1e-9), 4),
            "cpu_us_per_unit": if units > 0 { known(cpu * 1e6 / units as f64, 3) } else { Value::Null },
            "run_delay_s": known(b.run_delay_s - a.run_delay_s, 4),
            "rss_bytes_before": a.rss_bytes,
            "rss_bytes_after": b.rss_bytes,
            "threads": b.threads,
        })
    }
}

/// The result of a scenario: the JSON line, the text, and the number of faults.
pub(crate) struct Report {
    pub(crate) json: Map<String, Value>,
    pub(crate) human: String,
    /// The number of messages lost, duplicated, misdelivered, refused, and so on.
    pub(crate) faults: u64,
    /// Why the traffic ended early. Then the rates mean nothing.
    pub(crate) aborted: Option<String>,
}

/// The first fields of every result.
pub(crate) fn head(scenario: &str, c: &Common, config: Value) -> Map<String, Value> {
    let mut m = Map::new();
    m.insert("wsload".into(), json!(env!("CARGO_PKG_VERSION")));
    m.insert("scenario".into(), json!(scenario));
    m.insert("adapter".into(), json!(c.adapter.name()));
    m.insert("label".into(), json!(c.label));
    let mut cfg = json!({
        "ws": c.ws, "text": c.text, "api": c.api, "duration_s": c.duration, "warmup_s": c.warmup, "drain_s": c.drain,
        "seed": c.seed, "uid_prefix": c.uid_prefix, "zero_mask": c.zero_mask,
        "congestion": if c.congestion.is_empty() { sys::default_congestion() } else { c.congestion.clone() },
    });
    if let (Some(a), Value::Object(b)) = (cfg.as_object_mut(), config) {
        a.extend(b);
    }
    m.insert("config".into(), cfg);
    m
}
