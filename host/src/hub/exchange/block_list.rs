//! Tells a gateway that joins, or answers again, which uids this one keeps out.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::hub::blocks::MAX_BLOCKS;
use crate::hub::cluster::handle::Cluster;
use crate::hub::cluster::id::NodeId;
use crate::hub::cluster::parcel::encode_blocks;
use crate::hub::everywhere::answer;
use crate::hub::registry::Registry;

/// The blocks that are on their way at a time: some 300 KB.
const AT_ONCE: usize = 1000;

/// The tasks that send blocks.
pub(super) struct BlockList {
    registry: Arc<Registry>,
    cluster: Arc<Cluster>,
    tasks: JoinSet<()>,
}

impl BlockList {
    pub(super) fn new(registry: Arc<Registry>, cluster: Arc<Cluster>) -> Self {
        Self { registry, cluster, tasks: JoinSet::new() }
    }

    /// Sends all blocks to a gateway. If it goes away meanwhile, it gets them anew when it answers again.
    pub(super) fn send(&mut self, to: NodeId) {
        while self.tasks.try_join_next().is_some() {}
        let (registry, cluster) = (self.registry.clone(), self.cluster.clone());
        self.tasks.spawn(async move {
            for blocks in registry.blocks.list(MAX_BLOCKS, |_| true).chunks(AT_ONCE) {
                let sent = cluster.send_to_node(to, encode_blocks(blocks));
                if answer(Some(sent)).await.elsewhere.is_some() {
                    return;
                }
            }
        });
    }
}
