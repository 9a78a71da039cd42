//! What is done to a slot: offering, replacing, promoting and rolling back what serves in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::error::is_passing;
use super::generation::Generation;
use super::identity::Digest;
use super::load::{Candidate, Code, Values, before, blocking, written};
use super::rollout::Step;
use super::slot::{Slot, State};
use super::source;
use crate::config::{PluginDeploy, PluginSource, Settings};

/// How soon settings are tried again that did not do for a reason that may pass.
const AGAIN: Duration = Duration::from_secs(60);

/// Why a slot stays as it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeployError {
    /// There is no slot of this name.
    #[error("there is no slot {slot:?}; there are {}", .known.join(", "))]
    NoSuchSlot {
        /// The name.
        slot: String,
        /// The names of all slots.
        known: Vec<String>,
    },
    /// There is nothing to do it to.
    #[error("{0}")]
    NotNow(String),
    /// The component, or its settings, did not pass the checks.
    #[error("refused: {0}")]
    Refused(String),
    /// The component would do, but its file cannot be written.
    #[error("{0}")]
    Failed(String),
}

/// How a candidate is taken in.
#[derive(Default)]
pub(super) struct Manner {
    /// Before it is offered: puts the component where it will be read from.
    write: Option<Box<dyn FnOnce() -> anyhow::Result<()> + Send>>,
    /// Even if it was rolled back before.
    forgiving: bool,
}

/// The component would do, but could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Unwritten(anyhow::Error);

/// Settings that did not do.
pub(super) struct Declined {
    /// Their values, or why they could not be read.
    seen: Result<Values, String>,
    error: DeployError,
    /// When they may be tried again, if ever.
    again: Option<Instant>,
}

impl Slot {
    /// Has a component take its way to serve, if it passes all checks and has not been rolled back before. What serves
    /// stays as it is until then. `false` if it is not what the file holds any more.
    pub(super) async fn offer(
        &self,
        code: Vec<u8>,
        digest: Digest,
        is_current: impl FnOnce() -> bool + Send + 'static,
    ) -> anyhow::Result<bool> {
        let _loading = self.loading.lock().await;
        // Another may have been deployed while this one waited for its turn.
        if !blocking(move || Ok(is_current())).await? {
            return Ok(false);
        }
        let settings = self.state(|state| state.settings.clone());
        let candidate = Candidate { digest, code: Code::Bytes(Arc::new(code)), settings };
        self.take_in(candidate, Manner::default()).await.map(|()| true)
    }

    /// Reads source and settings again, and offers them even if they were rolled back before.
    ///
    /// # Errors
    /// Why they do not do.
    pub async fn reload(&self) -> Result<(), DeployError> {
        let _loading = self.loading.lock().await;
        let settings = self.state(|state| state.settings.clone());
        let taken_in = async {
            let candidate = Candidate::read(self.spec(), settings).await?;
            self.take_in(candidate, Manner { forgiving: true, ..Manner::default() }).await
        };
        taken_in.await.map_err(|reason| self.turned_down(None, reason))
    }

    /// Puts a component in the place of the slot's file, if it passes all checks, and offers it.
    ///
    /// # Errors
    /// Why it does not do, or why the file cannot be written.
    pub async fn deploy(&self, code: Vec<u8>) -> Result<(), DeployError> {
        let PluginSource::File(path) = &self.spec().source else {
            let problem = format!("{} is part of the gateway: configure a file to deploy to", self.spec().source);
            return Err(DeployError::NotNow(problem));
        };
        let _loading = self.loading.lock().await;
        let code = Arc::new(code);
        let hashed = code.clone();
        let digest = blocking(move || Ok(Digest::of(&hashed))).await;
        let digest = digest.map_err(|reason| self.turned_down(None, reason))?;
        let taken_in = async {
            let limit = self.spec().limits.max_component;
            ensure!(code.len() <= limit, "it is larger than {limit} bytes (limits.max_component)");
            let settings = self.state(|state| state.settings.clone());
            let (path, copy) = (path.clone(), code.clone());
            let write = Box::new(move || source::replace_file(&path, &copy));
            let candidate = Candidate { digest, code: Code::Bytes(code), settings };
            self.take_in(candidate, Manner { write: Some(write), ..Manner::default() }).await
        };
        taken_in.await.map_err(|reason| match reason.downcast::<Unwritten>() {
            Ok(unwritten) => DeployError::Failed(unwritten.to_string()),
            Err(reason) => self.turned_down(Some(digest), reason),
        })
    }

    /// On to the next stage, if the newest generation is this one.
    ///
    /// # Errors
    /// Why there is nothing to promote.
    pub async fn promote(&self, generation: Option<u64>) -> Result<(), DeployError> {
        self.advance(generation, |state| state.rollout.promote(&state.deploy, Instant::now())).await
    }

    /// Back to what served before, if the newest generation is this one: it is given up, and not loaded again until its
    /// file or settings change. Waits until that is on disk, where there is a state folder.
    ///
    /// # Errors
    /// Why there is nothing to go back to.
    pub async fn rollback(&self, generation: Option<u64>) -> Result<(), DeployError> {
        let reason = "an operator said so".to_owned();
        self.advance(generation, |state| state.rollout.rollback(reason, Instant::now())).await
    }

    async fn advance(
        &self,
        expected: Option<u64>,
        advance: impl FnOnce(&mut State) -> Result<Vec<Step<Generation>>, &'static str>,
    ) -> Result<(), DeployError> {
        let advanced = self.change(|state| {
            let newest = state.rollout.newest().number();
            if let Some(expected) = expected.filter(|expected| *expected != newest) {
                return (Vec::new(), Err(format!("the newest generation is {newest}, not {expected}")));
            }
            match advance(state) {
                Ok(steps) => (steps, Ok(())),
                Err(problem) => (Vec::new(), Err(problem.to_owned())),
            }
        });
        advanced.map_err(DeployError::NotNow)?;
        self.save().await;
        Ok(())
    }

    /// Waits until what the slot must remember is on disk.
    pub async fn save(&self) {
        written(&self.ledger).await;
    }

    /// Takes over what the configuration, and the files that it names for settings, say now. Other settings make another
    /// generation. Those that did not do before are tried again when somebody insists.
    ///
    /// # Errors
    /// Why it does not do with these settings. What serves goes on with those it has.
    pub async fn configure(&self, settings: &Settings, deploy: &PluginDeploy, insist: bool) -> Result<(), DeployError> {
        let _loading = self.loading.lock().await;
        // The same configuration, but perhaps another secret in a file that it names.
        let same = self.state(|state| state.settings == *settings);
        self.configured(settings, deploy);
        let given = settings.clone();
        let seen = blocking(move || given.read()).await.map_err(|reason| super::line(&reason));
        let newest = self.state(|state| state.rollout.newest().clone());
        if seen.as_ref() == Ok(&newest.given().values) {
            return Ok(());
        }
        let known = self.state(|state| {
            let known = state.declined.as_ref().filter(|declined| declined.seen == seen)?;
            known.again.is_none_or(|again| Instant::now() < again).then(|| known.error.clone())
        });
        if let Some(error) = known.filter(|_| !insist) {
            return Err(error);
        }
        let taken_in = async {
            let candidate = match Candidate::read(self.spec(), settings.clone()).await {
                // A new secret is no reason to try again what was rolled back; what serves needs it.
                Ok(read) if same && read.digest != newest.digest() && self.ledger.has_refused(read.digest) => None,
                read => read.ok(),
            };
            // Without a file, too, settings count for what serves.
            let candidate = candidate.unwrap_or_else(|| Candidate::of(&newest, settings.clone()));
            self.take_in(candidate, Manner::default()).await
        };
        taken_in.await.map_err(|reason| {
            let again = is_passing(&reason).then(|| Instant::now() + AGAIN);
            let error = self.turned_down(None, reason);
            self.decline(Declined { seen, error: error.clone(), again });
            error
        })
    }

    /// From a candidate to a generation at its first stage. Must be called while loading is locked.
    pub(super) async fn take_in(&self, candidate: Candidate, manner: Manner) -> anyhow::Result<()> {
        let Manner { write, forgiving } = manner;
        let write = async || match write {
            Some(write) => blocking(write).await.map_err(|error| Unwritten(error).into()),
            None => anyhow::Ok(()),
        };
        let known = candidate.identity().await?;
        let identity = known.0;
        let is = |other: &Generation| *other.identity() == identity;
        if self.state(|state| is(state.rollout.newest()) || is(&state.rollout.live().generation)) {
            write().await?;
            // Whoever puts back what is live does not want the candidate any more.
            let unwanted = |state: &State| !is(state.rollout.newest());
            self.change(|state| if unwanted(state) { (state.rollout.withdraw(), ()) } else { (Vec::new(), ()) });
            return Ok(());
        }
        if let Some(refusal) = self.ledger.refusal(&identity).filter(|_| !forgiving) {
            return Err(before(&refusal));
        }
        let (number, others) = self.state(|state| {
            let present = state.rollout.generations();
            (state.newest + 1, present.iter().map(|generation| generation.digest()).collect())
        });
        let generation = candidate.verify(self.spec(), &self.ledger, number, known, others).await?;
        write().await?;
        self.ledger.forgive(&identity);
        let shadow = self.spec().roles.authenticator;
        self.change(|state| {
            (state.newest, state.declined) = (number, None);
            let steps = state.rollout.offer(Arc::new(generation), shadow, &state.deploy, Instant::now());
            (steps, ())
        });
        Ok(())
    }

    fn turned_down(&self, digest: Option<Digest>, reason: anyhow::Error) -> DeployError {
        let reason = super::line(&reason);
        self.refused(digest, &reason);
        DeployError::Refused(reason)
    }
}
