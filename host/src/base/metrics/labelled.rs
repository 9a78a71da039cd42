//! Counters whose labels have values that are known at run time only.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Counts by the value of one label. The caller bounds how many values there are: they are names in the configuration.
#[derive(Debug)]
pub struct Labelled(Mutex<BTreeMap<Box<str>, u64>>);

impl Labelled {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Adds 1 for this value.
    pub fn increment(&self, value: &str) {
        let mut counts = self.0.lock();
        match counts.get_mut(value) {
            Some(count) => *count += 1,
            None => _ = counts.insert(value.into(), 1),
        }
    }

    /// Returns the count for all values together.
    pub fn total(&self) -> u64 {
        self.0.lock().values().sum()
    }

    pub(super) fn counts(&self) -> Vec<(Box<str>, u64)> {
        self.0.lock().iter().map(|(value, count)| (value.clone(), *count)).collect()
    }
}

/// Counts requests by their route and the status of the answer. Both have few values.
#[derive(Debug)]
pub struct Requests(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl Requests {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Adds 1 for this route and status.
    pub fn increment(&self, route: &'static str, status: u16) {
        *self.0.lock().entry((route, status)).or_default() += 1;
    }

    pub(super) fn counts(&self) -> Vec<((&'static str, u16), u64)> {
        self.0.lock().iter().map(|(key, count)| (*key, *count)).collect()
    }
}
