//! What the bus and its task share: the connection, and what is on its way to the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::Client;
use super::dropped::Dropped;
use super::error::PublishError;
use super::subject::{Subjects, Target};

/// One of so many parts of the bytes that may be unconfirmed is much.
const MUCH: u64 = 8;

/// What the bus and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) subjects: Subjects,
    pub(super) dropped: Arc<Dropped>,
    line: Mutex<Line>,
    progress: watch::Sender<Progress>,
    /// Publishing fails once an echo is late by this time.
    stall: Duration,
    /// The most bytes that are not confirmed.
    unconfirmed: u64,
}

/// The connection, and what was published on it. Messages are numbered across connections.
#[derive(Debug)]
struct Line {
    /// `None` while there is no connection.
    client: Option<Client>,
    published: Sent,
    confirmed: Sent,
    /// The echo that is under way.
    echo: Option<Echo>,
    /// The number of the last echo.
    echoes: u64,
    /// The frame up to which somebody waits for the server.
    wanted: u64,
}

/// An amount of what was published.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    frames: u64,
    bytes: u64,
}

/// A message to the own inbox. The server processes the messages of a connection in order: when this one comes back,
/// the server has processed all that was published before it.
#[derive(Debug, Clone, Copy)]
struct Echo {
    number: u64,
    covers: Sent,
    since: Instant,
}

/// How far the server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// The number of the connection.
    life: u64,
    /// The frames that it has processed.
    confirmed: u64,
}

impl Shared {
    pub(super) fn new(subjects: Subjects, stall: Duration, unconfirmed: usize) -> Self {
        let line = Line {
            client: None,
            published: Sent::default(),
            confirmed: Sent::default(),
            echo: None,
            echoes: 0,
            wanted: 0,
        };
        let progress = watch::Sender::new(Progress { life: 0, confirmed: 0 });
        let (line, unconfirmed) = (Mutex::new(line), unconfirmed as u64);
        Self { subjects, dropped: Arc::default(), line, progress, stall, unconfirmed }
    }

    /// Publishes a frame. Asks the server for an echo if much is not confirmed; otherwise, the keeper asks some times
    /// in a ping interval.
    pub(super) fn publish(&self, target: Target, token: Option<u64>, bytes: Bytes) -> Result<u64, PublishError> {
        let (subject, reply) = (self.subjects.target(target), token.map(|token| self.subjects.token(token)));
        let size = bytes.len() as u64;
        let mut line = self.line.lock();
        let client = line.client.as_ref().ok_or(PublishError::Disconnected)?;
        if line.echo.is_some_and(|echo| echo.since.elapsed() > self.stall) {
            return Err(PublishError::Stalled);
        }
        if line.unconfirmed() + size > self.unconfirmed {
            return Err(PublishError::Full);
        }
        client.publish(subject, reply, bytes)?;
        line.published.frames += 1;
        line.published.bytes += size;
        if line.echo.is_none() && line.unconfirmed() > self.unconfirmed / MUCH {
            line.ask(&self.subjects);
        }
        Ok(line.published.frames)
    }

    /// Returns `true` if so much is not confirmed that it is better to wait.
    pub(super) fn is_much_unconfirmed(&self) -> bool {
        self.line.lock().unconfirmed() > self.unconfirmed / MUCH
    }

    /// Returns the number of the last frame that is not under way any more.
    pub(super) fn confirmed(&self) -> u64 {
        self.line.lock().confirmed.frames
    }

    /// Waits until the server has processed all that was published before this call.
    ///
    /// # Errors
    /// If the connection ends first. Then nobody knows whether the server has processed it.
    pub(super) fn flushed(&self) -> impl Future<Output = Result<(), PublishError>> + Send + use<> {
        let mut progress = self.progress.subscribe();
        let (published, is_connected, life) = {
            let mut line = self.line.lock();
            line.wanted = line.published.frames;
            if line.echo.is_none() && line.confirmed.frames < line.wanted {
                line.ask(&self.subjects);
            }
            (line.published.frames, line.client.is_some(), progress.borrow().life)
        };
        async move {
            if !is_connected {
                return Err(PublishError::Disconnected);
            }
            // Ends with the connection, which the keeper ends when the echo does not come.
            let reached = progress.wait_for(|now| now.life != life || now.confirmed >= published).await;
            match reached {
                Ok(now) if now.life == life => Ok(()),
                _ => Err(PublishError::Disconnected),
            }
        }
    }

    /// Takes note of an echo. Asks for the next if more was published meanwhile.
    pub(super) fn echoed(&self, number: u64) {
        let mut line = self.line.lock();
        let Some(echo) = line.echo.filter(|echo| echo.number == number) else {
            // It was published on an earlier connection, to a server that was slow.
            return;
        };
        line.confirmed = echo.covers;
        line.echo = None;
        if line.wanted > echo.covers.frames || line.unconfirmed() > self.unconfirmed / MUCH {
            line.ask(&self.subjects);
        }
        self.progress.send_modify(|progress| progress.confirmed = echo.covers.frames);
    }

    /// Returns the age of the echo that is under way. Asks for one if there is none: then it is 0.
    pub(super) fn probe(&self) -> Duration {
        let mut line = self.line.lock();
        if line.echo.is_none() {
            line.ask(&self.subjects);
        }
        line.echo.map_or(Duration::ZERO, |echo| echo.since.elapsed())
    }

    /// Gives the echo that is under way its whole time again, because this process has slept.
    pub(super) fn forgive(&self) {
        if let Some(echo) = &mut self.line.lock().echo {
            echo.since = Instant::now();
        }
    }

    /// Begins to publish on a connection.
    pub(super) fn connected(&self, client: Client) {
        self.line.lock().client = Some(client);
    }

    /// Ends publishing on the connection.
    pub(super) fn disconnected(&self) {
        let mut line = self.line.lock();
        line.client = None;
        line.echo = None;
        line.confirmed = line.published;
        let confirmed = line.confirmed.frames;
        self.progress.send_modify(|progress| *progress = Progress { life: progress.life + 1, confirmed });
    }
}

impl Line {
    fn unconfirmed(&self) -> u64 {
        self.published.bytes - self.confirmed.bytes
    }

    /// Asks the server for an echo. If the queue is full, the keeper asks later.
    fn ask(&mut self, subjects: &Subjects) {
        let Some(client) = &self.client else { return };
        // Never the number of an earlier connection's echo, which may still arrive.
        self.echoes += 1;
        if client.publish(subjects.echo(self.echoes), None, Bytes::new()).is_ok() {
            self.echo = Some(Echo { number: self.echoes, covers: self.published, since: Instant::now() });
        }
    }
}
