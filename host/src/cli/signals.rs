//! The signals that end the gateway.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::edge::drain::Ending;

/// Receives the signals that end the gateway.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Begins to receive signals. If `of_terminal` is true, SIGHUP ends the gateway, too.
    pub(super) fn new(of_terminal: bool) -> io::Result<Self> {
        let hangup = of_terminal.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, hangup })
    }

    /// Waits for a signal. Returns how it ends the gateway: who presses Ctrl-C in a terminal does not want to wait for
    /// a drain.
    pub(super) async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Drained,
            _ = self.interrupt.recv() => Ending::Quick,
            () = hung_up(self.hangup.as_mut()) => Ending::Quick,
        }
    }
}

async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => _ = hangup.recv().await,
        None => std::future::pending().await,
    }
}
