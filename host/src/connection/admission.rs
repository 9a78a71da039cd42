//! How many connections there may be: in all, of one address, and not yet authenticated.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::config::LimitsConfig;

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// `limits.connections`
    #[error("too many connections (limits.connections)")]
    Connections,
    /// `limits.connections_per_address`
    #[error("too many connections from this address (limits.connections_per_address)")]
    PerAddress,
    /// `limits.unauthenticated`
    #[error("too many connections that are not authenticated yet (limits.unauthenticated)")]
    Unauthenticated,
}

/// Counts connections against the limits.
#[derive(Debug)]
pub struct Admission {
    limits: LimitsConfig,
    connections: AtomicUsize,
    unauthenticated: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
    authenticated: bool,
}

impl Admission {
    /// Nobody is connected yet.
    pub fn new(limits: LimitsConfig) -> Self {
        Self {
            limits,
            connections: AtomicUsize::new(0),
            unauthenticated: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
    }

    /// Takes a place for a connection that has just been accepted.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Refusal> {
        if !take(&self.connections, self.limits.connections) {
            return Err(Refusal::Connections);
        }
        if !take(&self.unauthenticated, self.limits.unauthenticated) {
            self.connections.fetch_sub(1, Relaxed);
            return Err(Refusal::Unauthenticated);
        }
        Ok(Permit { admission: self.clone(), address: None, authenticated: false })
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// How many of them are not authenticated yet.
    pub fn unauthenticated(&self) -> usize {
        self.unauthenticated.load(Relaxed)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Counts the connection for its client's address, once that is known.
    ///
    /// # Errors
    /// [`Refusal::PerAddress`]
    pub fn count_for(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let mut addresses = self.admission.addresses();
        let count = addresses.entry(address).or_default();
        if *count >= self.admission.limits.connections_per_address {
            return Err(Refusal::PerAddress);
        }
        *count += 1;
        self.address = Some(address);
        Ok(())
    }

    /// Says that the connection is authenticated now.
    pub fn authenticated(&mut self) {
        if !std::mem::replace(&mut self.authenticated, true) {
            self.admission.unauthenticated.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.authenticated();
        if let Some(address) = self.address {
            let mut addresses = self.admission.addresses();
            if let Some(count) = addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&address);
                }
            }
        }
        self.admission.connections.fetch_sub(1, Relaxed);
    }
}

fn take(counter: &AtomicUsize, limit: usize) -> bool {
    counter.fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_given_back() {
        let limits =
            LimitsConfig { connections: 3, connections_per_address: 1, unauthenticated: 2, text_connections: 1 };
        let admission = Arc::new(Admission::new(limits));
        let address = IpAddr::from([192, 0, 2, 1]);

        let mut first = admission.admit().unwrap();
        first.count_for(address).unwrap();
        let mut second = admission.admit().unwrap();
        assert_eq!(second.count_for(address), Err(Refusal::PerAddress));
        assert_eq!(admission.admit().unwrap_err(), Refusal::Unauthenticated);
        first.authenticated();
        let third = admission.admit().unwrap();
        assert_eq!(admission.admit().unwrap_err(), Refusal::Connections);

        drop((first, second, third));
        assert_eq!(admission.connections.load(Relaxed), 0);
        assert_eq!(admission.unauthenticated.load(Relaxed), 0);
        assert!(admission.addresses().is_empty());
    }
}
