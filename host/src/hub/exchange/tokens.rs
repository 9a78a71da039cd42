//! Numbers for frames about which NATS says if nobody listens.

use std::collections::VecDeque;

use crate::hub::cluster::id::Incarnation;

/// The latest frames that are remembered. A notice comes within some milliseconds.
const REMEMBERED: usize = 4096;

/// The latest frames with a token: for which gateway, and the node's own number.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    frames: VecDeque<(Incarnation, u64)>,
    /// The number of the first of them.
    first: u64,
}

impl Tokens {
    /// Numbers a frame.
    pub(super) fn add(&mut self, to: Incarnation, token: u64) -> u64 {
        if self.frames.len() == REMEMBERED {
            self.frames.pop_front();
            self.first += 1;
        }
        self.frames.push_back((to, token));
        self.first + self.frames.len() as u64 - 1
    }

    /// Returns whom the frame with this number was for, and the node's number.
    pub(super) fn take(&self, number: u64) -> Option<(Incarnation, u64)> {
        let index = number.checked_sub(self.first)?;
        self.frames.get(usize::try_from(index).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_frames_are_remembered() {
        let mut tokens = Tokens::default();
        let numbers: Vec<_> = (0..5000).map(|token| tokens.add(Incarnation(7), token)).collect();
        assert_eq!(tokens.take(numbers[4999]), Some((Incarnation(7), 4999)));
        assert_eq!(tokens.take(numbers[904]), Some((Incarnation(7), 904)));
        assert_eq!(tokens.take(numbers[903]), None, "too long ago");
        assert_eq!(tokens.take(numbers[4999] + 1), None, "never given out");
    }
}
