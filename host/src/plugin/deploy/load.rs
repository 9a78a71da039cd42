//! Loads the first generation of each slot when the gateway starts.

use std::sync::Arc;

use anyhow::Context as _;
use tracing::{error, warn};

use crate::config::PluginConfig;
use crate::plugin::blocking::blocking;
use crate::plugin::contract::Roles;
use crate::plugin::deploy::candidate::{Code, Wanted};
use crate::plugin::identity::GenerationIdentity;
use crate::plugin::runtime::Runtime;
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::Slot;
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::ledger::{Ledger, Ledgers, Proven, rolled_back_error, write_ledger};

impl Slot {
    /// Loads the first generation of a slot. It is the generation that served for good in the last run, if that can
    /// still serve; the source and the settings on disk are then checked later. Only without such a generation, the
    /// source and the settings on disk must pass the checks at once.
    ///
    /// # Errors
    /// If no generation of the last run can serve, and the component on disk cannot be read, compiled or linked, lacks
    /// a role of the slot, or refuses to serve. The error names the slot and the source.
    pub async fn load(
        name: String,
        plugin: &PluginConfig,
        roles: Roles,
        runtime: Arc<Runtime>,
        ledgers: &Ledgers,
    ) -> anyhow::Result<Arc<Self>> {
        let spec = Arc::new(runtime.spec(name, plugin, roles));
        let load = async {
            let ledger = ledgers.of(&spec.source)?;
            if let Some(proven) = proven(&runtime, &spec, &ledger).await {
                // A secret may have changed while the gateway was not running.
                if ledger.prove(&spec.slot, *proven.identity(), proven.environment()) {
                    write_ledger(&ledger).await;
                }
                return Ok(Self::new(runtime.clone(), spec.clone(), plugin, ledger, proven));
            }
            let Wanted { code, environment } = Wanted::read(&spec, plugin.settings.clone()).await?;
            let (mut code, environment) = (code?, environment?);
            if let Some(refusal) = ledger.refusal(&GenerationIdentity::new(code.digest, &environment.values)) {
                let (Spec { slot, plugin, .. }, reason) = (&*spec, rolled_back_error(&refusal).to_string());
                error!(slot, plugin, digest = %code.digest, reason, "rolled back, but serves again: there is no other");
            }
            let generation = code.verify(&runtime, &spec, &ledger, 1, environment, Vec::new()).await?;
            if ledger.prove(&spec.slot, *generation.identity(), generation.environment()) {
                write_ledger(&ledger).await;
            }
            anyhow::Ok(Self::new(runtime.clone(), spec.clone(), plugin, ledger, generation))
        };
        load.await.with_context(|| format!("{}: cannot load {}", spec.slot, spec.source))
    }
}

/// Returns the generation that served for good in the last run, if it can still serve. Its settings get the present
/// content of their files, which may be new secrets. If a file cannot be read, or the new values are refused, they get
/// the values of the last run.
async fn proven(runtime: &Runtime, spec: &Arc<Spec>, ledger: &Arc<Ledger>) -> Option<Generation> {
    let load = async {
        let (read, slot, limit) = (ledger.clone(), spec.slot.clone(), spec.limits.max_component);
        let found = move || {
            let Some((code, proven)) = read.proven(&slot, limit)? else { return Ok(None) };
            let Proven { settings, values, .. } = proven;
            let now = settings.read_or(&values);
            Ok(Some((Code::new(code), [now, values].map(|values| Environment { settings: settings.clone(), values }))))
        };
        let Some((mut code, [now, then])) = blocking(found).await? else { return Ok(None) };
        let is_same = now.values == then.values;
        if !is_same && ledger.refusal(&GenerationIdentity::new(code.digest, &now.values)).is_none() {
            match code.verify(runtime, spec, ledger, 1, now, Vec::new()).await {
                Ok(generation) => return Ok(Some(generation)),
                Err(reason) => {
                    let (Spec { slot, plugin, .. }, reason) = (&**spec, crate::plugin::text::line(&reason));
                    warn!(slot, plugin, reason, "new secrets refused; the plugin starts with its earlier secrets");
                }
            }
        }
        code.verify(runtime, spec, ledger, 1, then, Vec::new()).await.map(Some)
    };
    load.await.unwrap_or_else(|reason: anyhow::Error| {
        let (Spec { slot, plugin, .. }, reason) = (&**spec, crate::plugin::text::line(&reason));
        warn!(slot, plugin, reason, "the generation of the last run cannot serve any more");
        None
    })
}
