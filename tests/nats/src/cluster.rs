//! A cluster of NATS servers.

use std::collections::HashSet;
use std::sync::Arc;

use tempfile::TempDir;

use crate::{Nats, ServerSetup, eventually, nats_server};

/// A cluster of NATS servers, each with routes to all others.
#[derive(Debug)]
pub struct NatsCluster {
    /// The servers.
    pub servers: Vec<Nats>,
}

impl NatsCluster {
    /// Starts servers with files in this folder, and waits until all know each other. Returns `None` if the test must
    /// be skipped.
    ///
    /// # Panics
    /// When the cluster is not complete in time.
    pub async fn start(folder: TempDir, setups: Vec<ServerSetup>) -> Option<Self> {
        let program = nats_server().await?;
        let folder = Arc::new(folder);
        let mut servers = Vec::new();
        for setup in setups {
            servers.push(Nats::start(program.clone(), folder.clone(), setup).await);
        }
        let cluster = Self { servers };
        cluster.complete().await;
        Some(cluster)
    }

    /// The addresses for clients, as URLs without TLS.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Nats::url).collect()
    }

    /// The server with this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn server(&mut self, name: &str) -> &mut Nats {
        self.servers.iter_mut().find(|server| server.name() == name).expect("a server of the cluster")
    }

    /// Waits until each server has routes to all others.
    ///
    /// # Panics
    /// When it has not in time.
    pub async fn complete(&self) {
        for server in &self.servers {
            eventually("routes to all other servers", async || {
                let answer = server.ask("/routez").await;
                let routes = answer["routes"].as_array().map_or(&[][..], Vec::as_slice);
                let peers = routes.iter().filter_map(|route| route["remote_name"].as_str()).collect::<HashSet<_>>();
                peers.len() + 1 == self.servers.len()
            })
            .await;
        }
    }
}
