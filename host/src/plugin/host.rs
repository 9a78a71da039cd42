//! What a plugin finds around it: the functions it imports, and the state of the host's side of one instance.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::logging::Level;
use super::bindings::{directory, logging, types};
use super::generation::Generation;
use super::guest_log::{GuestLog, Output};
use super::lane::Turns;
use super::limits::Limiter;
use crate::message::ConnectionId;
use crate::registry::Registry;

/// Streams, pollables and the like that one instance may hold.
const RESOURCES: usize = 1000;

/// Random bytes of one request.
const MAX_RANDOM: u64 = 64 << 10;

/// Members of a group that one request may list, so that a large group does not hold up the call of somebody else.
const MAX_MEMBERS: usize = 100_000;

/// The host's side of one instance.
pub(super) struct Host {
    wasi: WasiCtx,
    resources: ResourceTable,
    registry: Arc<Registry>,
    log: Arc<GuestLog>,
    stdout: Output,
    stderr: Output,
    pub(super) limiter: Limiter,
    pub(super) turns: Arc<Turns>,
    /// When the call that is running must have ended.
    pub(super) deadline: Instant,
}

impl Host {
    pub(super) fn new(generation: &Generation) -> Self {
        let spec = generation.spec();
        let stdout = Output::new(generation.log().clone(), Level::Info);
        let stderr = Output::new(generation.log().clone(), Level::Warn);
        // Nothing is inherited and nothing opened: no files, no sockets, no arguments, no environment but the settings.
        let mut wasi = WasiCtx::builder();
        for (name, value) in &generation.given().values {
            wasi.env(name, value);
        }
        let wasi = wasi.stdout(stdout.clone()).stderr(stderr.clone()).max_random_size(MAX_RANDOM).build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES);
        Self {
            wasi,
            resources,
            registry: spec.runtime.registry.clone(),
            log: generation.log().clone(),
            stdout,
            stderr,
            limiter: Limiter::new(spec.limits.memory),
            turns: Turns::new(spec.runtime.lane.clone(), generation.pace().clone()),
            deadline: Instant::now(),
        }
    }

    /// The end of a call. Returns what the plugin wrote to stderr meanwhile.
    pub(super) fn end_call(&self) -> String {
        self.stdout.end_call();
        self.stderr.end_call()
    }
}

/// Everything that a plugin may import. All of WASI 0.2 is there, because the runtimes of JavaScript and Python import it
/// whole; what it may do is decided by the context above.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    types::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    logging::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    directory::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl types::Host for Host {}

impl logging::Host for Host {
    fn log(&mut self, level: Level, message: String) {
        self.log.line(level, message.as_bytes());
    }
}

impl directory::Host for Host {
    fn connections(&mut self, uid: String) -> u32 {
        self.registry.connections(&uid)
    }

    fn members(&mut self, group: String, limit: u32) -> Vec<String> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_MEMBERS);
        self.registry.members(&group, limit).into_iter().map(String::from).collect()
    }

    fn is_member(&mut self, connection: u64, group: String) -> bool {
        self.registry.is_member(ConnectionId(connection), &group)
    }
}
