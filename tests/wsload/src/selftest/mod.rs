//! A small server of the origin protocol for wsload's tests. It is correct, or broken on request. It shares only the
//! framing with wsload's own connections, so that both check each other.

mod api;
mod dialogue;
mod pair;
mod server;

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use self::server::{Kind, Server};
use crate::open::secs;
use crate::{sys, ws};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// The origin protocol
    Origin,
    /// Send every message back to its sender
    Echo,
}

#[derive(Args, Clone)]
pub(crate) struct ServerArgs {
    /// 0: any free port; the ports are printed on stdout
    #[arg(long, default_value_t = 0)]
    pub(crate) ws_port: u16,
    #[arg(long, default_value_t = 0)]
    pub(crate) text_port: u16,
    #[arg(long, default_value_t = 0)]
    pub(crate) api_port: u16,
    /// The only token that the HTTP API accepts
    #[arg(long, default_value = "selftest")]
    pub(crate) api_token: String,
    #[arg(long, value_enum, default_value_t = Mode::Origin)]
    pub(crate) mode: Mode,
    /// TCP congestion control (default: the system's)
    #[arg(long, default_value = "")]
    pub(crate) congestion: String,
    /// Seconds until the server ends by itself
    #[arg(long, default_value_t = 60.0)]
    pub(crate) max_seconds: f64,

    /// Fault: never deliver every Nth message
    #[arg(long, default_value_t = 0)]
    pub(crate) drop_every: u64,
    /// Fault: deliver every Nth message twice
    #[arg(long, default_value_t = 0)]
    pub(crate) dup_every: u64,
    /// Fault: deliver every Nth message to somebody else
    #[arg(long, default_value_t = 0)]
    pub(crate) misroute_every: u64,
    /// Fault: deliver every Nth message after its successor
    #[arg(long, default_value_t = 0)]
    pub(crate) swap_every: u64,
    /// Fault: change a byte of every Nth message
    #[arg(long, default_value_t = 0)]
    pub(crate) corrupt_every: u64,
    /// Fault: do not answer every Nth message (ack, ok/fail, or answer or result of the API)
    #[arg(long, default_value_t = 0)]
    pub(crate) mute_every: u64,
    /// Fault: answer 'ok' for uids that are not connected
    #[arg(long)]
    pub(crate) ok_for_offline: bool,
    /// Fault: answer 'fail' to every Nth line although it is delivered
    #[arg(long, default_value_t = 0)]
    pub(crate) fail_every: u64,
    /// Fault: answer 503 to every Nth push of the API, and do not deliver it
    #[arg(long, default_value_t = 0)]
    pub(crate) busy_every: u64,
    /// Fault: answer every Nth batch with 503, and deliver nothing
    #[arg(long, default_value_t = 0)]
    pub(crate) busy_batch_every: u64,
    /// Fault: end a stream with a summary after item number N
    #[arg(long, default_value_t = 0)]
    pub(crate) end_stream_at: u64,
    /// Fault: refuse every Nth first packet
    #[arg(long, default_value_t = 0)]
    pub(crate) refuse_auth_every: u64,
    /// Fault: a wrong Sec-WebSocket-Accept
    #[arg(long)]
    pub(crate) bad_accept: bool,
    /// Fault: close the connection that sends message number N
    #[arg(long, default_value_t = 0)]
    pub(crate) close_at: u64,
    /// Fault: send a frame with a reserved opcode after message number N
    #[arg(long, default_value_t = 0)]
    pub(crate) bad_frame_at: u64,
    /// Send deliveries in three fragments with a ping in between
    #[arg(long)]
    pub(crate) fragment: bool,
    /// Write at most this many bytes at a time (0: no limit)
    #[arg(long, default_value_t = 0)]
    pub(crate) trickle: usize,
    /// Ping every client this often (0: never)
    #[arg(long, default_value_t = 0)]
    pub(crate) ping_ms: u64,
    /// Close clients that leave a ping unanswered until the next one
    #[arg(long)]
    pub(crate) enforce_pong: bool,
    /// Ignore clients' pings
    #[arg(long)]
    pub(crate) no_pong: bool,
    /// Greet again this often (0: only on connect)
    #[arg(long, default_value_t = 0)]
    pub(crate) greet_ms: u64,
    /// Send a line to all connections of its uid by a bare loop of send(): the least work of any server
    #[arg(long)]
    pub(crate) bare_broadcast: bool,
    /// Fault: stand still for this many microseconds for every client that leaves
    #[arg(long, default_value_t = 0)]
    pub(crate) leave_us: u64,
    /// When this file appears: remove it and stand still for --stall-ms
    #[arg(long)]
    pub(crate) stall_file: Option<PathBuf>,
    #[arg(long, default_value_t = 300)]
    pub(crate) stall_ms: u64,
    /// While this file exists every first packet is refused
    #[arg(long)]
    pub(crate) refuse_file: Option<PathBuf>,
}

/// Serves until `--max-seconds` are over. Prints its ports on one line of stdout.
pub(crate) fn serve(args: &ServerArgs) -> io::Result<()> {
    sys::raise_descriptors();
    let mut server = Server::new(args.clone())?;
    let ws = server.listen(args.ws_port, Kind::WsListener)?;
    let text = server.listen(args.text_port, Kind::TextListener)?;
    let api = server.listen(args.api_port, Kind::ApiListener)?;
    println!("listening ws={ws} text={text} api={api} pid={}", std::process::id());
    io::stdout().flush()?;

    let begin = sys::monotonic_ns();
    let mut now = begin;
    let (mut tick, mut ping, mut greet) =
        (Every(begin, TICK_MS), Every(begin, args.ping_ms), Every(begin, args.greet_ms));
    let mut events = Vec::with_capacity(512);
    while now < begin + secs(args.max_seconds) {
        if tick.is_due(now) {
            server.tick();
        }
        if ping.is_due(now) {
            server.ping_all();
        }
        if greet.is_due(now) {
            server.each_client(|server, id| server.frame(id, ws::TEXT, &[b"HeartBeat"]));
        }
        server.flush();
        server.poll(&mut events, TICK_MS * 1_000_000)?;
        now = sys::monotonic_ns();
    }
    Ok(())
}

/// The interval at which the server checks its timers.
const TICK_MS: u64 = 5;

/// A timer: the last time, and the interval in milliseconds. 0 is never.
struct Every(u64, u64);

impl Every {
    fn is_due(&mut self, now: u64) -> bool {
        let due = self.1 > 0 && now >= self.0 + self.1 * 1_000_000;
        if due {
            self.0 = now;
        }
        due
    }
}
