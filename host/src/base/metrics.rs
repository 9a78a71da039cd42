//! The names of everything counted: once here, and so in the admin listener's `/metrics` and in the last line of the
//! log. Counting is one relaxed addition, so that it costs a message nothing.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::base::message::Cause;
use crate::base::stripe::Sum;

/// Something that only grows.
#[derive(Debug)]
pub struct Counter(Sum);

/// A [`Counter`] for each reason.
#[derive(Debug)]
pub struct By<R>([Counter; MAX_REASONS], PhantomData<R>);

/// How often something was done, and how long that took in all.
#[derive(Debug)]
pub struct Timing {
    count: Counter,
    micros: Counter,
}

/// What something is counted by: an enumeration, so that there are never more numbers than names in the source.
pub trait Reason: Copy + 'static {
    /// What kind of reason it is.
    const LABEL: &'static str;
    /// The names, in the order of the variants.
    const NAMES: &'static [&'static str];

    /// Which of them.
    fn index(self) -> usize;
}

/// The most variants that a [`Reason`] has.
const MAX_REASONS: usize = 11;

/// What was counted.
#[derive(Debug, Clone, PartialEq)]
pub enum Count {
    /// By a [`Counter`].
    Total(u64),
    /// By a [`By`]: the kind of reason, and how many for each.
    By(&'static str, Vec<(&'static str, u64)>),
    /// By a [`Timing`].
    Time(u64, Duration),
}

impl Counter {
    const fn new() -> Self {
        Self(Sum::new())
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.add(count);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    fn count(&self) -> Count {
        Count::Total(self.get())
    }
}

impl<R: Reason> By<R> {
    const fn new() -> Self {
        const { assert!(R::NAMES.len() <= MAX_REASONS) };
        Self([const { Counter::new() }; MAX_REASONS], PhantomData)
    }

    /// One more for this reason.
    pub fn increment(&self, reason: R) {
        self.0[reason.index()].increment();
    }

    fn count(&self) -> Count {
        Count::By(R::LABEL, R::NAMES.iter().zip(&self.0).map(|(name, counter)| (*name, counter.get())).collect())
    }
}

impl Timing {
    const fn new() -> Self {
        Self { count: Counter::new(), micros: Counter::new() }
    }

    /// Once more, and how long it took.
    pub fn observe(&self, took: Duration) {
        self.count.increment();
        self.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn count(&self) -> Count {
        Count::Time(self.count.get(), Duration::from_micros(self.micros.get()))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total(count) | Self::Time(count, _) => write!(f, "{count}"),
            Self::By(_, counts) => write!(f, "{}", counts.iter().map(|(_, count)| count).sum::<u64>()),
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $meaning:literal])+ $name:ident: $type:ty,)*) => {
        /// Everything that is counted.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $meaning])+ pub $name: $type,)*
        }

        impl Metrics {
            /// Everything with its name and meaning.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, Count)> {
                [$((stringify!($name), concat!($($meaning),+).trim_start(), self.$name.count()),)*].into_iter()
            }
        }

        /// What this process has counted.
        pub static METRICS: Metrics = Metrics { $($name: <$type>::new(),)* };
    };
}

metrics! {
    /// TCP connections accepted on the WebSocket port.
    connections_accepted: Counter,
    /// Connections refused before they were upgraded, for whatever reason.
    handshakes_refused: Counter,
    /// Connections that ended before they were upgraded or refused.
    handshakes_abandoned: Counter,
    /// WebSocket connections that have ended, by who or what ended them.
    connections_ended: By<Cause>,
    /// Clients that an authenticator accepted.
    logins: Counter,
    /// Clients that were turned away. Not those that left.
    logins_denied: By<Denial>,
    /// Messages received from authenticated clients.
    messages_received: Counter,
    /// Messages put into an outbox.
    messages_queued: Counter,
    /// Messages refused by an outbox.
    messages_refused: By<Overflow>,
    /// Packets on which the router failed.
    packets_failed: Counter,
    /// Connections closed because they did not read (`outbox.max_bytes`).
    slow_consumers: Counter,
    /// Connections closed because most was waiting for them when all outboxes were full (`outbox.total_bytes`).
    connections_relieved: Counter,
    /// Connections closed because nothing arrived from them.
    silent_connections: Counter,
    /// Senders turned away by `text.allow_from` or `limits.text_connections`.
    senders_refused: Counter,
    /// Lines of the text port answered `ok`, or with a plugin's own reply.
    pushes_ok: Counter,
    /// Lines of the text port answered `fail`.
    pushes_failed: By<PushFailure>,
    /// From a component that has been read to the generation that serves.
    plugin_swap_seconds: Timing,
    /// Compiling a component.
    plugin_compile_seconds: Timing,
    /// Log lines of plugins that were dropped.
    plugin_log_lines_dropped: Counter,
    /// Log lines that were lost: standard error was not read fast enough, or could not be written.
    log_lines_lost: Counter,
    /// Requests to the admin listener that were refused: the token, the Host or the Origin.
    admin_refused: Counter,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $type:ident by $label:literal { $($(#[$meaning:meta])* $variant:ident = $name:literal,)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$meaning])* $variant,)*
        }

        impl Reason for $type {
            const LABEL: &'static str = $label;
            const NAMES: &'static [&'static str] = &[$($name),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    )* };
}

reasons! {
    /// Why a client was turned away.
    Denial by "reason" {
        /// A plugin denied it, or closed it at once.
        Plugin = "plugin",
        /// No authenticator accepted (4902).
        NotAccepted = "not-accepted",
        /// Not authenticated in time (4901).
        TooLate = "too-late",
        /// A plugin failed or had too much to do (1013).
        Failed = "failed",
        /// Its uid is connected already (4904).
        Duplicate = "duplicate",
        /// What it was accepted for is over (4906).
        Expired = "expired",
        /// It broke the WebSocket protocol.
        Protocol = "protocol",
        /// It was closed meanwhile: silent, slow, or the gateway shuts down.
        Closed = "closed",
    }

    /// Why an outbox refused a message.
    Overflow by "reason" {
        /// It is full (`outbox.max_bytes`).
        Full = "full",
        /// All together are (`outbox.total_bytes`).
        OverBudget = "over-budget",
    }

    /// Why a pushed line was answered `fail`.
    PushFailure by "reason" {
        /// It is in nobody's outbox: nobody is there, or what is there is full.
        Unreached = "unreached",
        /// The plugin refused it.
        Refused = "refused",
        /// The plugin failed or had too much to do.
        Failed = "failed",
        /// The plugin's reply finds no room (`text.total_replies`).
        NoRoom = "no-room",
        /// It is longer than `text.max_line`.
        TooLong = "too-long",
        /// It is not UTF-8, or is HTTP.
        Malformed = "malformed",
    }
}

impl Reason for Cause {
    const LABEL: &'static str = "cause";
    const NAMES: &'static [&'static str] = &[
        "client",
        "plugin",
        "unauthenticated",
        "operator",
        "silent",
        "slow",
        "replaced",
        "expired",
        "protocol",
        "lost",
        "shutdown",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_number_of_its_own() {
        let by = By::<Denial>::new();
        by.increment(Denial::Closed);
        by.increment(Denial::TooLate);
        by.increment(Denial::TooLate);
        let Count::By("reason", counts) = by.count() else { panic!("{by:?}") };
        assert_eq!(counts.len(), 8);
        assert!(counts.contains(&("too-late", 2)) && counts.contains(&("closed", 1)), "{counts:?}");
        assert_eq!(by.count().to_string(), "3");
        assert_eq!(Cause::NAMES[Cause::Shutdown.index()], "shutdown");
        assert_eq!(Cause::NAMES.len(), Cause::Shutdown as usize + 1);
    }

    #[test]
    fn everything_has_a_meaning_of_one_line() {
        for (name, meaning, _) in METRICS.all() {
            assert!(meaning.ends_with('.') && !meaning.contains('\n'), "{name}: {meaning:?}");
        }
    }
}
