//! When files have come to rest.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::News;

/// How long a file must have been quiet that has been written to and not been closed yet.
const WRITING: Duration = Duration::from_secs(2);

/// How long a file that is held open for writing is waited for.
const LONGEST_WRITING: Duration = Duration::from_secs(60);

/// How long a file that changes again and again is waited for, beyond `watch.settle`.
const LONGEST_CHANGING: Duration = Duration::from_secs(5);

/// Waits until files have come to rest, but not for ever.
#[derive(Debug)]
pub struct Settling {
    settle: Duration,
    /// Since when they have been changing without a pause.
    changing: Option<Instant>,
    /// Since when one has been held open for writing.
    writing: Option<Instant>,
}

impl Settling {
    /// For files that must be quiet for this long.
    pub fn new(settle: Duration) -> Self {
        Self { settle, changing: None, writing: None }
    }

    /// Returns when the files have been quiet for `watch.settle` after some news, when they have kept changing for too long,
    /// or at `until` if there are no news.
    pub async fn quiet(&mut self, news: &mut [mpsc::Receiver<News>], until: Instant) {
        let mut quiet = until;
        while let Ok(news) = timeout_at(quiet, any(news)).await {
            let now = Instant::now();
            quiet = match news {
                // Other files in the folder may be written all the time; they do not put it off.
                News::Near => quiet.min(now + self.settle),
                News::Writing => {
                    let since = *self.writing.get_or_insert(now);
                    (now + self.settle.max(WRITING)).min(since + LONGEST_WRITING)
                }
                News::Changed => {
                    self.writing = None;
                    (now + self.settle).min(self.begin(now) + self.longest())
                }
            };
            if quiet <= now {
                return;
            }
        }
    }

    /// A file was found changing.
    pub fn unrest(&mut self) {
        self.begin(Instant::now());
    }

    /// Whether the files have kept changing for too long to wait any more.
    pub fn is_over(&self) -> bool {
        let over = |since: Option<Instant>, longest| since.is_some_and(|since| since.elapsed() >= longest);
        over(self.changing, self.longest()) || over(self.writing, LONGEST_WRITING)
    }

    /// The files have been read.
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

/// What happens to any of the files. Waits for ever where nothing is watched.
async fn any(news: &mut [mpsc::Receiver<News>]) -> News {
    poll_fn(|context| {
        let mut ready = news.iter_mut().filter_map(|news| match news.poll_recv(context) {
            Poll::Ready(told) => told,
            Poll::Pending => None,
        });
        ready.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long `told`, said every 40 ms and `then` once after a while, is waited for; and whether that was too long.
    async fn waited(told: News, then: Option<(Duration, News)>) -> (Duration, bool) {
        let (tell, mut news) = mpsc::channel(1);
        let begun = Instant::now();
        let mut settling = Settling::new(Duration::from_millis(100));
        let writing = async {
            while then.is_none_or(|(end, _)| begun.elapsed() < end) {
                let _ = tell.send(told).await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            if let Some((_, last)) = then {
                let _ = tell.send(last).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = writing => {}
            () = settling.quiet(std::slice::from_mut(&mut news), begun + Duration::from_secs(60)) => {}
        }
        (begun.elapsed(), settling.is_over())
    }

    #[tokio::test]
    async fn waiting_for_files_to_come_to_rest_has_an_end() {
        let slow_copy = Some((Duration::from_secs(7), News::Changed));
        let (changing, copied, near) =
            tokio::join!(waited(News::Changed, None), waited(News::Writing, slow_copy), waited(News::Near, None));
        let ends = |(took, over): (Duration, bool), millis: u64, expected| {
            let wanted = Duration::from_millis(millis);
            assert!((wanted..wanted + Duration::from_secs(2)).contains(&took) && over == expected, "{took:?} {over}");
        };
        ends(changing, 5100, true);
        ends(copied, 7100, false);
        // That is what happens to other files.
        ends(near, 100, false);
    }
}
