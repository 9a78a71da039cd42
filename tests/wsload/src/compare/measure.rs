//! The measurement of each row.

use serde_json::Value;

use super::lab::Lab;
use super::plugins::Plugins;
use super::row::{Figure, Pair, Work};
use super::server::Kind;

/// The number of clients that send or receive messages.
const CLIENTS: u32 = 100;
/// The number of idle connections.
pub(super) const IDLE: u32 = 9000;
const WARMUP: f64 = 1.0;
/// The second of the traffic in which plugins are swapped, and the number of seconds that are watched afterwards.
/// Compiling takes long, because it has only the CPU time that the gateway leaves.
const SWAP_AT: u32 = 7;
const SWAP_AFTER: u32 = 6;
/// The share of its core that the gateway uses during the swap, and the rate, in messages a second, of the run that
/// finds the cost of one message.
const LOAD: f64 = 0.5;
const PROBE: u32 = 10_000;

impl Lab {
    pub(super) fn measure(&mut self, work: Work) -> Result<Pair, String> {
        match work {
            Work::Relay { window, beside } => self.both(beside, |lab, kind| lab.relay(kind, window)),
            Work::Push { senders, beside } => self.both(beside, |lab, kind| lab.push(kind, senders)),
            Work::ApiPush { senders } => self.both(Kind::TextPort, |lab, kind| match kind {
                Kind::Hotgate => lab.push_by(kind, senders),
                _ => lab.push(kind, 1),
            }),
            Work::ApiBroadcast => self.both(Kind::TextPort, Lab::api_broadcast),
            Work::TlsRelay => self.in_turn(Kind::Tls, Kind::Hotgate, |lab, kind| lab.relay(kind, 8)),
            Work::TlsLogin => self.in_turn(Kind::Tls, Kind::Hotgate, Lab::login),
            Work::TlsMemory => self.in_turn(Kind::Tls, Kind::Hotgate, Lab::memory),
            Work::Login { beside } => self.both(beside, Lab::login),
            Work::Latency => {
                let top = match self.delivered("relay-8", Kind::Node) {
                    Some(top) => top,
                    None => self.relay(Kind::Node, 8)?.per_s.unwrap_or_default(),
                };
                self.both(Kind::Node, |lab, kind| lab.latency(kind, top / 2.0))
            }
            Work::Memory { beside } => self.both(beside, Lab::memory),
            Work::Cores => self.two_cores(),
            Work::Broadcast => self.both(Kind::Bare, Lab::broadcast),
            Work::Storm => self.both(Kind::Node, Lab::storm),
            Work::Swap => self.swap(),
        }
    }

    fn duration(&self) -> String {
        format!("--warmup {WARMUP} --duration {}", WARMUP + self.seconds)
    }

    fn relay(&mut self, kind: Kind, window: u32) -> Result<Figure, String> {
        let server = self.server(kind)?;
        let arguments = format!("relay --connections {CLIENTS} --window {window} {}", self.duration());
        cpu(&self.load(&server, kind, &arguments)?, "delivered_per_s")
    }

    fn push(&mut self, kind: Kind, senders: u32) -> Result<Figure, String> {
        self.push_by(kind, &format!("--senders {senders} --window 64"))
    }

    fn push_by(&mut self, kind: Kind, senders: &str) -> Result<Figure, String> {
        let server = self.server(kind)?;
        let arguments = format!("push --connections {CLIENTS} {senders} {}", self.duration());
        cpu(&self.load(&server, kind, &arguments)?, "delivered_per_s")
    }

    fn login(&mut self, kind: Kind) -> Result<Figure, String> {
        let server = self.server(kind)?;
        let arguments = format!("connect --concurrency 16 --close clean {}", self.duration());
        cpu(&self.load(&server, kind, &arguments)?, "connects_per_s")
    }

    fn latency(&mut self, kind: Kind, rate: f64) -> Result<Figure, String> {
        let server = self.server(kind)?;
        let arguments = format!("relay --connections {CLIENTS} --rate {rate:.0} {}", self.duration());
        let result = self.load(&server, kind, &arguments)?;
        Ok(Figure { value: number(&result, "/latency_us/p99")? / 1000.0, per_s: None })
    }

    fn memory(&mut self, kind: Kind) -> Result<Figure, String> {
        let server = self.server(kind)?;
        let result = self.load(&server, kind, &format!("idle --connections {IDLE} --settle 2 --duration 1"))?;
        Ok(Figure { value: number(&result, "/server/rss_per_connection")? / 1024.0, per_s: None })
    }

    /// Measures Hotgate on one core and on two cores. wsload shares the second core.
    fn two_cores(&mut self) -> Result<Pair, String> {
        let arguments = format!("relay --connections {CLIENTS} --window 8 {}", self.duration());
        let cores = self.cores;
        self.in_turn(&cores[..], &cores[..1], |lab, cores| {
            let server = lab.server_with(Kind::Hotgate, cores, "", &lab.scratch)?;
            cpu(&lab.load(&server, Kind::Hotgate, &arguments)?, "delivered_per_s")
        })
    }

    fn broadcast(&mut self, kind: Kind) -> Result<Figure, String> {
        let result = self.broadcast_by(kind, "--repeat 20")?;
        Ok(Figure { value: number(&result, "/last_us/p50")? / 1000.0, per_s: None })
    }

    /// Measures CPU: it shows more than the time, in which wsload has its part.
    fn api_broadcast(&mut self, kind: Kind) -> Result<Figure, String> {
        let sender = if kind == Kind::Hotgate { "http" } else { "text" };
        let result = self.broadcast_by(kind, &format!("--sender {sender} --repeat 40"))?;
        Ok(Figure { value: number(&result, "/server/cpu_us_per_unit")?, per_s: None })
    }

    fn broadcast_by(&mut self, kind: Kind, options: &str) -> Result<Value, String> {
        let to_all = "[sessions]\nduplicate_login = \"all\"";
        let server = self.server_with(kind, &self.cores[..1], to_all, &self.scratch)?;
        self.load(&server, kind, &format!("broadcast --connections {IDLE} --pause 0.2 {options}"))
    }

    fn storm(&mut self, kind: Kind) -> Result<Figure, String> {
        let server = self.server(kind)?;
        let arguments = format!("storm --connections {IDLE} --auth-rate 200 --warmup 1 --cut-at 4 --duration 7");
        let result = self.load(&server, kind, &arguments)?;
        Ok(Figure { value: number(&result, "/after_us/p99")? / 1000.0, per_s: None })
    }

    /// Replaces both plugins of a gateway that uses half of its core. Compares the worst second after the swap with the
    /// worst of as many seconds before: on a shared machine, the p99 differs from second to second.
    fn swap(&mut self) -> Result<Pair, String> {
        // The messages come one by one here. That costs more than a closed loop, in which several come together.
        let alone = {
            let server = self.server(Kind::Hotgate)?;
            let arguments = format!("relay --connections {CLIENTS} --rate {PROBE} {}", self.duration());
            cpu(&self.load(&server, Kind::Hotgate, &arguments)?, "delivered_per_s")?.value
        };
        let rate = LOAD * 1e6 / alone;
        let plugins = Plugins::lay_out(&self.programs.plugins, self.fresh_folder("swap")?)?;
        let server = self.server_with(Kind::Hotgate, &self.cores[..1], &plugins.settings(), &plugins.folder)?;
        let arguments = format!(
            "swap --connections {CLIENTS} --rate {rate:.0} --warmup 1 --duration {} --bucket-ms 1000",
            SWAP_AT + SWAP_AFTER
        );
        let result = self.load_with(
            &server,
            Kind::Hotgate,
            &arguments,
            &["--at".into(), format!("{SWAP_AT}:{}", plugins.swap())],
        )?;
        let swapped = server.log().lines().filter(|line| line.contains("\"message\":\"plugin swapped\"")).count();
        if swapped != 2 {
            return Err(format!("{swapped} of 2 plugins were swapped"));
        }
        let worst = |from: u32, to: u32| {
            let value = worst_p99(&result, from.into(), to.into()).ok_or("no seconds in the timeline")? / 1000.0;
            Ok::<_, String>(Figure { value, per_s: None })
        };
        Ok(Pair { hotgate: worst(SWAP_AT, SWAP_AT + SWAP_AFTER)?, beside: worst(SWAP_AT - SWAP_AFTER, SWAP_AT)? })
    }

    /// The messages a second that an earlier run of this round delivered.
    fn delivered(&self, row: &str, kind: Kind) -> Option<f64> {
        let run = self
            .runs
            .iter()
            .rev()
            .find(|run| run["row"] == row && run["round"] == self.round && run["server"] == kind.name())?;
        run["result"]["delivered_per_s"].as_f64()
    }
}

/// The highest p99 of a bucket that began in these seconds, in microseconds.
fn worst_p99(result: &Value, from: f64, to: f64) -> Option<f64> {
    let timeline = &result["timeline"];
    let column = |name: &str| timeline["fields"].as_array()?.iter().position(|field| field == name);
    let (at, p99) = (column("at_s")?, column("p99_us")?);
    let rows = timeline["rows"].as_array()?.iter();
    let during = rows.filter(|row| row[at].as_f64().is_some_and(|at| (from..to).contains(&at)));
    during.filter_map(|row| row[p99].as_f64()).max_by(f64::total_cmp)
}

/// The server's CPU time for one unit of work, in microseconds.
fn cpu(result: &Value, rate: &str) -> Result<Figure, String> {
    Ok(Figure { value: number(result, "/server/cpu_us_per_unit")?, per_s: result[rate].as_f64() })
}

fn number(result: &Value, place: &str) -> Result<f64, String> {
    let value = result.pointer(place).and_then(Value::as_f64);
    value.filter(|value| *value > 0.0).ok_or_else(|| format!("no figure at {place}"))
}
