//! Command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::CompareArgs;
use crate::pinned::PinnedArgs;
use crate::scenarios::broadcast::BroadcastArgs;
use crate::scenarios::connect::ConnectArgs;
use crate::scenarios::drain::DrainArgs;
use crate::scenarios::idle::IdleArgs;
use crate::scenarios::push::PushArgs;
use crate::scenarios::relay::RelayArgs;
use crate::scenarios::storm::StormArgs;
use crate::scenarios::swap::SwapArgs;
use crate::selftest::ServerArgs;

#[derive(Parser)]
#[command(name = "wsload", version, about = "WebSocket load generator for push gateways (loopback only)")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// WebSocket clients send to each other through the server
    Relay(RelayArgs),
    /// Senders push to WebSocket clients, through the text port or the HTTP API
    Push(PushArgs),
    /// Open, authenticate and close connections as fast as possible
    Connect(ConnectArgs),
    /// Hold many authenticated connections open
    Idle(IdleArgs),
    /// Push lines that go to many connections, and wait for the last of them
    Broadcast(BroadcastArgs),
    /// Cut many connections at once while others log in
    Storm(StormArgs),
    /// Have the server drained while others log in elsewhere
    Drain(DrainArgs),
    /// Open-loop traffic with commands run at given times, and a latency timeline
    Swap(SwapArgs),
    /// Run Hotgate and a server with compiled-in rules, one after the other, and compare them
    Compare(CompareArgs),
    /// A server for wsload's own tests
    SelftestServer(ServerArgs),
    /// Run a program on chosen cores, for as long as the parent lives
    #[command(hide = true)]
    Pinned(PinnedArgs),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Adapter {
    /// The origin protocol, which Hotgate's default plugins speak
    Origin,
    /// Every client gets its own messages back
    Echo,
}

impl Adapter {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Adapter::Origin => "origin",
            Adapter::Echo => "echo",
        }
    }
}

#[derive(Args, Clone)]
pub(crate) struct Common {
    /// Server's WebSocket address, ws:// or wss://; the path may contain {uid}
    #[arg(long, default_value = "ws://127.0.0.1:1234/")]
    pub(crate) ws: String,
    /// File with the certificates that wss:// trusts
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
    /// Server's text port
    #[arg(long, default_value = "127.0.0.1:5678")]
    pub(crate) text: String,
    /// Server's HTTP push API
    #[arg(long, default_value = "127.0.0.1:1236")]
    pub(crate) api: String,
    /// File with the API's token [default: api-token in the user's state folder of Hotgate]
    #[arg(long)]
    pub(crate) api_token_file: Option<PathBuf>,
    /// The server's protocol
    #[arg(long, value_enum, default_value_t = Adapter::Origin)]
    pub(crate) adapter: Adapter,
    /// Seconds of traffic, warm-up included
    #[arg(long, default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// Seconds at the start that are not measured
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Longest wait after the traffic for messages still under way
    #[arg(long, default_value_t = 2.0)]
    pub(crate) drain: f64,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Client uids are PREFIX0, PREFIX1, ...
    #[arg(long, default_value = "u")]
    pub(crate) uid_prefix: String,
    /// First packet of a client; {uid} is replaced
    #[arg(long, default_value = r#"{"id":"{uid}"}"#)]
    pub(crate) auth_template: String,
    /// Server's answer to a good first packet
    #[arg(long, default_value = "Link_successful")]
    pub(crate) auth_ok: String,
    /// Server's text on connect (and any time later); counted, otherwise ignored
    #[arg(long, default_value = "HeartBeat")]
    pub(crate) greeting: String,
    /// Server's answer to the sender of a relayed message
    #[arg(long, default_value = "Already_Linked")]
    pub(crate) ack_text: String,
    /// Message of a ws client to another; {uid} and {payload} are replaced
    #[arg(long, default_value = r#"{"id":"{uid}","msg":"{payload}"}"#)]
    pub(crate) relay_template: String,
    /// Line for the text port; {uid} and {payload} are replaced
    #[arg(long, default_value = r#"{"uid":"{uid}","msg":"{payload}"}"#)]
    pub(crate) line_template: String,
    /// Extra handshake header, 'Name: value' (repeatable)
    #[arg(long)]
    pub(crate) header: Vec<String>,
    /// Use mask key 0 for client frames
    #[arg(long)]
    pub(crate) zero_mask: bool,
    /// TCP congestion control of wsload's sockets (default: the system's)
    #[arg(long, default_value = "")]
    pub(crate) congestion: String,
    /// Loopback source addresses 127.0.0.2.. to spread over (0: as many as needed)
    #[arg(long, default_value_t = 0)]
    pub(crate) source_addrs: u32,
    /// Longest time, in seconds, until a connection is ready
    #[arg(long, default_value_t = 10.0)]
    pub(crate) connect_timeout: f64,
    /// Longest time, in seconds, for the whole set-up
    #[arg(long, default_value_t = 120.0)]
    pub(crate) setup_timeout: f64,
    /// Connections being opened at the same time during set-up
    #[arg(long, default_value_t = 128)]
    pub(crate) connect_concurrency: usize,
    /// Closed loop: a window without progress for this many seconds is written off and refilled
    #[arg(long, default_value_t = 2.0)]
    pub(crate) loss_timeout: f64,
    /// Most bytes queued inside wsload; beyond this, messages are not sent and are counted
    #[arg(long, default_value_t = 256 * 1024 * 1024)]
    pub(crate) max_buffered: usize,
    /// Largest message accepted from the server
    #[arg(long, default_value_t = 16 * 1024 * 1024)]
    pub(crate) max_frame: usize,
    /// Server process whose CPU and memory are measured (repeatable)
    #[arg(long)]
    pub(crate) server_pid: Vec<u32>,
    /// Never sleep between events (more precise schedules, a full core)
    #[arg(long)]
    pub(crate) spin: bool,
    /// Free text copied into the result
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// Exit with status 3 if anything was lost, duplicated, misdelivered or refused
    #[arg(long)]
    pub(crate) strict: bool,
    /// No summary on stderr
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl Common {
    pub(crate) fn check(&self) -> Result<(), String> {
        let finite = |name: &str, v: f64, min: f64, max: f64| {
            if v.is_finite() && v >= min && v <= max {
                Ok(())
            } else {
                Err(format!("--{name} must be between {min} and {max}"))
            }
        };
        finite("duration", self.duration, 0.01, 86_400.0)?;
        finite("warmup", self.warmup, 0.0, 86_400.0)?;
        finite("drain", self.drain, 0.0, 3600.0)?;
        finite("connect-timeout", self.connect_timeout, 0.01, 3600.0)?;
        finite("setup-timeout", self.setup_timeout, 0.01, 3600.0)?;
        finite("loss-timeout", self.loss_timeout, 0.01, 3600.0)?;
        if self.warmup >= self.duration {
            return Err("--warmup must be shorter than --duration".into());
        }
        if self.connect_concurrency == 0 {
            return Err("--connect-concurrency must be at least 1".into());
        }
        if self.source_addrs > 250 {
            return Err("--source-addrs must be at most 250".into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !self.uid_prefix.chars().all(plain) {
            return Err("--uid-prefix: only letters, digits, '_' and '-'".into());
        }
        for h in &self.header {
            if !h.contains(':') || h.contains(['\r', '\n']) {
                return Err(format!("--header '{h}': must be 'Name: value'"));
            }
        }
        for (name, t) in [("relay-template", &self.relay_template), ("line-template", &self.line_template)] {
            if t.matches("{payload}").count() != 1 || !t.contains("{uid}") || t.contains('\n') {
                return Err(format!("--{name} must be one line with {{uid}} and exactly one {{payload}}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
