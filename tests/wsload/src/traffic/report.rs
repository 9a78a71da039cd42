//! Turns the account into the result.

use serde_json::{Value, json};

use super::{Outcome, Traffic, Via};

impl Traffic {
    pub(crate) fn counts_json(&self, o: &Outcome) -> Value {
        let n = &self.n;
        let mut v = json!({
            "sent": n.sent,
            "delivered": n.delivered,
            "lost": o.lost,
            "duplicated": n.duplicated,
            "out_of_order": n.out_of_order,
            "wrong_recipient": n.wrong_recipient,
            "corrupt": n.corrupt,
            "foreign": n.foreign,
            "unexpected": n.unexpected,
            "unexpected_samples": self.oddities.json(),
            "greetings": n.greetings,
            "not_sent": n.not_sent,
            "window_resets": n.window_resets,
            "slots_written_off": n.slots_written_off,
            "connections_closed": n.closed,
            "closed_reasons": self.closures.json(),
            "alive_at_end": o.alive,
        });
        let m = v.as_object_mut().expect("an object");
        if self.cfg.via == Via::Relay {
            m.insert("acks".into(), json!(n.acks));
            m.insert("acks_missing".into(), json!(n.sent.saturating_sub(n.acks)));
            m.insert("acks_surplus".into(), json!(n.acks.saturating_sub(n.sent)));
        }
        if !self.cfg.via.by_clients() {
            m.insert("sent_offline".into(), json!(n.sent_offline));
        }
        if self.cfg.via.answered() {
            let ok_online = n.replies_ok - n.ok_for_offline;
            m.insert("replies_ok".into(), json!(n.replies_ok));
            m.insert("replies_fail".into(), json!(n.replies_fail));
            m.insert("replies_other".into(), json!(n.replies_other));
            m.insert("replies_missing".into(), json!(o.unanswered));
            m.insert("fail_for_online".into(), json!(n.fail_for_online));
            m.insert("ok_for_offline".into(), json!(n.ok_for_offline));
            m.insert("reply_mismatch".into(), json!(n.fail_for_online + n.ok_for_offline));
            m.insert("lost_after_ok".into(), json!(ok_online.saturating_sub(n.delivered)));
            m.insert("stalled_senders".into(), json!(o.stalled_senders));
        }
        v
    }

    /// The number of faults, for `--strict`.
    pub(crate) fn faults(&self, o: &Outcome) -> u64 {
        let n = &self.n;
        let acks = if self.cfg.via == Via::Relay { n.sent.abs_diff(n.acks) } else { 0 };
        o.lost
            + n.duplicated
            + n.out_of_order
            + n.wrong_recipient
            + n.corrupt
            + n.unexpected
            + n.fail_for_online
            + n.ok_for_offline
            + n.replies_other
            + o.unanswered
            + acks
            + n.closed
            + self.newcomers.failed()
            + self.newcomers.skipped
    }

    pub(crate) fn human(&self, o: &Outcome) -> String {
        let n = &self.n;
        let mut s = format!(
            "{} clients, {} B; {:.0} delivered/s over {:.1} s\n  latency {}\n  sent {}  delivered {}  lost {}  duplicated {}  out of order {}  wrong recipient {}  corrupt {}  unexpected {}  closed {}  not sent {}\n",
            self.cfg.clients,
            self.size,
            n.delivered_measured as f64 / o.measured_s,
            o.measured_s,
            self.latency.line(),
            n.sent,
            n.delivered,
            o.lost,
            n.duplicated,
            n.out_of_order,
            n.wrong_recipient,
            n.corrupt,
            n.unexpected,
            n.closed,
            n.not_sent,
        );
        if self.cfg.via == Via::Relay {
            s += &format!("  acks {}\n", n.acks);
        }
        if self.cfg.via.answered() {
            s += &format!(
                "  replies: ok {}  fail {}  other {}  missing {}; fail for online {}  ok for offline {}\n  reply latency {}\n",
                n.replies_ok,
                n.replies_fail,
                n.replies_other,
                o.unanswered,
                n.fail_for_online,
                n.ok_for_offline,
                self.reply_latency.line()
            );
        }
        if self.cfg.rate.is_some() {
            s += &format!("  own schedule lag {}\n", self.lag.line());
        }
        s
    }
}
