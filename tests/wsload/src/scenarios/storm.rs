//! Cuts all idle connections at once, while other clients log in.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::Common;
use crate::crowd::{Crowd, HasCrowd, Uids};
use crate::net::{ConnId, Gone, Handler, NO_CONN, Net};
use crate::newcomers::Newcomers;
use crate::open::{Sources, make_net, open_all, require_descriptors, secs};
use crate::stats::{Mark, Report, head, round};

/// The first tag of newcomers. The connections that are cut have tags from 0.
const NEWCOMERS: u32 = 1 << 30;
/// Connections that are cut before wsload looks at the newcomers again, so that wsload itself does not delay them.
const SLICE: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Cut {
    /// Reset
    Rst,
    /// FIN, without a close frame
    Fin,
}

#[derive(Args, Clone)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Idle connections, which are cut
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Newcomers a second
    #[arg(long, default_value_t = 200.0)]
    auth_rate: f64,
    /// Second in which all are cut [default: half-way between warm-up and end]
    #[arg(long)]
    cut_at: Option<f64>,
    /// How they are cut
    #[arg(long, value_enum, default_value_t = Cut::Rst)]
    close: Cut,
}

struct Storm {
    crowd: Crowd,
    newcomers: Newcomers,
}

impl Storm {
    /// Cuts the next few connections. Returns their number.
    fn cut(&mut self, net: &mut Net, from: usize, how: Cut) -> usize {
        let slice = self.crowd.members.iter_mut().skip(from).take(SLICE);
        slice
            .map(|member| {
                net.close(member.conn, how == Cut::Rst);
                (member.conn, member.ready) = (NO_CONN, false);
            })
            .count()
    }
}

impl Handler for Storm {
    fn on_open(&mut self, net: &mut Net, conn: ConnId, tag: u32, now: u64) {
        if tag < NEWCOMERS {
            self.crowd.on_open(net, conn, tag);
        } else {
            self.newcomers.on_open(net, &self.crowd.proto, conn, tag, now);
        }
    }

    fn on_message(&mut self, net: &mut Net, _conn: ConnId, tag: u32, data: &[u8], now: u64) {
        if tag < NEWCOMERS {
            self.crowd.on_message(net, tag, data);
        } else {
            self.newcomers.on_message(net, &self.crowd.proto, tag, data, now);
        }
    }

    fn on_close(&mut self, _net: &mut Net, _conn: ConnId, tag: u32, why: &Gone, _now: u64) {
        if tag < NEWCOMERS {
            self.crowd.on_close(tag, why);
        } else {
            self.newcomers.on_close(tag, why);
        }
    }
}

impl HasCrowd for Storm {
    fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    fn crowd_mut(&mut self) -> &mut Crowd {
        &mut self.crowd
    }
}

pub(crate) fn run(a: &StormArgs) -> Result<Report, String> {
    let c = &a.common;
    c.check()?;
    let cut_at = a.cut_at.unwrap_or(f64::midpoint(c.warmup, c.duration));
    if !(cut_at > c.warmup && cut_at < c.duration) {
        return Err("--cut-at must be after --warmup and before the end".into());
    }
    if a.connections == 0 || !(a.auth_rate > 0.0 && a.auth_rate <= 1e6) {
        return Err("--connections and --auth-rate must be positive".into());
    }
    let newcomers = Newcomers::new(c, a.auth_rate, 0.0, NEWCOMERS);
    require_descriptors(a.connections + newcomers.places())?;
    let (mut net, path, v4) = make_net(c, true)?;
    let sources = Sources::new(c, a.connections, v4);
    let crowd = Crowd::new(c, &path, sources, a.connections, Uids::Own(c.uid_prefix.clone()));
    let mut h = Storm { crowd, newcomers };
    let setup_s = open_all(&mut net, &mut h, a.connections, c, true)?;

    let begin = Mark::take(&net, &c.server_pid);
    let t0 = net.now();
    let (from, cut, until) = (t0 + secs(c.warmup), t0 + secs(cut_at), t0 + secs(c.duration));
    let (mut gone, mut cut_begun, mut cut_done) = (0, 0, 0);
    let mut lost_before = 0;
    loop {
        let now = net.now();
        if now >= until && (h.newcomers.under_way() == 0 || now >= until + secs(c.drain)) {
            break;
        }
        let mut wake = now + 10_000_000;
        if now >= cut && gone < a.connections {
            if gone == 0 {
                (cut_begun, lost_before) = (now, h.crowd.closures.total);
            }
            gone += h.cut(&mut net, gone, a.close);
            cut_done = net.now();
            wake = now;
        } else if now < cut {
            wake = wake.min(cut);
        }
        wake = wake.min(h.newcomers.start(&mut net, &h.crowd.proto, &sources, (t0, until)));
        net.flush();
        h.newcomers.tick(&mut net, now);
        net.poll(&mut h, wake.saturating_sub(net.now())).map_err(|e| format!("epoll: {e}"))?;
    }
    let end = Mark::take(&net, &c.server_pid);

    let unfinished = h.newcomers.under_way();
    let (before, after) = (h.newcomers.latency(from, cut), h.newcomers.latency(cut, until));
    let cut_ms = round((cut_done - cut_begun) as f64 / 1e6, 2);
    let (failed, skipped) = (h.newcomers.failed(), h.newcomers.skipped);
    let mut json = head(
        "storm",
        c,
        json!({
            "connections": a.connections, "auth_rate": a.auth_rate, "cut_at_s": cut_at,
            "close": format!("{:?}", a.close).to_lowercase(),
        }),
    );
    json.insert("setup_s".into(), json!(round(setup_s, 4)));
    json.insert("before_us".into(), before.json());
    json.insert("after_us".into(), after.json());
    json.insert("cut_ms".into(), json!(cut_ms));
    json.insert(
        "counts".into(),
        json!({
            "cut": gone, "closed_before": lost_before, "closed_reasons": h.crowd.closures.json(),
            "auth_ok": h.newcomers.logged_in(), "auth_failed": failed, "auth_skipped": skipped,
            "auth_unfinished": unfinished, "failures": h.newcomers.errors.json(), "greetings": h.crowd.greetings,
        }),
    );
    json.insert("tool".into(), begin.tool_json(&end, c.spin));
    json.insert("server".into(), begin.server_json(&end, &c.server_pid, gone as u64));
    let human = format!(
        "{gone} connections cut in {cut_ms} ms\n  logins before  {}\n  logins after   {}\n  ok {}  failed {failed}  skipped {skipped}  unfinished {unfinished}\n",
        before.line(),
        after.line(),
        h.newcomers.logged_in(),
    );
    Ok(Report { json, human, faults: failed + skipped + unfinished + lost_before, aborted: None })
}
