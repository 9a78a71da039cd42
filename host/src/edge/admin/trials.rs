//! The WebSocket clients of operators, by their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::edge::http::problem::{Problem, Reason};

/// The most orders that wait for one client.
const WAITING: usize = 16;

/// What a client is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Send this text.
    Send(String),
    /// Close the connection.
    Close,
}

/// The clients that are connected. There are no more of them than streams.
#[derive(Debug, Default)]
pub(super) struct Trials(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    clients: BTreeMap<u64, mpsc::Sender<Order>>,
    /// The clients so far.
    opened: u64,
}

/// One of the clients. It is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) number: u64,
    pub(super) orders: mpsc::Receiver<Order>,
    all: Arc<Mutex<State>>,
}

impl Trials {
    /// Adds a client.
    pub(super) fn add(&self) -> Trial {
        let (sender, orders) = mpsc::channel(WAITING);
        let mut state = self.0.lock();
        state.opened += 1;
        let number = state.opened;
        state.clients.insert(number, sender);
        Trial { number, orders, all: self.0.clone() }
    }

    /// Gives a client an order.
    ///
    /// # Errors
    /// If there is no such client, or too many orders wait for it.
    pub(super) fn order(&self, number: u64, order: Order) -> Result<(), Problem> {
        let client = self.0.lock().clients.get(&number).cloned();
        match client.map(|client| client.try_send(order)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => {
                Err(Problem::new(Reason::NotNow, "the client has not sent its earlier messages yet: try again"))
            }
            Some(Err(TrySendError::Closed(_))) | None => {
                Err(Problem::new(Reason::Offline, format_args!("there is no client {number}, or it has ended")))
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.all.lock().clients.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_orders_until_it_ends() {
        let trials = Trials::default();
        let (mut first, second) = (trials.add(), trials.add());
        trials.order(first.number, Order::Send("a".to_owned())).unwrap();
        assert!(matches!(first.orders.try_recv(), Ok(Order::Send(text)) if text == "a"));
        for _ in 0..WAITING {
            trials.order(second.number, Order::Close).unwrap();
        }
        assert_eq!(trials.order(second.number, Order::Close).unwrap_err().reason, Reason::NotNow);
        drop(second);
        assert_eq!(trials.order(2, Order::Close).unwrap_err().reason, Reason::Offline);
        assert_eq!(trials.0.lock().clients.len(), 1);
    }
}
