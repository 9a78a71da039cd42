//! Values that all threads change with every message, split into parts so that threads rarely share one: processors
//! that write to the same cache line wait for each other.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The number of parts. If there are more threads, several threads share a part.
const PARTS: usize = 16;

/// A value in parts. Each part has two cache lines of its own, since processors fetch cache lines in pairs.
#[derive(Debug, Default)]
pub struct Striped<T>([Part<T>; PARTS]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Part<T>(T);

impl<T> Striped<T> {
    /// Returns the calling thread's part.
    pub fn own(&self) -> &T {
        &self.0[own()].0
    }

    /// Iterates over all parts, beginning with the calling thread's.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (before, from) = self.0.split_at(own());
        from.iter().chain(before).map(|part| &part.0)
    }
}

/// A sum that all threads add to.
pub type Sum = Striped<AtomicU64>;

impl Sum {
    /// Creates a sum of 0.
    pub const fn new() -> Self {
        Self([const { Part(AtomicU64::new(0)) }; PARTS])
    }

    /// Adds `count` to the sum.
    pub fn add(&self, count: u64) {
        self.own().fetch_add(count, Relaxed);
    }

    /// Returns the sum.
    pub fn get(&self) -> u64 {
        self.iter().map(|part| part.load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Returns the index of the calling thread's part.
fn own() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = THREADS.fetch_add(1, Relaxed) % PARTS;
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_is_summed_up() {
        let sum = Sum::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * PARTS {
                scope.spawn(|| (0..1000).for_each(|_| sum.add(1)));
            }
        });
        assert_eq!(sum.get(), 2000 * PARTS as u64);
        assert_eq!(sum.iter().count(), PARTS);
        assert!(std::ptr::eq(sum.iter().next().unwrap(), sum.own()));
    }
}
