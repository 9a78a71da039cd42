//! What all threads touch with every message, split so that each has a part of its own: processors that write to the
//! same cache line wait for each other.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Parts of what is split. Threads share them when there are more.
const PARTS: usize = 16;

/// Something in parts, each in cache lines of its own: two of them, since they are fetched in pairs.
#[derive(Debug, Default)]
pub struct Striped<T>([Part<T>; PARTS]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Part<T>(T);

impl<T> Striped<T> {
    /// The part of the thread that asks.
    pub fn own(&self) -> &T {
        &self.0[own()].0
    }

    /// All parts, that of the thread that asks first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (before, from) = self.0.split_at(own());
        from.iter().chain(before).map(|part| &part.0)
    }
}

/// A number that all threads add to.
pub type Sum = Striped<AtomicU64>;

impl Sum {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self([const { Part(AtomicU64::new(0)) }; PARTS])
    }

    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.own().fetch_add(count, Relaxed);
    }

    /// What has been added so far.
    pub fn get(&self) -> u64 {
        self.iter().map(|part| part.load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Which part is the thread's own.
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
