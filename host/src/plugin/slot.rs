//! A slot: the place of one plugin, and the generation that is live in it.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::info;

use super::bindings::Roles;
use super::generation::Generation;
use super::spec::Spec;
use super::{Runtime, builtin};
use crate::config::{PluginConfig, PluginSource};
use crate::metrics::METRICS;

/// How often slots are looked after, and how long an instance may be idle before it is given up.
const ROUND: Duration = Duration::from_secs(2);
const LONGEST_IDLE: Duration = Duration::from_secs(10);

/// The SHA-256 of a component. Settings are no part of it: they stay the same for as long as the process runs, and their
/// hash in the log would help to guess them. Displayed short, as the log does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(code: &[u8]) -> Self {
        Self(Sha256::digest(code).into())
    }

    /// All 64 digits.
    pub fn full(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full()[..12])
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What serves in a slot.
#[derive(Debug, Clone)]
pub struct PluginStatus {
    /// What the plugin does here: `authenticator`, `authenticator-2`, `router`, `authenticator+router`.
    pub slot: String,
    /// The stem of its file's name, or the name of the built-in plugin.
    pub plugin: String,
    /// Where its component comes from: a path or `builtin:NAME`.
    pub source: String,
    /// Of its component.
    pub digest: Digest,
    /// Counts the components that served here, from 1.
    pub generation: u64,
}

/// The place of one plugin. A call takes the live generation when it begins and
/// finishes on it, whatever is swapped meanwhile.
pub struct Slot {
    spec: Arc<Spec>,
    live: ArcSwap<Generation>,
    /// Held during a swap.
    swapping: Mutex<()>,
}

impl Slot {
    /// Loads the plugin of a slot for the first time.
    ///
    /// # Errors
    /// When it cannot be read, compiled or linked, is not what the slot needs, or refuses to serve. The error names the
    /// slot and the source.
    pub async fn load(
        name: String,
        plugin: &PluginConfig,
        roles: Roles,
        runtime: Arc<Runtime>,
    ) -> anyhow::Result<Arc<Self>> {
        let spec = Arc::new(Spec::new(name, plugin, roles, runtime));
        let load = async {
            let code = read(&plugin.source, plugin.limits.max_component)?;
            let digest = Digest::of(&code);
            let component = spec.runtime.compiler.compile(&spec.runtime.engine, code).await?;
            Generation::verify(&spec, 1, digest, &component).await
        };
        let generation =
            load.await.with_context(|| format!("{}: cannot load {}", spec.slot, describe(&plugin.source)))?;
        Ok(Arc::new(Self { live: ArcSwap::from_pointee(generation), spec, swapping: Mutex::default() }))
    }

    /// The generation that serves calls that begin now.
    pub(super) fn live(&self) -> Arc<Generation> {
        self.live.load_full()
    }

    /// What serves.
    pub fn status(&self) -> PluginStatus {
        let live = self.live.load();
        PluginStatus {
            slot: self.spec.slot.clone(),
            plugin: self.spec.plugin.clone(),
            source: describe(&self.spec.source),
            digest: live.digest(),
            generation: live.number(),
        }
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Puts a new component in the place of the live one if it passes all checks, and else leaves things as they are.
    pub(super) async fn swap(&self, code: Vec<u8>, digest: Digest) -> anyhow::Result<()> {
        let _swapping = self.swapping.lock().await;
        let begun = Instant::now();
        let number = self.live.load().number() + 1;
        let component = self.spec.runtime.compiler.compile(&self.spec.runtime.engine, code).await?;
        let generation = Generation::verify(&self.spec, number, digest, &component).await?;
        let old = self.live.swap(Arc::new(generation));
        old.retire();
        METRICS.plugin_swap_seconds.observe(begun.elapsed());
        let Spec { slot, plugin, .. } = &*self.spec;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(slot, plugin, generation = number, %digest, took_ms, "plugin swapped");
        Ok(())
    }
}

/// Gives back what slots do not need any more, and says what is left to say, for as long as it is polled.
pub(super) async fn look_after(slots: Vec<Arc<Slot>>) {
    loop {
        sleep(ROUND).await;
        for slot in &slots {
            let live = slot.live();
            live.flush_log();
            live.shrink(LONGEST_IDLE);
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.status(), f)
    }
}

/// Where a component comes from, as the settings file has it.
fn describe(source: &PluginSource) -> String {
    match source {
        PluginSource::Builtin(name) => format!("builtin:{name}"),
        PluginSource::File(path) => path.display().to_string(),
    }
}

fn read(source: &PluginSource, limit: usize) -> anyhow::Result<Vec<u8>> {
    match source {
        PluginSource::File(path) => read_file(path, limit),
        PluginSource::Builtin(name) => match builtin::component(name) {
            Some(code) => Ok(code.to_vec()),
            None => bail!("there is no such plugin; built in are {}", builtin::names()),
        },
    }
}

/// Reads a file whole, unless it is larger than the limit.
pub(super) fn read_file(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(anyhow!("it is not a file"));
    }
    let mut code = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut code)?;
    if code.len() > limit {
        bail!("it is larger than {limit} bytes (limits.max_component)");
    }
    Ok(code)
}
