//! Deliveries about which other gateways of the cluster have a say.

use tokio::sync::oneshot;

use crate::hub::cluster::handle::Sent;
use crate::hub::command::{Elsewhere, Outcome};

/// What became of a message, or who will say it.
pub(super) enum Issued {
    /// This became of it.
    Done(Outcome),
    /// This became of it here; other gateways have not answered yet.
    Away(Outcome, oneshot::Receiver<Outcome>),
}

impl Issued {
    pub(super) fn new(here: Outcome, sent: Option<Sent>) -> Self {
        match sent {
            None | Some(Sent::Nowhere) => Self::Done(here),
            Some(Sent::Refused(mut sum)) => {
                sum += here;
                Self::Done(sum)
            }
            Some(Sent::Away(answer)) => Self::Away(here, answer),
        }
    }

    /// Returns `true` if somebody was reached already.
    pub(super) fn has_reached(&self) -> bool {
        let (Self::Done(here) | Self::Away(here, _)) = self;
        here.reached > 0
    }

    /// Returns `true` if it is certain that nobody was there.
    pub(super) fn is_offline(&self) -> bool {
        matches!(self, Self::Done(outcome) if *outcome == Outcome::OFFLINE)
    }

    pub(super) async fn outcome(self) -> Outcome {
        match self {
            Self::Done(outcome) => outcome,
            Self::Away(mut sum, answer) => {
                sum += answered(answer).await;
                sum
            }
        }
    }
}

/// The cluster answers in time: it gives up waiting for another gateway after `cluster.timeout`.
async fn answered(answer: impl Future<Output = Result<Outcome, oneshot::error::RecvError>>) -> Outcome {
    answer.await.unwrap_or(Outcome::failed(Elsewhere::Unknown))
}

/// Deliveries about which other gateways have not answered yet.
#[derive(Debug, Default)]
#[must_use = "what became of these deliveries is not known yet"]
pub struct Unanswered {
    deliveries: Vec<(usize, Outcome, oneshot::Receiver<Outcome>)>,
    /// True if a delivery that was answered has reached nobody.
    missed: bool,
}

impl Unanswered {
    pub(super) fn add(&mut self, number: usize, here: Outcome, answer: oneshot::Receiver<Outcome>) {
        self.deliveries.push((number, here, answer));
    }

    /// Creates one delivery about which the other end of the channel has a say.
    #[cfg(test)]
    pub fn waiting_for_one() -> (oneshot::Sender<Outcome>, Self) {
        let (done, answer) = oneshot::channel();
        (done, Self { deliveries: vec![(0, Outcome::OFFLINE, answer)], missed: false })
    }

    /// Returns `true` if all is known.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Waits for the answers. Returns `true` if each of these deliveries has reached somebody. Dropping the future
    /// loses nothing.
    pub async fn all_reached(&mut self) -> bool {
        while let Some((_, here, answer)) = self.deliveries.last_mut() {
            // If somebody here was reached, the others cannot change the answer.
            self.missed |= here.reached == 0 && answered(answer).await.reached == 0;
            self.deliveries.pop();
        }
        !self.missed
    }

    /// Waits for the answers. Passes what became of each delivery to `each`, with its number.
    pub async fn answers(self, mut each: impl FnMut(usize, Outcome)) {
        for (number, mut outcome, answer) in self.deliveries {
            outcome += answered(answer).await;
            each(number, outcome);
        }
    }
}
