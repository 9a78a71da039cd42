//! Follows one client, as it happens: `GET /trace`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::shared::Shared;
use super::streams::{self, Source, push};
use super::visitor::Caller;
use crate::base::message::ConnectionId;
use crate::base::trace::{TRACE, Watch, Watched};
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::{Parameters, Query};

/// No more events are added to a write from this number of bytes on.
const PAGE: usize = 16 << 10;

/// Whom to follow.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    uid: Option<String>,
    connection: Option<u64>,
    address: Option<IpAddr>,
}

impl Parameters for Client {
    const ALLOWED: &'static str = "uid=TEXT, connection=NUMBER or address=IP";
}

/// Shows what happens to the client from now on.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(client): Query<Client>,
) -> Result<Response, Problem> {
    if !shared.has_trace {
        return Err(Problem::new(Reason::Scope, "nobody can be followed, because admin.trace is false"));
    }
    let registry = &shared.served()?.registry;
    let watched = match (client.uid, client.connection, client.address) {
        (Some(uid), None, None) => Watched::Uid(uid.into()),
        (None, Some(id), None) => Watched::Connection(ConnectionId(id)),
        (None, None, Some(address)) => Watched::Address(address.to_canonical()),
        _ => return Err(Problem::bad(format_args!("name one client by {}", Client::ALLOWED))),
    };
    if let (Watched::Connection(id), Some(own)) = (&watched, registry.cluster())
        && own.is_foreign(*id)
    {
        let problem = format_args!("the connection {id} is one of the gateway {}: ask that one", id.node());
        return Err(Problem::new(Reason::Offline, problem));
    }
    let place = streams::place(&shared, &caller)?;
    info!(by = %caller.visitor, peer = %caller.peer.remote, "a client is followed");
    let watch = TRACE.watch(watched.clone());
    // Afterwards, so that no login between the two is missed.
    let open = match &watched {
        Watched::Uid(uid) => registry.of_uid(uid),
        Watched::Connection(id) => registry.connection(*id).into_iter().collect(),
        Watched::Address(_) => Vec::new(),
    };
    for peer in &open {
        watch.follow(peer.id, &peer.uid);
        if registry.connection(peer.id).is_none() {
            // It has ended meanwhile.
            TRACE.forget(peer.id);
        }
    }
    let connections = (!matches!(watched, Watched::Address(_))).then_some(open.len());
    let first = Some(Watching { what: "watching", connections });
    Ok(streams::answer(shared.clone(), caller, place, Following { watch, first }))
}

/// The events of a client.
struct Following {
    watch: Watch,
    /// The first line, until it is written.
    first: Option<Watching>,
}

/// The first line.
#[derive(Serialize)]
struct Watching {
    what: &'static str,
    /// How many connections the client has. Missing for an address: who is connected from there is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<usize>,
}

impl Source for Following {
    async fn next(&mut self, lines: &mut Vec<u8>, quiet: Instant) -> bool {
        if let Some(first) = self.first.take() {
            push(lines, &first);
            return true;
        }
        if let Ok(mut event) = timeout_at(quiet, self.watch.lines.recv()).await {
            while let Some(line) = event {
                lines.extend_from_slice(line.as_bytes());
                lines.push(b'\n');
                event = (lines.len() < PAGE).then(|| self.watch.lines.try_recv().ok()).flatten();
            }
        }
        true
    }
}
