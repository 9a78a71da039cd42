//! The traffic engine behind `relay`, `push` and `swap`: senders, receivers,
//! closed and open loop, and the account of every message.

use std::collections::VecDeque;
use std::ops::Range;

mod connections;
mod receive;
mod report;
mod send;

use crate::address::{loopback, split_ws};
use crate::cli::Common;
use crate::commands::Commands;
use crate::net::{ConnId, NO_CONN, Net, NetConfig};
use crate::newcomers::Newcomers;
use crate::open::{Progress, Sources, open_all, require_descriptors, secs};
use crate::payload::RunId;
use crate::proto::Proto;
use crate::rng::{Rng, Zipf};
use crate::stats::{Latency, Mark, Samples};
use crate::timeline::Timeline;
use crate::track::Tracker;

// Connection tags: kind in the two top bits, index below.
const KIND_SHIFT: u32 = 30;
const INDEX: u32 = (1 << KIND_SHIFT) - 1;
const CLIENT: u32 = 0;
const PUBLISHER: u32 = 1;
const NEWCOMER: u32 = 2;

/// Uids that lines may be addressed to although nobody is connected under them.
const OFFLINE_UIDS: usize = 16;
/// Most messages emitted by the open loop between two polls.
const BURST: usize = 2048;
const TICK_NS: u64 = 50_000_000;

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    /// ws client -> server -> ws client
    Relay,
    /// ws client -> server -> the same client
    Echo,
    /// text port line -> ws client
    Text,
}

impl Via {
    fn by_clients(self) -> bool {
        matches!(self, Via::Relay | Via::Echo)
    }

    /// The sender gets an answer to each message, in order.
    fn answered(self) -> bool {
        self == Via::Text
    }
}

/// Whom a sender writes to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Plan {
    Paired,
    Random { fanout: usize },
    RoundRobin,
    Zipf { s: f64 },
}

pub(crate) struct Config {
    pub(crate) common: Common,
    pub(crate) via: Via,
    pub(crate) plan: Plan,
    pub(crate) clients: usize,
    pub(crate) publishers: usize,
    pub(crate) size: usize,
    pub(crate) window: u32,
    pub(crate) rate: Option<f64>,
    pub(crate) offline_ratio: f64,
    /// How many new connections log in a second, and how many seconds they stay.
    pub(crate) newcomers: (f64, f64),
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) sent_offline: u64,
    pub(crate) sent_measured: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_measured: u64,
    pub(crate) acks: u64,
    pub(crate) acks_measured: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) wrong_recipient: u64,
    pub(crate) corrupt: u64,
    pub(crate) foreign: u64,
    pub(crate) unexpected: u64,
    pub(crate) greetings: u64,
    pub(crate) replies_ok: u64,
    pub(crate) replies_fail: u64,
    pub(crate) replies_other: u64,
    pub(crate) replies_measured: u64,
    pub(crate) ok_for_offline: u64,
    pub(crate) fail_for_online: u64,
    pub(crate) not_sent: u64,
    pub(crate) window_resets: u64,
    pub(crate) slots_written_off: u64,
    pub(crate) closed: u64,
}

struct Client {
    conn: ConnId,
    ready: bool,
    started: u64,
}

struct Publisher {
    conn: ConnId,
    ready: bool,
    started: u64,
    /// Messages waiting for their answer: time << 1 | target is connected.
    waiting: VecDeque<u64>,
}

struct Sender {
    conn: ConnId,
    in_flight: u32,
    queued: bool,
    progress: u64,
    cursor: u32,
    rng: Rng,
}

/// The constant parts of a message to one target.
struct Wire {
    prefix: Range<u32>,
    pad: u32,
    suffix: Range<u32>,
}

pub(crate) struct Traffic {
    cfg: Config,
    proto: Proto,
    text_addr: Option<std::net::SocketAddr>,
    uids: Vec<String>,
    sources: Sources,
    run: RunId,

    clients: Vec<Client>,
    publishers: Vec<Publisher>,
    senders: Vec<Sender>,
    /// Target of each pair (relay only; for publishers it is computed).
    targets: Vec<u32>,
    pairs_per_sender: u32,
    tracker: Tracker,
    zipf: Option<Zipf>,

    wires: Vec<Wire>,
    arena: Vec<u8>,
    padding: Vec<u8>,
    /// Slots per sender; 0 in the open loop.
    window: u32,
    /// Bytes of a delivered message.
    size: usize,
    /// Delivered messages carry prefix and suffix (text port).
    whole: bool,

    refill: Vec<u32>,
    pub(crate) newcomers: Newcomers,
    progress: Progress,
    setup_errors: Samples,
    /// Clients that are ready.
    alive: usize,

    // Times, all in ns since the tool started.
    t0: u64,
    measure_from: u64,
    measure_to: u64,
    sending: bool,
    emitted: u64,

    pub(crate) n: Counts,
    pub(crate) latency: Latency,
    pub(crate) reply_latency: Latency,
    pub(crate) lag: Latency,
    pub(crate) oddities: Samples,
    pub(crate) closures: Samples,
    pub(crate) timeline: Option<Timeline>,
}

pub(crate) struct Outcome {
    /// Why the traffic ended early.
    pub(crate) aborted: Option<String>,
    pub(crate) setup_s: f64,
    pub(crate) drain_s: f64,
    pub(crate) lost: u64,
    pub(crate) begin: Mark,
    pub(crate) end: Mark,
    pub(crate) measured_s: f64,
    pub(crate) alive: usize,
    pub(crate) stalled_senders: usize,
    pub(crate) unanswered: u64,
}

/// Build the loop for a WebSocket scenario.
pub(crate) fn make_net(c: &Common, answer_pings: bool) -> Result<(Net, String, bool), String> {
    let (host, path) = split_ws(&c.ws)?;
    let addr = loopback("--ws", &host)?;
    let net = Net::new(NetConfig {
        host,
        addr,
        headers: c.header.clone(),
        answer_pings,
        zero_mask: c.zero_mask,
        max_frame: c.max_frame,
        seed: c.seed,
        congestion: c.congestion.clone(),
    })
    .map_err(|e| format!("epoll: {e}"))?;
    Ok((net, path, addr.is_ipv4()))
}

impl Traffic {
    pub(crate) fn new(cfg: Config) -> Result<(Traffic, Net), String> {
        let c = &cfg.common;
        c.check()?;
        if cfg.clients == 0 || (!cfg.via.by_clients() && cfg.publishers == 0) {
            return Err("--connections and --senders must be at least 1".into());
        }
        if cfg.rate.is_none() && cfg.window == 0 {
            return Err("--window must be at least 1".into());
        }
        if cfg.rate.is_some_and(|r| !(r.is_finite() && r > 0.0 && r <= 1e8)) {
            return Err("--rate must be positive".into());
        }
        if !(0.0..=1.0).contains(&cfg.offline_ratio) {
            return Err("--offline-ratio must be between 0 and 1".into());
        }
        let newcomers = Newcomers::new(c, cfg.newcomers.0, cfg.newcomers.1, NEWCOMER << KIND_SHIFT);
        require_descriptors(cfg.clients + cfg.publishers + newcomers.places())?;
        let senders = if cfg.via.by_clients() { cfg.clients } else { cfg.publishers };
        let windows = senders.saturating_mul(cfg.window as usize).saturating_mul(cfg.size + 256);
        if cfg.rate.is_none() && windows > c.max_buffered {
            return Err(format!("senders x --window x --size is about {windows} bytes, more than --max-buffered"));
        }
        let (net, path, v4) = make_net(c, true)?;
        let text_addr = if cfg.via.by_clients() { None } else { Some(loopback("--text", &c.text)?) };

        let pairs_per_sender = match cfg.plan {
            Plan::Paired => 1,
            Plan::Random { fanout } => fanout.clamp(1, cfg.clients),
            Plan::RoundRobin | Plan::Zipf { .. } => cfg.clients,
        };
        let pairs = senders * pairs_per_sender;
        if pairs > 64_000_000 {
            return Err(format!("{pairs} (sender, target) pairs are too many to track: at most 64 million"));
        }
        let uids: Vec<String> = (0..cfg.clients)
            .map(|i| format!("{}{i}", c.uid_prefix))
            .chain((0..OFFLINE_UIDS).map(|i| format!("{}off{i}", c.uid_prefix)))
            .collect();
        let mut rng = Rng::new(c.seed);
        let run = RunId::new(rng.draw() as u16 ^ std::process::id() as u16);
        let targets = send::choose_targets(&cfg, pairs_per_sender, &mut rng);
        let zipf = match cfg.plan {
            Plan::Zipf { s } => Some(Zipf::new(cfg.clients, s)),
            _ => None,
        };
        let window = if cfg.rate.is_some() { 0 } else { cfg.window };
        let sender_list = (0..senders)
            .map(|i| Sender {
                conn: NO_CONN,
                in_flight: 0,
                queued: false,
                progress: 0,
                cursor: (i * cfg.clients / senders) as u32,
                rng: Rng::new(rng.draw()),
            })
            .collect();
        let sources = Sources::new(c, cfg.clients + newcomers.places(), v4);
        let mut t = Traffic {
            proto: Proto::new(c, &path),
            text_addr,
            uids,
            sources,
            run,
            clients: (0..cfg.clients).map(|_| Client { conn: NO_CONN, ready: false, started: 0 }).collect(),
            publishers: (0..cfg.publishers)
                .map(|_| Publisher {
                    conn: NO_CONN,
                    ready: false,
                    started: 0,
                    waiting: VecDeque::with_capacity((window as usize).max(1024)),
                })
                .collect(),
            senders: sender_list,
            targets,
            pairs_per_sender: pairs_per_sender as u32,
            tracker: Tracker::new(pairs),
            zipf,
            wires: Vec::new(),
            arena: Vec::new(),
            padding: Vec::new(),
            window,
            size: 0,
            whole: cfg.via == Via::Text,
            refill: Vec::with_capacity(senders),
            newcomers,
            progress: Progress::default(),
            setup_errors: Samples::default(),
            alive: 0,
            t0: u64::MAX,
            measure_from: u64::MAX,
            measure_to: u64::MAX,
            sending: false,
            emitted: 0,
            n: Counts::default(),
            latency: Latency::default(),
            reply_latency: Latency::default(),
            lag: Latency::default(),
            oddities: Samples::default(),
            closures: Samples::default(),
            timeline: None,
            cfg,
        };
        t.build_wires();
        Ok((t, net))
    }

    /// Bytes of a delivered message, which may be more than asked for.
    pub(crate) fn effective_size(&self) -> usize {
        self.size
    }

    /// How long newcomers took that were due in the measured time.
    pub(crate) fn auth_latency(&self) -> Latency {
        self.newcomers.latency(self.measure_from, self.measure_to)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.cfg
    }

    /// Regular checks that need no event.
    fn tick(&mut self, net: &mut Net, now: u64) {
        let loss = secs(self.cfg.common.loss_timeout);
        if self.sending && self.cfg.rate.is_none() && !self.cfg.via.answered() {
            for s in 0..self.senders.len() as u32 {
                let sender = &self.senders[s as usize];
                if sender.conn == NO_CONN || sender.queued || now - sender.progress.max(self.t0) < loss {
                    continue;
                }
                let first = s * self.pairs_per_sender;
                let off: u32 = (first..first + self.pairs_per_sender).map(|p| self.tracker.reset(p)).sum();
                self.n.window_resets += 1;
                self.n.slots_written_off += off as u64;
                self.senders[s as usize].in_flight = 0;
                self.release(s, 0, now);
            }
        }
        self.newcomers.tick(net, now);
    }

    /// Everything sent has been accounted for.
    fn settled(&self) -> bool {
        let n = &self.n;
        let acked = self.cfg.via != Via::Relay || n.acks >= n.sent;
        let answered =
            !self.cfg.via.answered() || n.replies_ok + n.replies_fail + n.replies_other >= n.sent + n.sent_offline;
        n.delivered >= n.sent && acked && answered && self.newcomers.under_way() == 0
    }

    /// Set up, run the traffic, drain.
    pub(crate) fn run(&mut self, net: &mut Net, commands: Option<&mut Commands>) -> Result<Outcome, String> {
        let c = self.cfg.common.clone();
        let total = self.cfg.clients + self.cfg.publishers;
        let setup_s = open_all(net, self, total, &c, true)?;

        self.t0 = net.now() + 2_000_000;
        self.measure_from = self.t0 + secs(c.warmup);
        self.measure_to = self.t0 + secs(c.duration);
        self.sending = true;
        if let Some(t) = &mut self.timeline {
            t.start(self.t0);
        }
        if let Some(cmd) = commands {
            cmd.start(self.t0.saturating_sub(net.now()));
        }
        if self.cfg.rate.is_none() {
            for s in 0..self.senders.len() as u32 {
                self.release(s, 0, self.t0);
            }
        }
        let (mut begin, mut end): (Option<Mark>, Option<Mark>) = (None, None);
        let mut aborted = None;
        let mut drain_until = u64::MAX;
        let mut next_tick = self.t0;
        let mut refill: Vec<u32> = Vec::with_capacity(self.senders.len());
        loop {
            let now = net.now();
            if begin.is_none() && now >= self.measure_from {
                begin = Some(Mark::take(net, &c.server_pid));
            }
            if self.sending && now >= self.measure_to {
                self.sending = false;
                end = Some(Mark::take(net, &c.server_pid));
                drain_until = net.now() + secs(c.drain);
                if let Some(rate) = self.cfg.rate {
                    // What the schedule asked for and was never emitted.
                    let due = (c.duration * rate) as u64;
                    self.n.not_sent += due.saturating_sub(self.emitted);
                }
            }
            if !self.sending && (self.settled() || now >= drain_until) {
                break;
            }
            let mut wake = now + 10_000_000;
            if self.sending {
                wake = wake.min(if begin.is_none() { self.measure_from } else { self.measure_to });
                if self.alive == 0 {
                    aborted = Some(format!("all connections are gone: {}", self.closures.json()));
                    break;
                }
                match self.cfg.rate {
                    Some(rate) if now >= self.t0 => wake = wake.min(self.emit_due(net, rate, now)),
                    Some(_) => wake = self.t0,
                    None => {
                        std::mem::swap(&mut refill, &mut self.refill);
                        for s in refill.drain(..) {
                            self.fill(net, s);
                        }
                    }
                }
                if now >= self.t0 {
                    let times = (self.t0, self.measure_to);
                    wake = wake.min(self.newcomers.start(net, &self.proto, &self.sources, times));
                }
            }
            net.flush();
            if now >= next_tick {
                next_tick = now + TICK_NS;
                self.tick(net, now);
            }
            // Timers wake a little late: poll without sleeping when the next
            // message is close.
            let now = net.now();
            let wait = wake.saturating_sub(now);
            let wait = if c.spin || wait < 50_000 || !self.refill.is_empty() { 0 } else { wait - 35_000 };
            net.poll(self, wait).map_err(|e| format!("epoll: {e}"))?;
        }
        let drain_s = net.now().saturating_sub(self.measure_to) as f64 / 1e9;
        let alive = self.alive;
        for i in 0..self.clients.len() {
            if self.clients[i].conn != NO_CONN {
                net.send_close(self.clients[i].conn, 1000);
            }
        }
        net.flush();
        let end = end.unwrap_or_else(|| Mark::take(net, &c.server_pid));
        Ok(Outcome {
            aborted,
            setup_s,
            drain_s,
            lost: self.tracker.lost(),
            begin: begin.unwrap_or_else(|| end.clone()),
            end,
            measured_s: (self.measure_to - self.measure_from) as f64 / 1e9,
            alive,
            stalled_senders: self.senders.iter().filter(|s| s.in_flight > 0).count(),
            unanswered: self.publishers.iter().map(|p| p.waiting.len() as u64).sum(),
        })
    }
}
