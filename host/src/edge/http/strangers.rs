//! The connections that have not sent a token.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The connections that have not sent a token, oldest first. Each may send one request, so the oldest one has done
/// nothing for the longest time.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<VecDeque<Arc<CancellationToken>>>);

impl Strangers {
    pub(super) fn enter(&self) -> Arc<CancellationToken> {
        let cut = Arc::new(CancellationToken::new());
        self.0.lock().push_back(cut.clone());
        cut
    }

    pub(super) fn leave(&self, cut: &Arc<CancellationToken>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, cut));
    }

    pub(super) fn cut_longest(&self) {
        if let Some(cut) = self.0.lock().pop_front() {
            cut.cancel();
        }
    }
}
