//! Clients that exchange messages while a test misuses the gateway. They fail the test if they notice anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hotgate_tests::{Client, Gateway};
use tokio::task::JoinSet;

/// The longest delay that a test allows. The promise is 50 ms on an idle machine; here other tests run at the same
/// time.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// Pairs of clients of the fixture plugin. In each round, each client sends one message to the other.
pub(crate) struct Bystanders {
    stop: Arc<AtomicBool>,
    pairs: JoinSet<Noticed>,
}

/// The result of a pair.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    /// The number of messages. Each has arrived once, in order, at the right client.
    pub(crate) messages: u32,
    /// The longest time that a message took.
    pub(crate) slowest: Duration,
}

impl Bystanders {
    /// Logs in the clients and starts their messages.
    pub(crate) async fn watch(gateway: &Gateway, pairs: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for pair in 0..pairs {
            let uids = [format!("bystander-{pair}-a"), format!("bystander-{pair}-b")];
            let clients = [gateway.enter(&uids[0]).await, gateway.enter(&uids[1]).await];
            set.spawn(converse(clients, uids, Arc::clone(&stop)));
        }
        Self { stop, pairs: set }
    }

    /// Stops the clients.
    ///
    /// # Panics
    /// When a message was lost, doubled, overtaken or changed, or a connection was closed.
    pub(crate) async fn stop(mut self) -> Noticed {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Noticed::default();
        while let Some(pair) = self.pairs.join_next().await {
            let pair = pair.expect("bystanders notice nothing");
            assert!(pair.messages > 0);
            all.messages += pair.messages;
            all.slowest = all.slowest.max(pair.slowest);
        }
        all
    }
}

async fn converse(mut clients: [Client; 2], uids: [String; 2], stop: Arc<AtomicBool>) -> Noticed {
    let mut noticed = Noticed::default();
    for round in 0.. {
        for (from, to) in [(0, 1), (1, 0)] {
            let begin = Instant::now();
            clients[from].send(format!("to {} {round}", uids[to])).await;
            clients[to].expect(round.to_string()).await;
            noticed.messages += 1;
            noticed.slowest = noticed.slowest.max(begin.elapsed());
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for client in clients {
        client.close().await;
    }
    noticed
}
