//! Counts failed calls by client, so that the failures of one client are not taken for failures of all clients.

use std::net::IpAddr;

use crate::base::message::ClientKey;

/// The most clients that are counted separately for one function. If calls fail for more clients, the cause is not one
/// client.
const MAX_CLIENTS: usize = 32;

/// The client or sender that a call is about.
#[derive(Debug, Clone, Copy)]
pub enum Caller {
    /// A client that is not authenticated, at this address. Many clients may share one address.
    Stranger(IpAddr),
    /// An authenticated client.
    Client(ClientKey),
    /// An internal system. It is trusted, so each of its failed calls counts.
    Sender,
}

impl Caller {
    fn key(self) -> Option<ClientKey> {
        match self {
            Self::Stranger(address) => Some(ClientKey::new(address, "")),
            Self::Client(client) => Some(client),
            Self::Sender => None,
        }
    }
}

/// The clients for which calls of one function have failed, and the failures of each.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    clients: Vec<(ClientKey, u64)>,
    senders: u64,
}

/// How the failures of a function are spread over clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spread {
    /// The number of clients, at most `MAX_CLIENTS`. Each failed call of a sender counts as one more client.
    pub(crate) clients: u64,
    /// The failures of the client that has the most failures.
    pub(crate) most: u64,
}

impl Blame {
    /// Counts a failed call for this caller.
    pub(crate) fn add(&mut self, caller: Caller) {
        let Some(client) = caller.key() else {
            self.senders += 1;
            return;
        };
        if let Some((_, failures)) = self.clients.iter_mut().find(|(known, _)| *known == client) {
            *failures += 1;
        } else if self.clients.len() < MAX_CLIENTS {
            self.clients.push((client, 1));
        }
    }

    /// Returns how the failures are spread over clients.
    pub(crate) fn spread(&self) -> Spread {
        let most = self.clients.iter().map(|(_, failures)| *failures).max().unwrap_or(0);
        Spread { clients: self.clients.len() as u64 + self.senders, most }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn spread(callers: &[Caller]) -> Spread {
        let mut blame = Blame::default();
        callers.iter().for_each(|caller| blame.add(*caller));
        blame.spread()
    }

    #[test]
    fn a_client_is_an_address_and_a_uid() {
        let client = |ip: [u8; 4], uid| Caller::Client(ClientKey::new(ip.into(), uid));
        let callers = [
            client([192, 0, 2, 1], "anna"),
            client([192, 0, 2, 1], "anna"),
            client([192, 0, 2, 1], "bob"),
            client([192, 0, 2, 2], "anna"),
        ];
        assert_eq!(spread(&callers), Spread { clients: 3, most: 2 });
    }

    #[test]
    fn a_stranger_is_an_address_whatever_its_port_and_a_network_of_ipv6() {
        let callers = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8::ffff:1]:1"];
        let ip = |address: &str| address.parse::<SocketAddr>().unwrap().ip();
        assert_eq!(spread(&callers.map(|address| Caller::Stranger(ip(address)))), Spread { clients: 3, most: 2 });
    }

    #[test]
    fn each_call_of_a_sender_counts() {
        assert_eq!(spread(&[Caller::Sender; 40]), Spread { clients: 40, most: 0 });
    }

    #[test]
    fn a_crowd_takes_no_memory() {
        let mut blame = Blame::default();
        for uid in 0..10_000 {
            blame.add(Caller::Client(ClientKey::new([192, 0, 2, 1].into(), &uid.to_string())));
        }
        assert_eq!((blame.clients.len(), blame.spread().most), (MAX_CLIENTS, 1));
    }
}
