//! From a component and its settings to a generation: what is read, and what it must pass.

use std::sync::Arc;

use anyhow::Context as _;
use tracing::{error, warn};

use crate::config::PluginConfig;
use crate::plugin::blocking::blocking;
use crate::plugin::contract::Roles;
use crate::plugin::deploy::candidate::{Code, Wanted};
use crate::plugin::identity::Identity;
use crate::plugin::runtime::Runtime;
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::Slot;
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::ledger::{Ledger, Ledgers, Proven, before, written};

impl Slot {
    /// Loads the plugin of a slot for the first time. What served for good when the gateway ran last serves first, if it is
    /// still there; what the source and the settings hold now is looked at later. Only where nothing has proven itself it must
    /// do at once.
    ///
    /// # Errors
    /// When nothing that served before is there, and the component cannot be read, compiled or linked, is not what the slot
    /// needs, or refuses to serve. The error names the slot and the source.
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
                // It may serve with a secret that was changed while nobody ran.
                if ledger.prove(&spec.slot, *proven.identity(), proven.environment()) {
                    written(&ledger).await;
                }
                return Ok(Self::new(runtime.clone(), spec.clone(), plugin, ledger, proven));
            }
            let Wanted { code, environment } = Wanted::read(&spec, plugin.settings.clone()).await?;
            let (mut code, environment) = (code?, environment?);
            if let Some(refusal) = ledger.refusal(&Identity::new(code.digest, &environment.values)) {
                let (Spec { slot, plugin, .. }, reason) = (&*spec, before(&refusal).to_string());
                error!(slot, plugin, digest = %code.digest, reason, "nothing else is there, so it serves again");
            }
            let generation = code.verify(&runtime, &spec, &ledger, 1, environment, Vec::new()).await?;
            if ledger.prove(&spec.slot, *generation.identity(), generation.environment()) {
                written(&ledger).await;
            }
            anyhow::Ok(Self::new(runtime.clone(), spec.clone(), plugin, ledger, generation))
        };
        load.await.with_context(|| format!("{}: cannot load {}", spec.slot, spec.source))
    }
}

/// What served for good when the gateway ran last, unless it will not do any more. It is told what files hold now, which may be
/// a new secret; where one cannot be read, and where that does not do, what it was told then.
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
        if !is_same && ledger.refusal(&Identity::new(code.digest, &now.values)).is_none() {
            match code.verify(runtime, spec, ledger, 1, now, Vec::new()).await {
                Ok(generation) => return Ok(Some(generation)),
                Err(reason) => {
                    let (Spec { slot, plugin, .. }, reason) = (&**spec, crate::plugin::text::line(&reason));
                    warn!(slot, plugin, reason, "the plugin starts with the secrets it had: new ones are refused");
                }
            }
        }
        code.verify(runtime, spec, ledger, 1, then, Vec::new()).await.map(Some)
    };
    load.await.unwrap_or_else(|reason: anyhow::Error| {
        let (Spec { slot, plugin, .. }, reason) = (&**spec, crate::plugin::text::line(&reason));
        warn!(slot, plugin, reason, "what served when the gateway ran last cannot serve any more");
        None
    })
}
