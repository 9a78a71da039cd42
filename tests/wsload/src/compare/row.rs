//! The rows: the work that is compared, and Hotgate's goals.

use super::server::Kind;

/// The goal of a row. All but `AtMost` compare two figures of the same round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// The reference's figure must be at least so many times Hotgate's.
    Times(f64),
    /// Hotgate's figure must be at most so many times the reference's.
    Within(f64),
    /// Hotgate's figure must be at most this.
    AtMost(f64),
}

/// The kind of work of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Work {
    Relay {
        window: u32,
        beside: Kind,
    },
    Push {
        senders: u32,
        beside: Kind,
    },
    /// Pushes through the HTTP API, with these options of `wsload push`.
    ApiPush {
        senders: &'static str,
    },
    ApiBroadcast,
    /// A relay over TLS, beside one without.
    TlsRelay,
    TlsLogin,
    TlsMemory,
    Login {
        beside: Kind,
    },
    Latency,
    Memory {
        beside: Kind,
    },
    Broadcast,
    Storm,
    Swap,
    Cores,
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Row {
    /// The name for `--only`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) work: Work,
    pub(super) unit: &'static str,
    /// The name of the figure that Hotgate's is compared with.
    pub(super) beside: &'static str,
    pub(super) goal: Goal,
}

const fn row(
    name: &'static str,
    title: &'static str,
    work: Work,
    unit: &'static str,
    beside: &'static str,
    goal: Goal,
) -> Row {
    Row { name, title, work, unit, beside, goal }
}

/// A row that compares Hotgate's HTTP API with its text port, with one sender.
const fn api(name: &'static str, title: &'static str, senders: &'static str, most: f64) -> Row {
    row(name, title, Work::ApiPush { senders }, "µs CPU", "text port", Goal::Within(most))
}

/// A row that compares the CPU time of a unit of work with a server in Node.
const fn node(name: &'static str, title: &'static str, work: Work, least: f64) -> Row {
    row(name, title, work, "µs CPU", "node", Goal::Times(least))
}

/// A row that compares the CPU time of a unit of work with a server in Bun.
const fn bun(name: &'static str, title: &'static str, work: Work, least: f64) -> Row {
    row(name, title, work, "µs CPU", "bun", Goal::Times(least))
}

const NODE: Kind = Kind::Node;
const BUN: Kind = Kind::Bun;

pub(super) const ROWS: [Row; 24] = [
    node("relay-8", "relay, 8 in flight", Work::Relay { window: 8, beside: NODE }, 6.0),
    node("relay-1", "relay, 1 in flight", Work::Relay { window: 1, beside: NODE }, 2.1),
    node("push-1", "push, 1 sender, 64 in flight", Work::Push { senders: 1, beside: NODE }, 2.3),
    node("push-4", "push, 4 senders, 64 in flight", Work::Push { senders: 4, beside: NODE }, 2.3),
    node("login", "login: connect, authenticate, close", Work::Login { beside: NODE }, 2.1),
    row("latency", "p99 latency at half of node's top rate", Work::Latency, "ms", "node", Goal::Times(2.0)),
    row(
        "memory",
        "memory of an idle connection, of 9,000",
        Work::Memory { beside: NODE },
        "KB",
        "node",
        Goal::AtMost(4.0),
    ),
    bun("bun-relay-8", "Bun: relay, 8 in flight", Work::Relay { window: 8, beside: BUN }, 2.0),
    bun("bun-relay-1", "Bun: relay, 1 in flight", Work::Relay { window: 1, beside: BUN }, 1.5),
    bun("bun-push-1", "Bun: push, 1 sender, 64 in flight", Work::Push { senders: 1, beside: BUN }, 1.6),
    bun("bun-push-4", "Bun: push, 4 senders, 64 in flight", Work::Push { senders: 4, beside: BUN }, 1.6),
    bun("bun-login", "Bun: connect, authenticate, close", Work::Login { beside: BUN }, 0.75),
    row(
        "bun-memory",
        "Bun: memory of an idle connection",
        Work::Memory { beside: BUN },
        "KB",
        "bun",
        Goal::AtMost(2.2),
    ),
    row("broadcast", "one message to 9,000 connections", Work::Broadcast, "ms", "bare loop", Goal::Within(1.5)),
    row("storm", "p99 of logins while 9,000 are cut", Work::Storm, "ms", "node", Goal::AtMost(100.0)),
    row("swap", "p99 latency while plugins are swapped", Work::Swap, "ms", "before", Goal::Within(2.0)),
    api("api-push-16", "HTTP: a request a push, 16 connections", "--sender http --senders 16", 4.0),
    api("api-batch", "HTTP: batches of 100 pushes", "--sender batch --batch 100 --senders 1", 1.3),
    api("api-stream", "HTTP: a stream of pushes", "--sender stream --senders 1 --window 64", 1.3),
    row(
        "api-broadcast",
        "HTTP: one message to 9,000 connections",
        Work::ApiBroadcast,
        "µs CPU",
        "text port",
        Goal::Within(1.1),
    ),
    row("tls-relay", "TLS: relay, 8 in flight", Work::TlsRelay, "µs CPU", "without TLS", Goal::Within(1.6)),
    row("tls-login", "TLS: connect, authenticate, close", Work::TlsLogin, "µs CPU", "without TLS", Goal::Within(10.0)),
    row("tls-memory", "TLS: memory of an idle connection", Work::TlsMemory, "KB", "without TLS", Goal::AtMost(7.0)),
    row("cores", "relay, 8 in flight, on two cores", Work::Cores, "µs CPU", "one core", Goal::Within(1.25)),
];

/// The result of a row in one round, for one server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) value: f64,
    /// Units of work a second, if the run did as many as it could.
    pub(super) per_s: Option<f64>,
}

/// Hotgate's figure, and the figure that it is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) hotgate: Figure,
    pub(super) beside: Figure,
}

/// The median, the lowest and the highest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { min, median, max })
    }
}

/// A row with the results of all rounds.
pub(super) struct Measured {
    pub(super) row: &'static Row,
    pub(super) pairs: Vec<Pair>,
}

impl Measured {
    /// The other figure divided by Hotgate's: more is better.
    pub(super) fn times(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.beside.value / pair.hotgate.value))
    }

    /// Hotgate's figure divided by the other: less is better.
    pub(super) fn share(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.hotgate.value / pair.beside.value))
    }

    pub(super) fn hotgate(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.hotgate.value))
    }

    pub(super) fn beside(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.beside.value))
    }

    /// Hotgate's throughput divided by the other's.
    pub(super) fn throughput(&self) -> Option<Spread> {
        let ratios = self.pairs.iter().filter_map(|pair| Some(pair.hotgate.per_s? / pair.beside.per_s?));
        Spread::of(ratios)
    }

    /// The value that is compared with the goal.
    pub(super) fn verdict(&self) -> Option<Spread> {
        match self.row.goal {
            Goal::Times(_) => self.times(),
            Goal::Within(_) => self.share(),
            Goal::AtMost(_) => self.hotgate(),
        }
    }

    /// Returns `true` if the goal is met.
    pub(super) fn met(&self) -> Option<bool> {
        let median = self.verdict()?.median;
        Some(match self.row.goal {
            Goal::Times(least) => median >= least,
            Goal::Within(most) | Goal::AtMost(most) => median <= most,
        })
    }
}
