//! The ledger of a source of plugins. It remembers on disk which generations were rolled back and which are proven
//! (served for good), so that a restart repeats no mistake. Slots may come, go and be renamed; the source stays.
//!
//! A proven generation is kept completely, with the values of its settings, so that it can serve while the file of a
//! secret is missing. The state folder is as private as the files of secrets should be.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::base::state::StateFolder;
use crate::config::{PluginConfig, PluginSource, Settings, Values};
use crate::plugin::blocking::blocking;
use crate::plugin::identity::{Digest, GenerationIdentity};
use crate::plugin::runtime::Runtime;
use crate::plugin::runtime::environment::Environment;

/// The most rolled-back generations that are remembered. After that, the oldest is forgotten.
const MAX_REFUSED: usize = 32;

/// The folder of ledgers in the state folder.
const LEDGERS: &str = "slots";

/// The folder of components in the state folder.
const COMPONENTS: &str = "components";

/// The number of components of one source to keep: for the live generation, the one before and some candidates.
const MAX_COMPONENTS: usize = 8;

/// The time between a failed write and the next attempt.
const RETRY: Duration = Duration::from_secs(5);

/// The most bytes of a ledger file.
const MAX_LEDGER: usize = 4 << 20;

/// The ledgers of the sources of all slots.
pub struct Ledgers {
    folder: Arc<StateFolder>,
    all: HashMap<PluginSource, Arc<Ledger>>,
}

impl Ledgers {
    /// Opens the ledgers for these slots and their plugins.
    ///
    /// # Errors
    /// If the state folder does not answer.
    pub async fn open<'a>(
        runtime: &Runtime,
        slots: impl IntoIterator<Item = (&'a str, &'a PluginConfig)>,
    ) -> anyhow::Result<Self> {
        let mut sources: HashMap<PluginSource, Vec<(String, Settings)>> = HashMap::new();
        for (slot, plugin) in slots {
            let entry = (slot.to_owned(), plugin.settings.clone());
            sources.entry(plugin.source.clone()).or_default().push(entry);
        }
        let folder = runtime.state.clone();
        let open = move || {
            let open = |(source, slots): (PluginSource, Vec<_>)| {
                let ledger = Arc::new(Ledger::open(folder.clone(), &source, &slots));
                (source, ledger)
            };
            Ok(Self { all: sources.into_iter().map(open).collect(), folder })
        };
        blocking(open).await
    }

    pub(crate) fn of(&self, source: &PluginSource) -> anyhow::Result<Arc<Ledger>> {
        self.all.get(source).cloned().with_context(|| format!("there is no ledger of {source}"))
    }

    /// Removes the files of sources that no slot has any more. A failure is logged; the next start tries again.
    pub async fn prune(self) {
        let prune = move || {
            if self.folder.problem().is_some() {
                return Ok(());
            }
            let known = |name: &str| self.all.values().any(|ledger| ledger.name == name);
            for (folder, end) in [(LEDGERS, ".json"), (COMPONENTS, ".wasm")] {
                let unknown = |file: &str| {
                    let ledger = file.strip_suffix(end).and_then(|stem| stem.split('-').next());
                    ledger.is_some_and(|ledger| !known(ledger))
                };
                for file in self.folder.files(folder)?.iter().filter(|file| unknown(&file.name)) {
                    self.folder.remove(&format!("{folder}/{}", file.name))?;
                }
            }
            Ok(())
        };
        if let Err(error) = blocking(prune).await {
            warn!(
                error = crate::plugin::text::line(&error),
                "files of plugins that are not configured cannot be removed from the state folder"
            );
        }
    }
}

/// The ledger of one source. Without a state folder it is lost when the process ends.
pub(crate) struct Ledger {
    folder: Arc<StateFolder>,
    /// The name of this source's files in the folder.
    name: String,
    pages: Mutex<Pages>,
    /// Held while writing, so that the newest pages are written last.
    writing: Mutex<()>,
    /// Why the pages could not be written, and when that was tried last.
    unsaved: Mutex<Option<(String, Instant)>>,
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct Pages {
    /// The source, for people who read the file.
    about: String,
    refused: Vec<Refusal>,
    /// The generation that last served for good in each slot.
    proven: BTreeMap<String, Proven>,
}

/// A generation that was rolled back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refusal {
    identity: GenerationIdentity,
    /// The digest of the settings as configured. It does not depend on the content of secret files.
    configured: Digest,
    pub(crate) at: SystemTime,
    pub(crate) reason: String,
}

/// A generation that served for good.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proven {
    identity: GenerationIdentity,
    pub(crate) settings: Settings,
    /// The values of the settings at that time.
    pub(crate) values: Values,
}

impl Ledger {
    /// Opens the ledger of a source for the slots that have it now, each with its settings. Blocks. If the file cannot
    /// be read, the ledger starts empty.
    pub(crate) fn open(folder: Arc<StateFolder>, source: &PluginSource, slots: &[(String, Settings)]) -> Self {
        let about = source.to_string();
        let name = Digest::of(about.as_bytes()).to_string();
        let found = if folder.problem().is_some() { Ok(None) } else { read(&folder, &name) };
        let pages = found.unwrap_or_else(|error| {
            warn!(source = about, error = format!("{error:#}"), "the ledger cannot be read: rollbacks are forgotten");
            None
        });
        let Pages { refused, proven, .. } = pages.unwrap_or_default();
        let pages = Pages { about, refused, proven: assign(proven, slots) };
        Self { folder, name, pages: Mutex::new(pages), writing: Mutex::default(), unsaved: Mutex::default() }
    }

    /// Returns the refusal of this generation, if it was rolled back.
    pub(crate) fn refusal(&self, identity: &GenerationIdentity) -> Option<Refusal> {
        self.pages.lock().refused.iter().find(|refusal| refusal.identity == *identity).cloned()
    }

    /// Returns the refusal of this component with the same configured settings. The content of secret files may differ.
    pub(crate) fn refusal_but_for_secrets(&self, component: Digest, settings: &Settings) -> Option<Refusal> {
        let configured = configured(settings);
        let same = |refusal: &&Refusal| refusal.identity.component == component && refusal.configured == configured;
        self.pages.lock().refused.iter().find(same).cloned()
    }

    /// Remembers that a generation was rolled back, and saves the ledger.
    pub(crate) fn refuse(self: &Arc<Self>, identity: GenerationIdentity, settings: &Settings, reason: String) {
        let mut pages = self.pages.lock();
        pages.refused.retain(|refusal| refusal.identity != identity);
        if pages.refused.len() == MAX_REFUSED {
            pages.refused.remove(0);
        }
        let configured = configured(settings);
        pages.refused.push(Refusal { identity, configured, at: SystemTime::now(), reason });
        drop(pages);
        self.save();
    }

    /// Remembers the generation that serves a slot for good. Returns `true` if this changed the ledger, which must then
    /// be [saved](Self::save).
    pub(crate) fn prove(&self, slot: &str, identity: GenerationIdentity, environment: &Environment) -> bool {
        let Environment { settings, values } = environment;
        let proven = Proven { identity, settings: settings.clone(), values: values.clone() };
        let mut pages = self.pages.lock();
        let before = pages.proven.insert(slot.to_owned(), proven);
        before.as_ref() != pages.proven.get(slot)
    }

    /// Forgets that this generation was rolled back, because somebody wants it nevertheless.
    pub(crate) fn forgive(self: &Arc<Self>, identity: &GenerationIdentity, settings: &Settings) {
        let configured = configured(settings);
        let forgiven = |refusal: &Refusal| {
            refusal.identity == *identity
                || (refusal.identity.component == identity.component && refusal.configured == configured)
        };
        let mut pages = self.pages.lock();
        let before = pages.refused.len();
        pages.refused.retain(|refusal| !forgiven(refusal));
        let changed = pages.refused.len() < before;
        drop(pages);
        if changed {
            self.save();
        }
    }

    /// Returns the generation that last served a slot for good, with its component. Blocks.
    ///
    /// # Errors
    /// If the component's file is missing or has changed.
    pub(crate) fn proven(&self, slot: &str, limit: usize) -> anyhow::Result<Option<(Vec<u8>, Proven)>> {
        let Some(proven) = self.pages.lock().proven.get(slot).cloned() else { return Ok(None) };
        let digest = proven.identity.component;
        let file = self.component_file(&digest);
        let code = self.folder.read_private(&file, limit).map_err(anyhow::Error::from);
        let code = code.and_then(|code| code.context("the file is missing"));
        let code = code.with_context(|| format!("cannot read {file} in the state folder"))?;
        anyhow::ensure!(Digest::of(&code) == digest, "{file} in the state folder has been changed");
        Ok(Some((code, proven)))
    }

    /// Keeps a component for a restart. Of the components kept before, keeps only the proven ones, the newest few, and
    /// `others`. Blocks.
    pub(crate) fn keep(&self, code: &[u8], digest: Digest, others: &[Digest]) {
        if self.folder.problem().is_some() {
            return;
        }
        let own = format!("{}-", self.name);
        let mut found = self.folder.files(COMPONENTS).unwrap_or_default();
        found.retain(|file| file.name.starts_with(&own));
        found.sort_by_key(|file| std::cmp::Reverse(file.modified));
        let found: Vec<_> = found.into_iter().map(|file| format!("{COMPONENTS}/{}", file.name)).collect();
        let proven: Vec<_> = self.pages.lock().proven.values().map(|proven| proven.identity.component).collect();
        let wanted = others.iter().copied().chain(proven).chain([digest]);
        let wanted: Vec<_> = wanted.map(|digest| self.component_file(&digest)).collect();
        for old in found.iter().skip(MAX_COMPONENTS - 1).filter(|old| !wanted.contains(old)) {
            // If this fails, it is tried again with the next component.
            let _ = self.folder.remove(old);
        }
        let file = self.component_file(&digest);
        if !found.contains(&file)
            && let Err(error) = self.folder.write_private(&file, code)
        {
            warn!(file, %error, "the component is not kept: a restart after a rollback would not find it");
        } else {
            let _ = self.folder.touch(&file);
        }
    }

    fn component_file(&self, digest: &Digest) -> String {
        format!("{COMPONENTS}/{}-{}.wasm", self.name, digest.full())
    }

    /// Writes the ledger in the background.
    pub(crate) fn save(self: &Arc<Self>) {
        let ledger = self.clone();
        spawn_blocking(move || ledger.write());
    }

    /// Writes the ledger. Blocks.
    pub(crate) fn write(&self) {
        if self.folder.problem().is_some() {
            // Logged at the start.
            return;
        }
        let _writing = self.writing.lock();
        let pages = self.pages.lock().clone();
        let written = serde_json::to_vec_pretty(&pages).map_err(std::io::Error::from);
        let written = written.and_then(|bytes| self.folder.write_private(&file(&self.name), &bytes));
        let problem = written.err().map(|error| error.to_string());
        let unsaved = problem.clone().map(|problem| (problem, Instant::now()));
        let before = std::mem::replace(&mut *self.unsaved.lock(), unsaved);
        let about = &pages.about;
        match (before, problem) {
            (None, Some(error)) => {
                warn!(about, error, "rollbacks cannot be saved: a restart would load rolled-back components again");
            }
            (Some(_), None) => info!(about, "rollbacks are saved again"),
            // Logged already.
            _ => {}
        }
    }

    /// Returns why rollbacks cannot be saved for the next start, if so.
    pub(crate) fn unsaved(&self) -> Option<String> {
        self.unsaved.lock().as_ref().map(|(problem, _)| problem.clone())
    }

    /// Tries a failed write again after some time.
    pub(crate) fn retry(self: &Arc<Self>) {
        // While a write hangs, no other is started: each would keep a thread.
        if self.writing.is_locked() {
            return;
        }
        let is_due = |(_, tried): &mut (String, Instant)| {
            let is_due = tried.elapsed() >= RETRY;
            if is_due {
                *tried = Instant::now();
            }
            is_due
        };
        if self.unsaved.lock().as_mut().is_some_and(is_due) {
            self.save();
        }
    }
}

impl fmt::Debug for Ledger {
    /// Shows no pages, because they contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Assigns the proven generations to slots, because slots are renamed when others come or go before them. Prefers the
/// same slot with the same settings, then the same settings, then the same slot, then any. The rest is dropped.
fn assign(mut kept: BTreeMap<String, Proven>, slots: &[(String, Settings)]) -> BTreeMap<String, Proven> {
    let mut assigned = BTreeMap::new();
    for (same_slot, same_settings) in [(true, true), (false, true), (true, false), (false, false)] {
        for (slot, settings) in slots {
            let fits = |(name, proven): &(&String, &Proven)| {
                (!same_slot || *name == slot) && (!same_settings || proven.settings == *settings)
            };
            let found = kept.iter().find(fits).map(|(name, _)| name.clone());
            let free = !assigned.contains_key(slot);
            if let Some(proven) = found.filter(|_| free).and_then(|name| kept.remove(&name)) {
                assigned.insert(slot.clone(), proven);
            }
        }
    }
    assigned
}

/// Returns the digest of settings as configured.
fn configured(settings: &Settings) -> Digest {
    // Serializing a table of strings to memory does not fail.
    Digest::of(&serde_json::to_vec(settings).unwrap_or_default())
}

fn read(folder: &StateFolder, name: &str) -> anyhow::Result<Option<Pages>> {
    let Some(bytes) = folder.read_private(&file(name), MAX_LEDGER)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", file(name)))
}

fn file(name: &str) -> String {
    format!("{LEDGERS}/{name}.json")
}

/// Writes the ledger and waits until it is on disk.
pub(crate) async fn write_ledger(ledger: &Arc<Ledger>) {
    let ledger = ledger.clone();
    let write = move || {
        ledger.write();
        Ok(())
    };
    if let Err(error) = blocking(write).await {
        warn!(error = crate::plugin::text::line(&error), "rollbacks may not be saved");
    }
}

/// Returns the error for a generation that is not loaded because it was rolled back before.
pub(crate) fn rolled_back_error(refusal: &Refusal) -> anyhow::Error {
    let at = humantime::format_rfc3339_seconds(refusal.at);
    anyhow!(
        "it was rolled back with these settings at {at}, because {}; to load it again, change the file or its \
         settings, or run `hotgate plugin reload`",
        refusal.reason
    )
}

#[cfg(test)]
mod tests;
