//! What a slot remembers on disk, so that a restart repeats no mistake: what was rolled back, and what has proven itself.
//!
//! Settings are written as the configuration has them: of those that stand in files of their own, only the path.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::identity::{Digest, Identity};
use super::lock;
use crate::config::{PluginSource, Settings};
use crate::state::StateFolder;

/// Refused generations that are remembered; then the oldest is forgotten.
const MAX_REFUSED: usize = 32;

/// The folder of components in the state folder.
const COMPONENTS: &str = "components";

/// Components of one slot that are kept: those of the live generation, the one before and some candidates.
const MAX_COMPONENTS: usize = 8;

/// Bytes of a ledger file.
const MAX_LEDGER: usize = 4 << 20;

/// The memory of one slot. Without a state folder it ends with the process.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: Arc<StateFolder>,
    /// Of this slot's files in it.
    name: String,
    pages: Mutex<Pages>,
    /// Held while writing: what was written last is what is there.
    writing: Mutex<()>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Pages {
    /// Slot and source, for whoever reads the file.
    about: String,
    refused: Vec<Refusal>,
    /// What served for good last.
    proven: Option<Proven>,
}

/// A generation that was rolled back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refusal {
    identity: Identity,
    pub(super) at: SystemTime,
    pub(super) reason: String,
}

/// A generation that served for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Proven {
    identity: Identity,
    settings: Settings,
}

impl Ledger {
    /// Opens the ledger of a slot. Blocks. One that cannot be read is begun anew.
    pub(super) fn open(folder: Arc<StateFolder>, slot: &str, source: &PluginSource) -> Self {
        let about = format!("{slot}: {source}");
        let name = Digest::of(about.as_bytes()).to_string();
        let found = if folder.problem().is_some() { Ok(None) } else { read(&folder, &name) };
        let mut pages = found.unwrap_or_else(|error| {
            warn!(slot, error = format!("{error:#}"), "what was rolled back is forgotten");
            None
        });
        let pages = Pages { about, ..pages.take().unwrap_or_default() };
        Self { folder, name, pages: Mutex::new(pages), writing: Mutex::default() }
    }

    /// Why this must not be loaded, if it must not.
    pub(super) fn refusal(&self, identity: &Identity) -> Option<Refusal> {
        lock(&self.pages).refused.iter().find(|refusal| refusal.identity == *identity).cloned()
    }

    /// Whether this component has been rolled back, with whatever settings.
    pub(super) fn has_refused(&self, component: Digest) -> bool {
        lock(&self.pages).refused.iter().any(|refusal| refusal.identity.component == component)
    }

    /// Remembers that a generation was rolled back.
    pub(super) fn refuse(self: &Arc<Self>, identity: Identity, reason: String) {
        let mut pages = lock(&self.pages);
        pages.refused.retain(|refusal| refusal.identity != identity);
        if pages.refused.len() == MAX_REFUSED {
            pages.refused.remove(0);
        }
        pages.refused.push(Refusal { identity, at: SystemTime::now(), reason });
        drop(pages);
        self.save();
    }

    /// Remembers what serves for good, once it is [saved](Self::save) if it is something else.
    pub(super) fn prove(&self, identity: Identity, settings: &Settings) -> bool {
        let proven = Some(Proven { identity, settings: settings.clone() });
        let before = std::mem::replace(&mut lock(&self.pages).proven, proven.clone());
        before != proven
    }

    /// Forgets that this was rolled back: somebody wants it all the same.
    pub(super) fn forgive(self: &Arc<Self>, identity: &Identity) {
        let mut pages = lock(&self.pages);
        let before = pages.refused.len();
        pages.refused.retain(|refusal| refusal.identity != *identity);
        let changed = pages.refused.len() < before;
        drop(pages);
        if changed {
            self.save();
        }
    }

    /// What served for good last, with its component. Blocks.
    ///
    /// # Errors
    /// When the component is not there any more, or is not what it was.
    pub(super) fn proven(&self, limit: usize) -> anyhow::Result<Option<(Vec<u8>, Identity, Settings)>> {
        let Some(Proven { identity, settings }) = lock(&self.pages).proven.clone() else { return Ok(None) };
        let file = self.component_file(&identity.component);
        let code = self.folder.read_private(&file, limit).map_err(anyhow::Error::from);
        let code = code.and_then(|code| code.context("it is gone"));
        let code = code.with_context(|| format!("cannot read {file} in the state folder"))?;
        anyhow::ensure!(Digest::of(&code) == identity.component, "{file} in the state folder has been changed");
        Ok(Some((code, identity, settings)))
    }

    /// Keeps a component for a restart, and of those kept before only what served for good, the last few, and these. Blocks.
    pub(super) fn keep(&self, code: &[u8], digest: Digest, others: &[Digest]) {
        if self.folder.problem().is_some() {
            return;
        }
        let own = format!("{}-", self.name);
        let mut found = self.folder.files(COMPONENTS).unwrap_or_default();
        found.retain(|file| file.name.starts_with(&own));
        found.sort_by_key(|file| std::cmp::Reverse(file.modified));
        let found: Vec<_> = found.into_iter().map(|file| format!("{COMPONENTS}/{}", file.name)).collect();
        let proven = lock(&self.pages).proven.as_ref().map(|proven| proven.identity.component);
        let wanted = others.iter().copied().chain(proven).chain([digest]);
        let wanted: Vec<_> = wanted.map(|digest| self.component_file(&digest)).collect();
        for old in found.iter().skip(MAX_COMPONENTS - 1).filter(|old| !wanted.contains(old)) {
            // Whatever is left over is tried again with the next.
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

    /// Has everything written.
    pub(super) fn save(self: &Arc<Self>) {
        let ledger = self.clone();
        spawn_blocking(move || ledger.write());
    }

    /// Writes everything. Blocks.
    pub(super) fn write(&self) {
        if self.folder.problem().is_some() {
            // Said at the start.
            return;
        }
        let _writing = lock(&self.writing);
        let pages = lock(&self.pages).clone();
        let written = serde_json::to_vec_pretty(&pages).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|bytes| self.folder.write_private(&file(&self.name), &bytes)) {
            let about = &pages.about;
            warn!(about, %error, "what was rolled back cannot be remembered: a restart would load it again");
        }
    }
}

fn read(folder: &StateFolder, name: &str) -> anyhow::Result<Option<Pages>> {
    let Some(bytes) = folder.read_private(&file(name), MAX_LEDGER)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", file(name)))
}

fn file(name: &str) -> String {
    format!("slots/{name}.json")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    fn open(folder: &Path) -> Arc<Ledger> {
        let folder = Arc::new(StateFolder::open(Some(folder)));
        assert_eq!(folder.problem(), None);
        Arc::new(Ledger::open(folder, "router", &PluginSource::File("/router.wasm".into())))
    }

    fn identity(code: &[u8]) -> Identity {
        Identity::new(Digest::of(code), &Default::default())
    }

    /// Waits for what is written meanwhile.
    async fn soon(done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(10), "not written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_restart_remembers_what_was_rolled_back_and_what_has_proven_itself() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let ledger = open(&folder);
        let settings = Settings::from_iter([("KEY".to_owned(), "value".to_owned())]);
        ledger.keep(b"good", Digest::of(b"good"), &[]);
        ledger.keep(b"bad", Digest::of(b"bad"), &[]);
        assert!(ledger.prove(identity(b"good"), &settings) && !ledger.prove(identity(b"good"), &settings));
        ledger.refuse(identity(b"bad"), "it trapped".to_owned());
        soon(|| open(&folder).refusal(&identity(b"bad")).is_some()).await;

        let ledger = open(&folder);
        assert_eq!(ledger.refusal(&identity(b"bad")).unwrap().reason, "it trapped");
        assert!(ledger.refusal(&identity(b"good")).is_none());
        assert_eq!(ledger.proven(4).unwrap(), Some((b"good".to_vec(), identity(b"good"), settings)));
        for number in 0..20_u8 {
            ledger.keep(&[number], Digest::of(&[number]), &[Digest::of(&[0])]);
        }
        assert!(ledger.proven(4).unwrap().is_some(), "what served for good is kept");
        let components = std::fs::read_dir(folder.join(COMPONENTS)).unwrap().count();
        assert!(components <= MAX_COMPONENTS + 2, "{components} are kept");
        assert!(folder.join(ledger.component_file(&Digest::of(&[0]))).exists(), "what is still there is kept");

        ledger.forgive(&identity(b"bad"));
        soon(|| open(&folder).refusal(&identity(b"bad")).is_none()).await;
    }

    #[tokio::test]
    async fn what_is_damaged_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let ledger = open(&folder);
        ledger.keep(b"good", Digest::of(b"good"), &[]);
        ledger.prove(identity(b"good"), &Settings::default());
        ledger.refuse(identity(b"bad"), String::new());
        soon(|| open(&folder).refusal(&identity(b"bad")).is_some()).await;

        std::fs::write(folder.join(ledger.component_file(&Digest::of(b"good"))), b"evil").unwrap();
        assert!(ledger.proven(4).unwrap_err().to_string().contains("has been changed"));
        std::fs::write(folder.join(file(&ledger.name)), b"{").unwrap();
        assert!(open(&folder).refusal(&identity(b"bad")).is_none());
    }
}
