//! How long the calls of a plugin take, each kind for itself, in fresh instances and in shared ones.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::Workshop;
use super::cases::{Client, Opening, attributes};
use crate::config::Isolation;
use crate::message::{Cause, ConnectionId, Message};
use crate::plugin::{CallError, Roles, Surroundings};
use crate::policy::{Ending, Handshake, Sender, Session, Trial};

/// Calls before it is measured: buffers grow, caches warm.
const WARMUP: usize = 50;

/// What is said to a plugin while it is measured.
#[derive(Debug, Clone)]
pub struct Load {
    /// The first packet of a client.
    pub packet: ByteString,
    /// What an authenticated client sends.
    pub message: ByteString,
    /// A line of an internal sender.
    pub line: ByteString,
    /// How long each kind of call is measured.
    pub time: Duration,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    rows: Vec<Row>,
    roles: Roles,
}

#[derive(Debug)]
struct Row {
    function: &'static str,
    fresh: Times,
    shared: Times,
}

/// How long calls took.
#[derive(Debug, Clone, Copy)]
struct Times {
    p50: Duration,
    p99: Duration,
    mean: Duration,
    failed: usize,
}

impl Workshop {
    /// Measures each function of the plugin.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn measure(&self, roles: Roles, load: &Load) -> anyhow::Result<Measured> {
        let (trial, _) = self.load(roles, None, Surroundings::default()).await?;
        let opening = Opening::default();
        let connection = ConnectionId(1);
        let handshake = Handshake {
            connection,
            remote_address: opening.remote_address,
            path: opening.path,
            query: None,
            headers: Vec::new(),
        };
        let client = Client::default();
        let (uid, state) = (client.uid.into(), client.state.bytes());
        let session = Session { connection, uid, attributes: attributes(&client.attributes), state };
        let sender = Sender { connection: ConnectionId(2), remote_address: "127.0.0.1:40001".to_owned() };
        let (packet, message) = (Message::Text(load.packet.clone()), Message::Text(load.message.clone()));

        let mut rows = Vec::new();
        macro_rules! row {
            ($function:literal, $call:expr) => {
                rows.push(Row {
                    function: $function,
                    fresh: times(&trial, Isolation::PerCall, load.time, $call).await,
                    shared: times(&trial, Isolation::Pooled, load.time, $call).await,
                });
            };
        }
        if roles.authenticator {
            row!("greet", async |trial: &mut Trial| trial.greet(&handshake).await.map(drop));
            row!("authenticate", async |trial: &mut Trial| trial.authenticate(&handshake, &packet).await.map(drop));
        }
        if roles.router {
            row!("opened", async |trial: &mut Trial| trial.opened(&session).await.map(drop));
            row!("route", async |trial: &mut Trial| trial.route(&session, &message).await.map(drop));
            row!("closed", async |trial: &mut Trial| {
                let ending = Ending { cause: Cause::Client, code: Some(1000), groups: Vec::new(), remaining: 0 };
                trial.closed(&session, ending).await.map(drop)
            });
            row!("push", async |trial: &mut Trial| trial.push(&sender, &load.line).await.map(drop));
        }
        Ok(Measured { rows, roles })
    }
}

async fn times(
    trial: &Trial,
    isolation: Isolation,
    time: Duration,
    call: impl AsyncFn(&mut Trial) -> Result<(), CallError>,
) -> Times {
    let mut trial = trial.isolated(isolation);
    for _ in 0..WARMUP {
        _ = call(&mut trial).await;
    }
    let (begun, mut took, mut failed) = (Instant::now(), Vec::new(), 0);
    let mut last = begun;
    while last - begun < time {
        failed += usize::from(call(&mut trial).await.is_err());
        let now = Instant::now();
        took.push(now - last);
        last = now;
    }
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last()).copied().unwrap_or_default();
    let mean = (last - begun) / u32::try_from(took.len().max(1)).unwrap_or(u32::MAX);
    Times { p50: at(0.5), p99: at(0.99), mean, failed }
}

impl Measured {
    /// Whether no call failed.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.fresh.failed + row.shared.failed == 0)
    }

    fn mean(&self, function: &str, of: impl Fn(&Row) -> Times) -> Duration {
        self.rows.iter().find(|row| row.function == function).map(|row| of(row).mean).unwrap_or_default()
    }
}

fn a_second(time: Duration) -> String {
    let count = (1.0 / time.as_secs_f64().max(1e-9)) as u64;
    // Two digits are known, if as many.
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
        writeln!(f)?;
        for Row { function, fresh, shared } in &self.rows {
            let mut line = format!("{function:14}");
            for times in [fresh, shared] {
                let _ =
                    write!(line, "{:>12} {:>10} {:>10}  ", a_second(times.mean), micros(times.p50), micros(times.p99));
            }
            writeln!(f, "{}", line.trim_end())?;
            let failed = fresh.failed + shared.failed;
            if failed > 0 {
                writeln!(f, "{:14}{failed} of these calls FAILED; `hotgate plugin run` says why", "")?;
            }
        }
        if self.roles.authenticator {
            let login = |of: fn(&Row) -> Times| self.mean("greet", of) + self.mean("authenticate", of);
            let (fresh, shared) = (login(|row| row.fresh), login(|row| row.shared));
            writeln!(
                f,
                "A login calls greet and authenticate once each: on one core this plugin allows for {} logins a second with \
                 fresh instances (isolation = \"per-call\", the default of authenticators), {} with shared ones.",
                a_second(fresh),
                a_second(shared)
            )?;
        }
        if self.roles.router {
            let route = self.mean("route", |row| row.shared);
            writeln!(
                f,
                "A message calls route once: on one core this plugin allows for {} messages a second with shared instances \
                 (isolation = \"pooled\", the default of routers).",
                a_second(route)
            )?;
        }
        Ok(())
    }
}
