//! Lists of connections: of one gateway, and merged.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::message::ConnectionId;
use crate::hub::registry::Peer;

/// The most bytes of the connections that one gateway lists for another one. With what is around them, they fit an
/// [answer](crate::hub::cluster::questions::LONGEST).
const LARGEST_LIST: usize = 900 << 10;

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Connection {
    #[serde(with = "text")]
    id: ConnectionId,
    /// The number of its gateway. Missing without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u16>,
    uid: String,
    address: String,
    since: String,
    groups: usize,
    outbox_bytes: usize,
}

/// Ids exceed 2^53, the largest number that every reader of JSON takes as it is. So they are text.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::base::message::ConnectionId;

    pub(super) fn serialize<S: Serializer>(id: &ConnectionId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ConnectionId, D::Error> {
        String::deserialize(deserializer)?.parse().map(ConnectionId).map_err(de::Error::custom)
    }
}

/// Some connections: by ascending id, or those with the most queued bytes first.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct List {
    connections: Vec<Connection>,
    /// True if there may be others with larger ids.
    pub(super) more: bool,
}

impl List {
    /// Lists connections of this gateway, which were asked for with this limit.
    pub(super) fn of(peers: &[Arc<Peer>], node: Option<u16>, limit: usize) -> Self {
        let connection = |peer: &Arc<Peer>| Connection {
            id: peer.id,
            node,
            uid: peer.uid.to_string(),
            address: peer.address().to_string(),
            since: humantime::format_rfc3339_seconds(peer.since()).to_string(),
            groups: peer.groups(),
            outbox_bytes: peer.outbox.queued_bytes().unwrap_or(0),
        };
        Self { connections: peers.iter().map(connection).collect(), more: peers.len() == limit }
    }

    /// Cuts the list so that it fits an answer to another gateway.
    pub(super) fn cut(self) -> Self {
        let Self { mut connections, mut more } = self;
        let mut size = 0;
        let too_many = connections.iter().position(|connection| {
            size += serde_json::to_vec(connection).map_or(LARGEST_LIST, |text| text.len() + 1);
            size > LARGEST_LIST
        });
        if let Some(fitting) = too_many {
            connections.truncate(fitting);
            more = true;
        }
        Self { connections, more }
    }

    /// Keeps what can be in the list of this gateway, if only ids above `after` were asked for.
    pub(super) fn checked(mut self, node: u16, after: ConnectionId) -> Self {
        self.connections.retain(|connection| connection.id > after && connection.id.node() == node);
        self.connections.sort_by_key(|connection| connection.id);
        self.connections.iter_mut().for_each(|connection| connection.node = Some(node));
        self.more &= !self.connections.is_empty();
        self
    }

    /// Merges the lists of several gateways. What comes after the end of a list that has more is left out: it is on
    /// the next page.
    pub(super) fn merge(lists: impl IntoIterator<Item = Self>, limit: usize) -> Self {
        let (mut all, mut end) = (Self::default(), None);
        for list in lists {
            if list.more {
                let last = list.connections.last().map(|last| last.id);
                end = end.into_iter().chain(last).min();
            }
            all.connections.extend(list.connections);
        }
        all.connections.retain(|connection| end.is_none_or(|end| connection.id <= end));
        all.connections.sort_by_key(|connection| connection.id);
        all.more = end.is_some() || all.connections.len() >= limit;
        all.connections.truncate(limit);
        all
    }

    /// Merges lists of the connections with the most queued bytes.
    pub(super) fn slowest(lists: Vec<Self>, limit: usize) -> Self {
        let mut connections: Vec<_> = lists.into_iter().flat_map(|list| list.connections).collect();
        connections.sort_by_key(|connection| (Reverse(connection.outbox_bytes), connection.id));
        connections.truncate(limit);
        Self { connections, more: false }
    }

    /// Returns the page. `missing` are the gateways that did not answer, in a cluster.
    pub(super) fn page(&self, missing: Option<Vec<u16>>) -> Value {
        let last = self.connections.last().filter(|_| self.more);
        let mut page = json!({ "connections": self.connections, "next": last.map(|last| last.id.to_string()) });
        if let Some(missing) = missing {
            page["missing"] = missing.into();
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u64, number: u64) -> u64 {
        node << 54 | number
    }

    fn list(ids: &[u64], more: bool) -> List {
        let connection = |&id: &u64| Connection {
            id: ConnectionId(id),
            node: Some(ConnectionId(id).node()),
            uid: "anna".to_owned(),
            address: "192.0.2.1:5".to_owned(),
            since: "2026-01-02T03:04:05Z".to_owned(),
            groups: 0,
            outbox_bytes: 0,
        };
        List { connections: ids.iter().map(connection).collect(), more }
    }

    #[test]
    fn lists_are_merged_in_the_order_of_ids() {
        let (one, two) = ([id(1, 5), id(1, 9)], [id(2, 1), id(2, 2)]);
        let all = [one, two].concat();
        let merge = |more: [bool; 2], limit| List::merge([list(&two, more[1]), list(&one, more[0])], limit);
        assert_eq!(merge([false; 2], 9), list(&all, false));
        assert_eq!(merge([false; 2], 4), list(&all, true), "there may be more");
        assert_eq!(merge([false; 2], 3), list(&all[..3], true));
        assert_eq!(merge([false, true], 9), list(&all, true));
        assert_eq!(merge([true, false], 9), list(&one, true), "others of gateway 1 come first");
        let page = merge([true, false], 9).page(Some(vec![3]));
        assert_eq!((page["next"].as_str(), &page["missing"]), (Some(id(1, 9).to_string().as_str()), &json!([3])));
        assert_eq!(List::merge([], 9).page(None), json!({ "connections": [], "next": null }));
    }

    #[test]
    fn what_another_gateway_cannot_have_is_left_out() {
        let given = list(&[id(3, 1), id(2, 9), id(2, 5), id(2, 4)], true);
        assert_eq!(given.checked(2, ConnectionId(id(2, 4))), list(&[id(2, 5), id(2, 9)], true));
        assert!(!list(&[id(3, 1)], true).checked(2, ConnectionId(0)).more, "a page without an end would have no next");
    }

    #[test]
    fn the_slowest_of_several_lists_come_first() {
        let with = |ids: &[u64], bytes: &[usize]| {
            let mut list = list(ids, false);
            list.connections.iter_mut().zip(bytes).for_each(|(connection, bytes)| connection.outbox_bytes = *bytes);
            list
        };
        let lists = || vec![with(&[id(1, 5), id(1, 6)], &[9, 0]), with(&[id(2, 1), id(2, 2)], &[7, 9])];
        let ids = |list: List| list.connections.iter().map(|connection| connection.id.0).collect::<Vec<_>>();
        assert_eq!(ids(List::slowest(lists(), 9)), [id(1, 5), id(2, 2), id(2, 1), id(1, 6)]);
        assert_eq!(ids(List::slowest(lists(), 2)), [id(1, 5), id(2, 2)]);
    }

    #[test]
    fn a_list_that_is_too_long_is_cut_and_says_so() {
        let long = |count: usize| {
            let mut list = list(&vec![id(1, 1); count], false);
            list.connections.iter_mut().for_each(|connection| connection.uid = "x".repeat(4096));
            list.cut()
        };
        assert_eq!((long(100).connections.len(), long(100).more), (100, false));
        let cut = long(1000);
        assert!(cut.more && (200..240).contains(&cut.connections.len()), "{}", cut.connections.len());
        assert!(serde_json::to_vec(&cut).unwrap().len() <= crate::hub::cluster::questions::LONGEST);
    }
}
