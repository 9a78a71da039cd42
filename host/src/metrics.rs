//! The names of everything counted. Counters live as long as the process and are summed up in its last log line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Every counter of the gateway.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Metrics {
            /// Every counter that is not zero, with its name.
            pub fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter().filter(|(_, count)| *count > 0)
            }
        }

        /// The counters of this process.
        pub static METRICS: Metrics = Metrics { $($name: Counter(AtomicU64::new(0)),)* };
    };
}

counters! {
    /// TCP connections accepted on the WebSocket port.
    connections_accepted,
    /// Upgrade requests refused, for whatever reason.
    handshakes_refused,
    /// Clients that an authenticator accepted.
    logins,
    /// Clients that were turned away: denied, too late, or because a plugin failed. Not those that left.
    logins_failed,
    /// Messages received from authenticated clients.
    messages_received,
    /// Messages put into an outbox.
    messages_queued,
    /// Messages refused by an outbox.
    messages_refused,
    /// Packets on which the router failed.
    packets_failed,
    /// Connections closed because they did not read.
    slow_consumers,
    /// Connections closed because nothing arrived from them.
    silent_connections,
    /// Senders turned away by `text.allow_from` or `limits.text_connections`.
    senders_refused,
    /// Lines of the text port answered `ok`, or with a plugin's own reply.
    pushes_ok,
    /// Lines of the text port answered `fail`.
    pushes_failed,
}
