//! Tells the supervisor that started the gateway, such as systemd, how the gateway is: by datagrams to the socket in
//! `$NOTIFY_SOCKET` (sd_notify). Without this variable, nothing is sent.
//!
//! The compiler of plugins starts with an empty environment, so it cannot speak for the gateway.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

/// The most messages that wait to be sent. A supervisor that reads has none waiting.
const WAITING: usize = 16;

/// How often the supervisor is told the number of connections.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The supervisor, if there is one. Clones reach the same supervisor.
#[derive(Debug, Clone)]
pub(super) struct Supervisor {
    messages: Option<Sender<String>>,
}

impl Supervisor {
    /// Finds the supervisor. If it expects signs of life (`$WATCHDOG_USEC`), a task of the runtime sends them twice in
    /// this time, until the process ends.
    pub(super) fn find() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self { messages: None };
        }
        let (sender, receiver) = channel(WAITING);
        tokio::spawn(deliver(receiver));
        let supervisor = Self { messages: Some(sender) };
        if let Some(expected) = sd_notify::watchdog_enabled() {
            tokio::spawn(supervisor.clone().live(expected / 2));
        }
        supervisor
    }

    /// Sends what the gateway is doing, as a sentence for people.
    pub(super) fn status(&self, text: &str) {
        self.send(&[NotifyState::Status(text)]);
    }

    /// Sends that the gateway serves: after its start, and after it has read the configuration again.
    pub(super) fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// Sends that the gateway reads its configuration again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "no clock, so the supervisor is not told of the reload"),
        }
    }

    /// Sends that the gateway shuts down.
    pub(super) fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Asks for this much time from now on, before the supervisor thinks that the gateway hangs at its start or at its
    /// end.
    pub(super) fn extend_timeout(&self, time: Duration) {
        // The variant for this takes at most 71 minutes.
        self.send(&[NotifyState::Custom(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()))]);
    }

    /// Sends the number of connections whenever it has changed. Never ends.
    pub(super) async fn report(self, connections: impl Fn() -> usize) {
        let mut reported = None;
        loop {
            let now = connections();
            if reported.replace(now) != Some(now) {
                self.status(&format!("Serving {now} connections"));
            }
            sleep(REPORT_EVERY).await;
        }
    }

    async fn live(self, every: Duration) {
        loop {
            self.send(&[NotifyState::Watchdog]);
            sleep(every).await;
        }
    }

    /// Queues a message. It is lost if the supervisor does not read.
    fn send(&self, states: &[NotifyState<'_>]) {
        if let Some(messages) = &self.messages {
            let lines: Vec<_> = states.iter().map(NotifyState::to_string).collect();
            let _ = messages.try_send(lines.join("\n"));
        }
    }
}

/// Sends the messages, in their order. Sending blocks if the supervisor does not read, so a thread without connections
/// does it.
async fn deliver(mut messages: Receiver<String>) {
    let mut has_failed = false;
    while let Some(message) = messages.recv().await {
        let sent = spawn_blocking(move || sd_notify::notify(&[NotifyState::Custom(&message)])).await;
        if let Ok(Err(error)) = sent
            && !has_failed
        {
            has_failed = true;
            warn!(%error, "cannot reach the supervisor ($NOTIFY_SOCKET)");
        }
    }
}
