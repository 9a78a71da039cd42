//! Waits until files have stopped changing.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::FileEvent;

/// How long a file must be quiet if a program has written to it and holds it open.
const WRITING: Duration = Duration::from_secs(2);

/// The longest wait for a file that a program holds open and keeps writing.
const LONGEST_WRITING: Duration = Duration::from_secs(60);

/// The longest wait for a file that changes again and again: `watch.settle` and this time.
const LONGEST_CHANGING: Duration = Duration::from_secs(5);

/// Waits until files have stopped changing, but not for ever.
#[derive(Debug)]
pub struct Settling {
    settle: Duration,
    /// The time since which the files have been changing without a pause.
    changing: Option<Instant>,
    /// The time since which a file has been held open for writing.
    writing: Option<Instant>,
}

impl Settling {
    /// Creates a wait for files that must be quiet for `settle`.
    pub fn new(settle: Duration) -> Self {
        Self { settle, changing: None, writing: None }
    }

    /// Waits until the files have been quiet for `watch.settle` after an event, or have kept changing for too long.
    /// Without any event, waits until `until`.
    pub async fn quiet(&mut self, events: &mut [mpsc::Receiver<FileEvent>], until: Instant) {
        let mut quiet = until;
        while let Ok(event) = timeout_at(quiet, any(events)).await {
            let now = Instant::now();
            quiet = match event {
                // Other files in the folder may be written all the time; they do not prolong the wait.
                FileEvent::Near => quiet.min(now + self.settle),
                FileEvent::Writing => {
                    let since = *self.writing.get_or_insert(now);
                    (now + self.settle.max(WRITING)).min(since + LONGEST_WRITING)
                }
                FileEvent::Changed => {
                    self.writing = None;
                    (now + self.settle).min(self.begin(now) + self.longest())
                }
            };
            if quiet <= now {
                return;
            }
        }
    }

    /// Records that a file was changing while it was read.
    pub fn still_changing(&mut self) {
        self.begin(Instant::now());
    }

    /// Returns `true` if the files have kept changing for too long to wait any longer.
    pub fn is_over(&self) -> bool {
        let over = |since: Option<Instant>, longest| since.is_some_and(|since| since.elapsed() >= longest);
        over(self.changing, self.longest()) || over(self.writing, LONGEST_WRITING)
    }

    /// Records that the files have been read.
    pub fn done(&mut self) {
        (self.changing, self.writing) = (None, None);
    }

    fn begin(&mut self, now: Instant) -> Instant {
        *self.changing.get_or_insert(now)
    }

    fn longest(&self) -> Duration {
        self.settle + LONGEST_CHANGING
    }
}

/// Waits for an event of any of the files; for ever if no file is watched.
async fn any(events: &mut [mpsc::Receiver<FileEvent>]) -> FileEvent {
    poll_fn(|context| {
        let mut ready = events.iter_mut().filter_map(|events| match events.poll_recv(context) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        });
        ready.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `event` every 40 ms and, after a while, `then` once. Returns how long `quiet` waits, and whether that was
    /// too long.
    async fn waited(event: FileEvent, then: Option<(Duration, FileEvent)>) -> (Duration, bool) {
        let (sender, mut events) = mpsc::channel(1);
        let begun = Instant::now();
        let mut settling = Settling::new(Duration::from_millis(100));
        let writing = async {
            while then.is_none_or(|(end, _)| begun.elapsed() < end) {
                let _ = sender.send(event).await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            if let Some((_, last)) = then {
                let _ = sender.send(last).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = writing => {}
            () = settling.quiet(std::slice::from_mut(&mut events), begun + Duration::from_secs(60)) => {}
        }
        (begun.elapsed(), settling.is_over())
    }

    #[tokio::test]
    async fn waiting_for_files_to_come_to_rest_has_an_end() {
        let slow_copy = Some((Duration::from_secs(7), FileEvent::Changed));
        let (changing, copied, near) = tokio::join!(
            waited(FileEvent::Changed, None),
            waited(FileEvent::Writing, slow_copy),
            waited(FileEvent::Near, None)
        );
        let ends = |(took, over): (Duration, bool), millis: u64, expected| {
            let wanted = Duration::from_millis(millis);
            assert!((wanted..wanted + Duration::from_secs(2)).contains(&took) && over == expected, "{took:?} {over}");
        };
        ends(changing, 5100, true);
        ends(copied, 7100, false);
        // `Near` events do not prolong the wait.
        ends(near, 100, false);
    }
}
