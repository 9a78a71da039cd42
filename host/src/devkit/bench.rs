//! Measures how long each function of a plugin takes, in fresh instances and in shared ones.

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use toml::Value;

use super::cases::{Client, Opening};
use super::{DevKit, expectation};
use crate::base::message::{Cause, ClientKey, ConnectionId, Message};
use crate::config::Isolation;
use crate::hub::command::{Action, Command, Ending, Sender, Session};
use crate::plugin::{CallError, Roles, Surroundings};
use crate::policy::{Handshake, Harness};

/// Calls before the measurement: they grow buffers and warm caches.
const WARMUP: usize = 50;

/// The largest number of calls whose times are kept.
const MOST: usize = 1 << 20;

/// The input of the calls that are measured.
#[derive(Debug, Clone)]
pub struct Load {
    /// The first packet of a client.
    pub packet: ByteString,
    /// A packet of an authenticated client.
    pub message: ByteString,
    /// A line of an internal sender.
    pub line: ByteString,
    /// How long each function is measured, in each kind of instance.
    pub time: Duration,
}

/// The measured times of all functions.
#[derive(Debug)]
pub struct Measured {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    function: &'static str,
    /// The last answer, in a word or two.
    answer: String,
    fresh: Times,
    shared: Times,
}

/// The times of many calls of one function.
#[derive(Debug, Clone, Copy)]
struct Times {
    mean: Duration,
    p50: Duration,
    p99: Duration,
    failed: usize,
}

impl DevKit {
    /// Measures each function of the plugin.
    ///
    /// # Errors
    /// When the plugin cannot be loaded.
    pub async fn measure(&self, roles: Roles, load: &Load) -> anyhow::Result<Measured> {
        let (harness, _) = self.load(roles, None, Surroundings::default()).await?;
        let opening = Opening::default();
        let connection = ConnectionId(1);
        let handshake = Handshake {
            connection,
            remote_address: opening.remote_address.into(),
            path: opening.path,
            query: None,
            headers: Vec::new(),
        };
        let client = Client::default();
        let key = ClientKey::new(Ipv4Addr::LOCALHOST.into(), &client.uid);
        let (uid, state) = (client.uid.into(), client.state.bytes());
        let session = Session { connection, uid, client: key, attributes: client.attributes, state };
        let sender = Sender { connection: ConnectionId(2), remote_address: "127.0.0.1:40001".to_owned() };
        let (packet, message) = (Message::Text(load.packet.clone()), Message::Text(load.message.clone()));

        let mut rows = Vec::new();
        macro_rules! row {
            ($function:literal, $call:expr, $shown:expr) => {{
                let (fresh, _) = times(&harness, Isolation::PerCall, load.time, $call).await;
                let (shared, answer) = times(&harness, Isolation::Pooled, load.time, $call).await;
                let answer = answer.map_or_else(|error| error.to_string(), |answer| kind(&$shown(&answer)));
                rows.push(Row { function: $function, answer, fresh, shared });
            }};
        }
        if roles.authenticator {
            row!(
                "greet",
                async |harness: &mut Harness| (Instant::now(), harness.greet(&handshake).await),
                expectation::verdict
            );
            let authenticate = async |harness: &mut Harness| {
                // `authenticate` needs the state of the challenge. The time of `greet` is measured in its own row.
                let _ = harness.greet(&handshake).await;
                (Instant::now(), harness.authenticate(&handshake, &packet).await)
            };
            row!("authenticate", authenticate, expectation::verdict);
        }
        if roles.router {
            let actions = |actions: &Vec<Action>| expectation::actions(actions);
            row!("opened", async |harness: &mut Harness| (Instant::now(), harness.opened(&session).await), actions);
            row!(
                "route",
                async |harness: &mut Harness| (Instant::now(), harness.route(&session, &message).await),
                actions
            );
            let closed = async |harness: &mut Harness| {
                let ending = Ending { cause: Cause::Client, code: Some(1000), groups: Vec::new(), remaining: 0 };
                (Instant::now(), harness.closed(&session, ending).await)
            };
            row!("closed", closed, |commands: &Vec<Command>| expectation::commands(commands));
            row!(
                "push",
                async |harness: &mut Harness| (Instant::now(), harness.push(&sender, &load.line).await),
                expectation::answer
            );
        }
        Ok(Measured { rows })
    }
}

/// Repeats a call for this time. `call` returns when it began, and the answer. Returns the times and the last answer.
async fn times<T>(
    harness: &Harness,
    isolation: Isolation,
    time: Duration,
    call: impl AsyncFn(&mut Harness) -> (Instant, Result<T, CallError>),
) -> (Times, Result<T, CallError>) {
    let mut harness = harness.isolated(isolation);
    let started = Instant::now();
    for _ in 0..WARMUP {
        _ = call(&mut harness).await;
        if started.elapsed() >= time {
            break;
        }
    }
    let (started, mut took, mut failed) = (Instant::now(), Vec::with_capacity(MOST), 0);
    let last = loop {
        let (begun, answer) = call(&mut harness).await;
        let now = Instant::now();
        failed += usize::from(answer.is_err());
        took.push(now - begun);
        if now - started >= time || took.len() == MOST {
            break answer;
        }
    };
    let mean = took.iter().sum::<Duration>() / u32::try_from(took.len()).unwrap_or(u32::MAX);
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last()).copied().unwrap_or_default();
    (Times { mean, p50: at(0.5), p99: at(0.99), failed }, last)
}

/// Describes an answer in a word or two: `accept`, or `deliver, reply`.
fn kind(answer: &Value) -> String {
    let name = |value: &Value| match value {
        Value::Table(table) => table.keys().next().cloned(),
        value => value.as_str().map(str::to_owned),
    };
    match answer {
        Value::Array(all) if all.is_empty() => "nothing".to_owned(),
        Value::Array(all) => all.iter().filter_map(name).collect::<Vec<_>>().join(", "),
        one => name(one).unwrap_or_default(),
    }
}

impl Measured {
    /// Returns whether no call failed.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.fresh.failed + row.shared.failed == 0)
    }

    fn row(&self, function: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.function == function)
    }
}

/// Formats a mean time as a rate: calls a second.
fn per_second(time: Duration) -> String {
    let count = (1.0 / time.as_secs_f64().max(1e-9)) as u64;
    // The measurement is good for two digits at most.
    let unit = 10_u64.pow(count.max(1).ilog10().saturating_sub(1));
    let digits = (count / unit * unit).to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
        writeln!(f, "{:14}{:^34}  {:^34}", "", "a fresh instance for each call", "shared instances")?;
        write!(f, "{:14}", "")?;
        for _ in 0..2 {
            write!(f, "{:>12} {:>10} {:>10}  ", "calls/s", "p50 µs", "p99 µs")?;
        }
        writeln!(f, "answers")?;
        for Row { function, answer, fresh, shared } in &self.rows {
            let mut line = format!("{function:14}");
            for times in [fresh, shared] {
                let _ = write!(
                    line,
                    "{:>12} {:>10} {:>10}  ",
                    per_second(times.mean),
                    micros(times.p50),
                    micros(times.p99)
                );
            }
            writeln!(f, "{line}{answer}")?;
            let failed = fresh.failed + shared.failed;
            if failed > 0 {
                writeln!(f, "{:14}{failed} of these calls FAILED; `hotgate plugin run` says why", "")?;
            }
        }
        if let (Some(greet), Some(authenticate)) = (self.row("greet"), self.row("authenticate")) {
            if authenticate.answer != "accept" {
                let answer = &authenticate.answer;
                writeln!(
                    f,
                    "No login was measured: authenticate answered {answer}. Give a packet that logs in, with --packet."
                )?;
            } else {
                let fresh = greet.fresh.mean + authenticate.fresh.mean;
                let shared = greet.shared.mean + authenticate.shared.mean;
                writeln!(
                    f,
                    "A login calls greet and authenticate once each. On one core, this plugin allows {} logins a second with fresh \
                 instances (isolation = \"per-call\", the default of authenticators), and {} with shared instances.",
                    per_second(fresh),
                    per_second(shared)
                )?;
            }
        }
        if let Some(route) = self.row("route") {
            writeln!(
                f,
                "A message calls route once. On one core, this plugin allows {} messages a second with shared instances \
                 (isolation = \"pooled\", the default of routers).",
                per_second(route.shared.mean)
            )?;
        }
        Ok(())
    }
}
