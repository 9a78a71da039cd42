//! What the counters are split by.

use crate::base::message::Cause;

/// A reason to count by. It is an enumeration, so that the number of counters is fixed in the source.
pub trait Reason: Copy + 'static {
    /// The label's name in `/metrics`.
    const LABEL: &'static str;
    /// The label's values, in the order of the variants.
    const NAMES: &'static [&'static str];

    /// Returns the index of this variant.
    fn index(self) -> usize;

    /// Returns the name of this variant.
    fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
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
    /// Why a connection was refused before the upgrade.
    Rejection by "reason" {
        /// `limits.connections`
        Connections = "connections",
        /// `limits.connections_per_address`
        PerAddress = "connections-per-address",
        /// `limits.unauthenticated`
        Unauthenticated = "unauthenticated",
        /// `limits.unauthenticated_share`
        UnauthenticatedShare = "unauthenticated-share",
        /// `limits.tls_handshakes`
        TlsHandshakes = "tls-handshakes",
        /// `limits.accept_rate_per_address`
        Rate = "accept-rate",
        /// `websocket.allowed_origins`
        Origin = "origin",
        /// `websocket.handshake_timeout`
        Timeout = "timeout",
        /// `websocket.proxy_protocol`: the peer is no trusted proxy, or its header is wrong.
        Proxy = "proxy",
        /// The request is no valid upgrade request.
        Request = "request",
        /// The gateway drains.
        Draining = "draining",
    }

    /// What a client sent too fast.
    Rate by "rate" {
        /// `limits.messages_per_second`
        Messages = "messages",
        /// `limits.bytes_per_second`
        Bytes = "bytes",
    }

    /// Why a sender was refused.
    SenderRefusal by "reason" {
        /// `text.allow_from`
        AllowFrom = "allow-from",
        /// `limits.text_connections`
        Connections = "connections",
        /// `text.trusted_proxies`
        Proxy = "proxy",
        /// The header of its proxy or the handshake of TLS was wrong, or took too long.
        Opening = "opening",
    }

    /// Why a client was refused.
    Denial by "reason" {
        /// A plugin denied the client, or closed the connection at once.
        Plugin = "plugin",
        /// No authenticator accepted (4902).
        NotAccepted = "not-accepted",
        /// The client was not authenticated in time (4901).
        TooLate = "too-late",
        /// A plugin failed or had too much to do (1013).
        Failed = "failed",
        /// The uid is already connected (4904).
        Duplicate = "duplicate",
        /// The session that the authenticator granted has already expired (4906).
        Expired = "expired",
        /// The client broke the WebSocket protocol.
        ProtocolError = "protocol-error",
        /// The uid is blocked (4908), or the connection was closed meanwhile: by an operator, because it was silent or
        /// slow, or because the gateway shuts down.
        Closed = "closed",
    }

    /// What came of a change of certificates.
    TlsReload by "outcome" {
        /// New connections get the new certificates.
        Loaded = "loaded",
        /// A file could not be used: the listener keeps its certificates.
        Refused = "refused",
    }

    /// Why an outbox refused a message.
    Overflow by "reason" {
        /// The outbox is full (`outbox.max_bytes`).
        Full = "full",
        /// All outboxes together are full (`outbox.total_bytes`).
        OverBudget = "over-budget",
    }

    /// Which way a pushed message took.
    PushWay by "by" {
        /// A line of the text port.
        Text = "text",
        /// A message or line of the HTTP API.
        Http = "http",
    }

    /// Why a pushed line was answered `fail`.
    PushFailure by "reason" {
        /// A delivery reached no connection: there was none, or its outbox was full.
        Unreached = "unreached",
        /// The plugin refused the line.
        Refused = "refused",
        /// The plugin failed or had too much to do.
        Failed = "failed",
        /// There was no room for the plugin's reply (`text.total_replies`).
        NoRoom = "no-room",
        /// The line is longer than `text.max_line`.
        TooLong = "too-long",
        /// The line is not UTF-8, or is HTTP.
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
        "protocol-error",
        "lost",
        "shutdown",
    ];

    fn index(self) -> usize {
        self as usize
    }
}
