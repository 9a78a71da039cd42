//! The traffic engine of `relay`, `push` and `swap`: senders, receivers, closed loop and open loop, and the account of
//! every message.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

mod answers;
mod config;
mod connections;
mod receive;
mod report;
mod requests;
mod run;
mod send;

use self::answers::StreamAnswer;
pub(crate) use self::config::{Carrier, Config, Item, Plan, Via};
pub(crate) use self::run::Outcome;
use crate::address::loopback;
use crate::api::Api;
use crate::net::{ConnId, NO_CONN, Net};
use crate::newcomers::Newcomers;
use crate::open::{Progress, Sources, make_net, require_descriptors};
use crate::payload::RunId;
use crate::proto::Proto;
use crate::rng::{Rng, Zipf};
use crate::stats::{Latency, Samples};
use crate::timeline::Timeline;
use crate::track::Tracker;

// Connection tags: kind in the two top bits, index below.
const KIND_SHIFT: u32 = 30;
const INDEX: u32 = (1 << KIND_SHIFT) - 1;
const CLIENT: u32 = 0;
const PUSH_SENDER: u32 = 1;
const NEWCOMER: u32 = 2;

/// The number of uids that receive lines although no client has them.
const OFFLINE_UIDS: usize = 16;
/// The most messages that the open loop emits between two polls.
const BURST: usize = 2048;

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

struct PushSender {
    conn: ConnId,
    ready: bool,
    started: u64,
    /// Messages without an answer yet: time << 1 | target is connected.
    waiting: VecDeque<u64>,
    /// Items to be sent in the next batch, or in the next chunk of the stream.
    items: Vec<u8>,
    stream: StreamAnswer,
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
    /// What is sent before and after stamp and padding.
    before: Range<u32>,
    after: Range<u32>,
    /// What the target receives before and after stamp and padding.
    prefix: Range<u32>,
    suffix: Range<u32>,
    pad: u32,
}

pub(crate) struct Traffic {
    cfg: Config,
    proto: Proto,
    /// The address to which senders push.
    push_address: Option<SocketAddr>,
    api: Option<Api>,
    uids: Vec<String>,
    sources: Sources,
    run: RunId,

    clients: Vec<Client>,
    push_senders: Vec<PushSender>,
    senders: Vec<Sender>,
    /// The target of each pair. Only for relay: for push it is computed.
    targets: Vec<u32>,
    pairs_per_sender: u32,
    tracker: Tracker,
    zipf: Option<Zipf>,

    wires: Vec<Wire>,
    arena: Vec<u8>,
    padding: Vec<u8>,
    /// Window slots of each sender; 0 in the open loop.
    window: u32,
    /// The number of bytes of a delivered message.
    size: usize,

    refill: Vec<u32>,
    pub(crate) newcomers: Newcomers,
    progress: Progress,
    setup_errors: Samples,
    /// The number of ready clients.
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

impl Traffic {
    pub(crate) fn new(cfg: Config) -> Result<(Traffic, Net), String> {
        let c = &cfg.common;
        c.check()?;
        if cfg.clients == 0 || (!cfg.via.by_clients() && cfg.push_senders == 0) {
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
        require_descriptors(cfg.clients + cfg.push_senders + newcomers.places())?;
        let senders = if cfg.via.by_clients() { cfg.clients } else { cfg.push_senders };
        let windows = senders.saturating_mul(cfg.window as usize).saturating_mul(cfg.size + 256);
        if cfg.rate.is_none() && windows > c.max_buffered {
            return Err(format!("senders x --window x --size is about {windows} bytes, more than --max-buffered"));
        }
        let (net, path, v4) = make_net(c, true)?;
        let api = match cfg.via {
            Via::Push(carrier) if carrier != Carrier::Text => Some(Api::new(c)?),
            _ => None,
        };
        let push_address = match &api {
            _ if cfg.via.by_clients() => None,
            Some(api) => Some(api.address),
            None => Some(loopback("--text", &c.text)?),
        };

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
            push_address,
            api,
            uids,
            sources,
            run,
            clients: (0..cfg.clients).map(|_| Client { conn: NO_CONN, ready: false, started: 0 }).collect(),
            push_senders: (0..cfg.push_senders)
                .map(|_| PushSender {
                    conn: NO_CONN,
                    ready: false,
                    started: 0,
                    waiting: VecDeque::with_capacity((window as usize).max(1024)),
                    items: Vec::new(),
                    stream: StreamAnswer::default(),
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
        t.build_wires()?;
        Ok((t, net))
    }

    /// The number of bytes of a delivered message. It may be more than requested.
    pub(crate) fn effective_size(&self) -> usize {
        self.size
    }

    /// The login times of newcomers that were due in the measured time.
    pub(crate) fn auth_latency(&self) -> Latency {
        self.newcomers.latency(self.measure_from, self.measure_to)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.cfg
    }
}
