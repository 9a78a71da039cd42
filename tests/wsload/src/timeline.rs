//! Latency over time.

use serde_json::{Value, json};

use crate::newcomers::Arrival;
use crate::stats::round;

/// The unit of stored latencies: 100 ns, so that a u32 holds up to seven minutes.
const UNIT_NS: u64 = 100;

#[derive(Default)]
struct Bucket {
    scheduled: u32,
    /// Counted in the bucket of the scheduled time.
    latency: Vec<u32>,
    /// Counted in the bucket of the arrival.
    delivered: u32,
    errors: u32,
    /// Counted in the bucket of the scheduled time.
    auth: Vec<u32>,
    auth_failed: u32,
}

/// Buckets of equal length from the start of the traffic. Latencies and losses belong to the bucket in which a message
/// was scheduled, so that the whole effect of a stall is visible.
pub(crate) struct Timeline {
    t0: u64,
    bucket_ns: u64,
    buckets: Vec<Bucket>,
}

/// The summary of one bucket. Latencies are in microseconds; `None` without samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) at_s: f64,
    pub(crate) scheduled: u32,
    pub(crate) delivered: u32,
    pub(crate) lost: u32,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) errors: u32,
    pub(crate) auth_ok: u32,
    pub(crate) auth_failed: u32,
    pub(crate) auth_p50: Option<f64>,
    pub(crate) auth_max: Option<f64>,
}

impl Timeline {
    pub(crate) fn new(bucket_ns: u64, duration_ns: u64, rate: f64) -> Timeline {
        let count = duration_ns.div_ceil(bucket_ns) as usize;
        let expect = |r: f64| (r * bucket_ns as f64 / 1e9).ceil() as usize + 2;
        let buckets =
            (0..count).map(|_| Bucket { latency: Vec::with_capacity(expect(rate)), ..Bucket::default() }).collect();
        Timeline { t0: 0, bucket_ns, buckets }
    }

    pub(crate) fn start(&mut self, t0: u64) {
        self.t0 = t0;
    }

    #[inline]
    fn at(&mut self, t: u64) -> Option<&mut Bucket> {
        let i = t.saturating_sub(self.t0) / self.bucket_ns;
        self.buckets.get_mut(i as usize)
    }

    #[inline]
    pub(crate) fn scheduled(&mut self, t: u64) {
        if let Some(b) = self.at(t) {
            b.scheduled += 1;
        }
    }

    #[inline]
    pub(crate) fn delivered(&mut self, scheduled: u64, now: u64) {
        if let Some(b) = self.at(scheduled) {
            b.latency.push((now.saturating_sub(scheduled) / UNIT_NS).min(u32::MAX as u64) as u32);
        }
        if let Some(b) = self.at(now) {
            b.delivered += 1;
        }
    }

    pub(crate) fn error(&mut self, now: u64) {
        if let Some(b) = self.at(now) {
            b.errors += 1;
        }
    }

    pub(crate) fn rows(&mut self, newcomers: &[Arrival]) -> Vec<Row> {
        for Arrival { due, took } in newcomers {
            match (self.at(*due), took) {
                (Some(bucket), Some(took)) => bucket.auth.push((took / UNIT_NS).min(u64::from(u32::MAX)) as u32),
                (Some(bucket), None) => bucket.auth_failed += 1,
                (None, _) => {}
            }
        }
        let step = self.bucket_ns as f64 / 1e9;
        let us = |v: u32| round(v as f64 * UNIT_NS as f64 / 1000.0, 1);
        let rank = |v: &[u32], q: f64| -> Option<f64> {
            let i = ((v.len() as f64 * q).ceil() as usize).max(1) - 1;
            v.get(i).map(|x| us(*x))
        };
        self.buckets
            .iter_mut()
            .enumerate()
            .map(|(i, b)| {
                b.latency.sort_unstable();
                b.auth.sort_unstable();
                Row {
                    at_s: round(i as f64 * step, 3),
                    scheduled: b.scheduled,
                    delivered: b.delivered,
                    lost: b.scheduled.saturating_sub(b.latency.len() as u32),
                    p50: rank(&b.latency, 0.5),
                    p99: rank(&b.latency, 0.99),
                    max: b.latency.last().map(|x| us(*x)),
                    errors: b.errors,
                    auth_ok: b.auth.len() as u32,
                    auth_failed: b.auth_failed,
                    auth_p50: rank(&b.auth, 0.5),
                    auth_max: b.auth.last().map(|x| us(*x)),
                }
            })
            .collect()
    }
}

pub(crate) fn rows_json(rows: &[Row]) -> Value {
    json!({
        "fields": ["at_s", "scheduled", "delivered", "lost", "p50_us", "p99_us", "max_us", "errors",
                   "auth_ok", "auth_failed", "auth_p50_us", "auth_max_us"],
        "rows": rows.iter().map(|r| json!([
            r.at_s, r.scheduled, r.delivered, r.lost, r.p50, r.p99, r.max, r.errors,
            r.auth_ok, r.auth_failed, r.auth_p50, r.auth_max,
        ])).collect::<Vec<_>>(),
    })
}

/// The median of some values. `None` if there are no values.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut v: Vec<f64> = values.collect();
    if v.is_empty() {
        return None;
    }
    v.sort_by(f64::total_cmp);
    Some(v[(v.len() - 1) / 2])
}

/// Compares the buckets before and after a moment.
pub(crate) fn effect(rows: &[Row], bucket_s: f64, from_s: f64, at_s: f64, after_s: f64) -> Value {
    // The bucket that contains the moment belongs to "after".
    let before: Vec<&Row> = rows.iter().filter(|r| r.at_s >= from_s && r.at_s + bucket_s <= at_s + 1e-9).collect();
    let after: Vec<&Row> = rows.iter().filter(|r| r.at_s + bucket_s > at_s + 1e-9 && r.at_s < at_s + after_s).collect();
    let worst = |f: fn(&Row) -> Option<f64>| {
        after.iter().filter_map(|r| f(r).map(|v| (v, r.at_s))).max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let mid = |f: fn(&Row) -> Option<f64>| median(before.iter().filter_map(|r| f(r)));
    let compare = |f: fn(&Row) -> Option<f64>| {
        let (b, w) = (mid(f), worst(f));
        json!({
            "median_before_us": b,
            "worst_after_us": w.map(|x| x.0),
            "worst_at_s": w.map(|x| x.1),
            "ratio": match (b, w) { (Some(b), Some(w)) if b > 0.0 => json!(round(w.0 / b, 2)), _ => Value::Null },
        })
    };
    let fewest = after.iter().min_by_key(|r| r.delivered);
    json!({
        "buckets_before": before.len(),
        "buckets_after": after.len(),
        "p50": compare(|r| r.p50),
        "p99": compare(|r| r.p99),
        "max": compare(|r| r.max),
        "delivered_median_before": median(before.iter().map(|r| r.delivered as f64)),
        "delivered_min_after": fewest.map(|r| r.delivered),
        "delivered_min_at_s": fewest.map(|r| r.at_s),
        "lost_after": after.iter().map(|r| r.lost as u64).sum::<u64>(),
        "errors_after": after.iter().map(|r| r.errors as u64).sum::<u64>(),
        "auth_max": compare(|r| r.auth_max),
        "auth_failed_after": after.iter().map(|r| r.auth_failed as u64).sum::<u64>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_shows_in_the_bucket_it_was_scheduled_in() {
        let ms = 1_000_000;
        let mut t = Timeline::new(100 * ms, 1000 * ms, 100.0);
        t.start(0);
        for i in 0..100u64 {
            let due = i * 10 * ms;
            t.scheduled(due);
            // The server sleeps from 500 to 750 ms; one message is lost.
            let now = if (500 * ms..750 * ms).contains(&due) { 750 * ms } else { due + ms };
            if i != 90 {
                t.delivered(due, now);
            }
        }
        let rows = t.rows(&[]);
        assert_eq!(rows[4].max, Some(1000.0));
        assert_eq!(rows[5].max, Some(250_000.0));
        assert_eq!(rows[6].delivered, 0);
        assert_eq!(rows[7].delivered, 30);
        assert_eq!(rows[9].lost, 1);
        let e = effect(&rows, 0.1, 0.0, 0.5, 10.0);
        assert_eq!(e["max"]["worst_after_us"], 250_000.0);
        assert_eq!(e["max"]["worst_at_s"], 0.5);
        assert_eq!(e["max"]["median_before_us"], 1000.0);
        assert_eq!(e["buckets_before"], 5);
        assert_eq!(e["lost_after"], 1);
        assert_eq!(e["delivered_min_after"], 0);
    }
}
