//! The host's side of one instance: its state, and the functions that the plugin imports.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable, WasmStr};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::ResolveAddressStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, Network};
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxView, WasiView};

use crate::base::message::ConnectionId;
use crate::hub::everywhere;
use crate::hub::registry::Registry;
use crate::plugin::contract::logging::Level;
use crate::plugin::contract::{directory, logging, types};
use crate::plugin::runtime::environment::{Environment, Surroundings};
use crate::plugin::runtime::limits::Limiter;
use crate::plugin::runtime::log::stdio::Output;
use crate::plugin::runtime::log::{GuestLog, InstanceLog};
use crate::plugin::runtime::memory::Holding;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::runtime::turns::{SlowCalls, Turns};

/// Most random bytes of one request.
pub(crate) const MAX_RANDOM: u64 = 64 << 10;

/// Most members of a group that one request may list, so that a large group does not hold up other calls.
const MAX_MEMBERS: usize = 100_000;

/// How long other gateways may take to answer a plugin. A call that waited longer for one that stands still would miss
/// its own deadline, and the plugin would be blamed for it.
const ELSEWHERE: Duration = Duration::from_millis(100);

/// The host's side of one instance.
pub(crate) struct Host {
    wasi: WasiCtx,
    resources: ResourceTable,
    /// The registry of connections, for routers only: an authenticator need not know who is connected.
    registry: Option<Arc<Registry>>,
    log: Arc<InstanceLog>,
    stdout: Output,
    stderr: Output,
    pub(crate) limiter: Limiter,
    pub(crate) turns: Arc<Turns>,
    /// When the running call must have ended.
    pub(crate) deadline: Instant,
    /// Bytes of the instance's stack.
    pub(crate) stack: usize,
}

impl Host {
    pub(crate) fn new(
        spec: &Spec,
        log: &Arc<GuestLog>,
        environment: &Environment,
        slow_calls: Arc<SlowCalls>,
        holding: Holding,
    ) -> Self {
        let log = Arc::new(InstanceLog::new(log.clone(), &spec.limits));
        let turns = Turns::new(spec.queue.clone(), slow_calls);
        let stdout = Output::new(log.clone(), turns.clone(), Level::Info);
        let stderr = Output::new(log.clone(), turns.clone(), Level::Warn);
        // The plugin inherits nothing and opens nothing: no files, no sockets, no arguments, no environment but the
        // settings.
        let mut wasi = WasiCtx::builder();
        for (name, value) in environment.values.iter() {
            wasi.env(name, value);
        }
        // No unconnected sockets either: each would be a file descriptor.
        wasi.allow_tcp(false).allow_udp(false);
        let Surroundings { clock, random } = spec.surroundings;
        if let Some(time) = clock {
            wasi.wall_clock(Standing(time));
        }
        if let Some(seed) = random {
            wasi.secure_random(StdRng::seed_from_u64(seed));
            wasi.insecure_random(StdRng::seed_from_u64(seed)).insecure_random_seed(seed.into());
        }
        let wasi = wasi.stdout(stdout.clone()).stderr(stderr.clone()).max_random_size(MAX_RANDOM).build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(spec.limits.handles);
        Self {
            wasi,
            resources,
            registry: spec.roles.router.then(|| spec.registry.clone()),
            log,
            stdout,
            stderr,
            limiter: Limiter::new(&spec.limits, holding),
            turns,
            deadline: Instant::now(),
            stack: spec.stack,
        }
    }

    /// Begins a call that must have ended by `deadline`.
    pub(crate) fn begin_call(&mut self, deadline: Instant, connection: Option<ConnectionId>) {
        self.deadline = deadline;
        self.limiter.begin_call();
        self.log.begin_call(deadline, connection);
    }

    /// Ends the call. Returns what the plugin wrote to stderr during the call.
    pub(crate) fn end_call(&self) -> String {
        self.stdout.end_call();
        let words = self.stderr.end_call();
        self.log.end_call();
        words
    }

    /// Begins a function of the host that handles this many bytes: counts the bytes and, like code that loops, takes
    /// turns.
    async fn enter(&mut self, bytes: usize) -> Result<()> {
        self.log.take(bytes)?;
        if !self.turns.may_go_on(Instant::now()) {
            self.turns.clone().next_turn().await;
        }
        Ok(())
    }

    fn registry(&self) -> Result<&Registry> {
        self.registry.as_deref().ok_or_else(|| wasmtime::format_err!("only routers may use the directory"))
    }
}

/// Links everything that a plugin may import. Six packages of WASI 0.2 are there as a whole (cli, clocks, filesystem,
/// io, random, sockets), because the runtimes of JavaScript and Python import all of them. The context above decides
/// what a plugin may do.
pub(crate) fn link(linker: &mut Linker<Host>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    refuse_lookups(linker)?;
    linker.allow_shadowing(false);
    types::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    logging::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    directory::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)
}

/// Replaces WASI's lookup of names: no plugin may look up a name. A name, which may be long, is not even copied.
fn refuse_lookups(linker: &mut Linker<Host>) -> Result<()> {
    type Answer = std::result::Result<Resource<ResolveAddressStream>, ErrorCode>;
    linker
        .instance("wasi:sockets/ip-name-lookup@0.2.12")?
        .func_wrap("resolve-addresses", |_, (_network, _name): (Resource<Network>, WasmStr)| {
            Ok((Answer::Err(ErrorCode::AccessDenied),))
        })
}

/// A wall clock that stands still.
struct Standing(SystemTime);

impl HostWallClock for Standing {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl types::Host for Host {}

impl logging::Host for Host {
    async fn log(&mut self, level: Level, message: String) -> Result<()> {
        self.enter(message.len()).await?;
        self.log.line(level, message.as_bytes());
        Ok(())
    }
}

impl directory::Host for Host {
    async fn connections(&mut self, uid: String) -> Result<u32> {
        self.enter(uid.len()).await?;
        Ok(self.registry()?.connection_count(&uid))
    }

    async fn members(&mut self, group: String, limit: u32) -> Result<Vec<String>> {
        self.enter(group.len()).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_MEMBERS);
        let registry = self.registry()?;
        let here = registry.uids_in_group(&group, limit, |_| true);
        let members = everywhere::members(registry, here, &group, limit, ELSEWHERE, |_| true).await;
        Ok(members.uids.into_iter().map(String::from).collect())
    }

    async fn is_member(&mut self, connection: u64, group: String) -> Result<bool> {
        self.enter(group.len()).await?;
        Ok(everywhere::is_member(self.registry()?, ConnectionId(connection), &group, ELSEWHERE).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_lookup_of_wasi_that_is_refused() {
        let mut linker = Linker::new(&wasmtime::Engine::default());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        assert!(refuse_lookups(&mut linker).is_err(), "WASI defines the lookup under another name");
    }
}
