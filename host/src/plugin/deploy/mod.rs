//! The operations on a slot: offering and deploying components, promoting and rolling back generations.

pub(crate) mod builtin;
pub(crate) mod candidate;
mod load;
mod replacement;
pub(crate) mod source;
pub(crate) mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::config::PluginSource;
use crate::plugin::blocking::blocking;
use crate::plugin::deploy::candidate::{Code, Wanted};
use crate::plugin::deploy::replacement::{Replacement, WriteError};
use crate::plugin::identity::{Digest, GenerationIdentity};
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::error::{DeployError, RefusedOnDisk, UnservedReason};
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::ledger::{Refusal, rolled_back_error, write_ledger};
use crate::plugin::slot::rollout::Step;
use crate::plugin::slot::{Slot, State};

/// How long it may take to rename a written component to the plugin file. A rename cannot be cancelled.
const RENAMING: Duration = Duration::from_secs(60);

/// How a component is offered.
#[derive(Default)]
pub(crate) struct OfferOptions {
    /// The component's file, which replaces the plugin file before the component is offered.
    replacement: Option<Replacement>,
    /// True if the component is offered even if it was rolled back before.
    forgiving: bool,
}

impl OfferOptions {
    async fn write(&mut self) -> anyhow::Result<()> {
        match self.replacement.take() {
            Some(replacement) => commit(replacement).await.map_err(|error| Unwritten(error).into()),
            None => Ok(()),
        }
    }
}

/// The component passed the checks, but could not replace the plugin file.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Unwritten(anyhow::Error);

impl Slot {
    /// Offers the component and settings that were read from disk. If they pass all checks and were not rolled back
    /// before, the new generation starts its first stage. Before that, the slot does not change. Returns what was
    /// refused and why, or `None` if the files changed while this call waited (`is_current` then returns `false`).
    pub(crate) async fn take_over(
        &self,
        wanted: Wanted,
        is_current: impl FnOnce() -> bool + Send + 'static,
    ) -> anyhow::Result<Option<RefusedOnDisk>> {
        let _loading = self.loading.lock().await;
        // Another component may have been deployed while this one waited for the lock.
        if !blocking(move || Ok(is_current())).await? {
            return Ok(None);
        }
        self.settle(wanted, OfferOptions::default()).await.map(Some)
    }

    /// Reads source and settings again, and offers them even if they were rolled back before.
    ///
    /// # Errors
    /// Why they were refused. If only one of the two is refused, the other is taken over.
    pub async fn reload(&self) -> Result<(), DeployError> {
        let _loading = self.loading.lock().await;
        let settings = self.settings();
        let taken_over = async {
            let wanted = Wanted::read(self.spec(), settings).await?;
            self.settle(wanted, OfferOptions { forgiving: true, ..OfferOptions::default() }).await
        };
        let refused = taken_over.await.map_err(|reason| self.refuse(None, crate::plugin::text::line(&reason)))?;
        match refused.in_words() {
            Some((digest, reason)) => Err(self.refuse(digest, reason)),
            None => Ok(()),
        }
    }

    /// Puts a component in the place of the slot's file, if it passes all checks, and offers it. If the file was a
    /// symbolic link, returns the link's target.
    ///
    /// The component is written beside the file before it is checked. After the checks only a rename is left, which is
    /// short. So a deploy given up during the checks never changes the file; one given up during the rename (after
    /// `RENAMING`, or by the caller) still may.
    ///
    /// # Errors
    /// Why the component was refused, or why the file cannot be written.
    pub async fn deploy(&self, bytes: Vec<u8>) -> Result<Option<String>, DeployError> {
        let Spec { slot, source, limits, .. } = &**self.spec();
        let PluginSource::File(path) = source else {
            let problem = format!("{source} is built in and cannot be replaced: configure a file to deploy to");
            return Err(DeployError::NotNow(problem));
        };
        let limit = limits.max_component;
        if bytes.len() > limit {
            return Err(self.refuse(None, format!("the component is larger than {limit} bytes (limits.max_component)")));
        }
        let file = path.clone();
        let write = move || Ok((Replacement::write(&file, &bytes)?, Code::new(bytes)));
        let (replacement, code) = blocking(write).await.map_err(unwritten)?;
        let link = replacement.link().map(|link| link.display().to_string());
        let _loading = self.loading.lock().await;
        let settings = self.settings();
        let environment = blocking(move || Ok(Environment::read(settings))).await.unwrap_or_else(Err);
        let options = OfferOptions { replacement: Some(replacement), ..OfferOptions::default() };
        let refused = self.settle(Wanted { code: Ok(code), environment }, options).await.map_err(unwritten)?;
        if let Some(reason) = refused.component {
            return Err(self.refuse(reason.digest, reason.text));
        }
        if let Some(link) = &link {
            let file = path.display().to_string();
            warn!(slot, file, link, "the plugin file was a symbolic link; the component has replaced the link");
        }
        Ok(link)
    }

    /// Moves the newest generation to its next stage. If `generation` is given and is not the newest, this fails.
    ///
    /// # Errors
    /// Why there is nothing to promote.
    pub async fn promote(&self, generation: Option<u64>) -> Result<(), DeployError> {
        self.advance(generation, |state| state.rollout.promote(&state.deploy, Instant::now())).await
    }

    /// Gives up the newest generation. If it is live, the generation that served before becomes live again. If
    /// `generation` is given and is not the newest, this fails. A generation that was given up is not loaded again
    /// until its file or settings change. Waits until the rollback is on disk, if there is a state folder.
    ///
    /// # Errors
    /// Why there is nothing to go back to.
    pub async fn rollback(&self, generation: Option<u64>) -> Result<(), DeployError> {
        let reason = "an operator requested it".to_owned();
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

    /// Writes the slot's ledger and waits until it is on disk.
    pub async fn save(&self) {
        write_ledger(&self.ledger).await;
    }

    /// Offers a component and settings. If the pair is refused, the new component is tried with the serving settings.
    /// If that is refused, too, the new settings are tried with the serving component. So an error in one does not
    /// block the other. A deploy does not try the settings alone. Must be called while `loading` is locked.
    ///
    /// # Errors
    /// If the component passes the checks, but cannot be written.
    async fn settle(&self, wanted: Wanted, mut options: OfferOptions) -> anyhow::Result<RefusedOnDisk> {
        let newest = self.state(|state| state.rollout.newest().clone());
        let serving = newest.environment();
        let is_deployment = options.replacement.is_some();
        let mut refused = RefusedOnDisk::default();
        let code = wanted.code.map_err(|error| refused.component = Some(UnservedReason::of(&error, None))).ok();
        let mut code = code.map(|code| self.find_compiled(code.digest).unwrap_or(code));
        let environment =
            wanted.environment.map_err(|error| refused.settings = Some(UnservedReason::of(&error, None))).ok();
        let is_new_code = code.as_ref().is_none_or(|code| code.digest != newest.digest());
        let are_new_settings = environment.as_ref().is_none_or(|environment| environment.values != serving.values);

        let mut done = false;
        if let (Some(code), Some(environment)) = (&mut code, &environment) {
            let reason = self.attempt(code, environment, &mut options).await?;
            done = reason.is_none();
            refused.component = reason.clone().filter(|_| is_new_code);
            refused.settings = reason.filter(|_| are_new_settings);
        }
        // It does not compile, so other settings cannot help.
        let is_hopeless = refused.component.as_ref().is_some_and(|reason| reason.is_of_compiling);
        if let Some(code) = code.as_mut().filter(|_| !done && !is_hopeless && (is_new_code || is_deployment)) {
            if are_new_settings {
                refused.component = self.attempt(code, serving, &mut options).await?;
            }
            done = refused.component.is_none();
        }
        if let Some(environment) = environment.filter(|_| !done && is_new_code && are_new_settings && !is_deployment) {
            refused.settings = self.attempt(&mut Code::of(&newest), &environment, &mut options).await?;
        }
        // After a refused deploy the file on disk is still the old one, so there is nothing to remember.
        if done || !is_deployment {
            self.remember_refused(&refused);
        }
        Ok(refused)
    }

    /// Offers a component with these settings. Returns the reason if it is refused.
    ///
    /// # Errors
    /// If it passes the checks, but cannot be written.
    async fn attempt(
        &self,
        code: &mut Code,
        environment: &Environment,
        options: &mut OfferOptions,
    ) -> anyhow::Result<Option<UnservedReason>> {
        match self.offer(code, environment, options).await {
            Ok(()) => Ok(None),
            Err(error) if error.is::<Unwritten>() => Err(error),
            Err(error) => Ok(Some(UnservedReason::of(&error, Some(code.digest)))),
        }
    }

    /// Returns the component with this digest, if a generation has it.
    fn find_compiled(&self, digest: Digest) -> Option<Code> {
        let generations = self.state(|state| state.rollout.generations());
        generations.iter().find(|generation| generation.digest() == digest).map(|generation| Code::of(generation))
    }

    /// Makes a generation of a component and settings, and starts its first stage.
    async fn offer(
        &self,
        code: &mut Code,
        environment: &Environment,
        options: &mut OfferOptions,
    ) -> anyhow::Result<()> {
        let identity = GenerationIdentity::new(code.digest, &environment.values);
        let is = |other: &Generation| *other.identity() == identity;
        if self.state(|state| is(state.rollout.newest()) || is(&state.rollout.live().generation)) {
            options.write().await?;
            // The file holds the live component again, so the candidate is withdrawn.
            let unwanted = |state: &State| !is(state.rollout.newest());
            self.change(|state| if unwanted(state) { (state.rollout.withdraw(), ()) } else { (Vec::new(), ()) });
            return Ok(());
        }
        if !options.forgiving
            && let Some(refusal) = self.refusal(&identity, environment)
        {
            return Err(rolled_back_error(&refusal));
        }
        let (number, others) = self.state(|state| {
            let present = state.rollout.generations();
            (state.newest + 1, present.iter().map(|generation| generation.digest()).collect())
        });
        let generation =
            code.verify(self.runtime(), self.spec(), &self.ledger, number, environment.clone(), others).await?;
        options.write().await?;
        self.ledger.forgive(&identity, &environment.settings);
        let shadow = self.spec().roles.authenticator;
        self.change(|state| {
            state.newest = number;
            let steps = state.rollout.offer(Arc::new(generation), shadow, &state.deploy, Instant::now());
            (steps, ())
        });
        Ok(())
    }

    /// Returns why this generation was rolled back, if it was. For a component other than the newest one, only its
    /// digest and settings count, not the content of secret files: a new secret for the serving component must not give
    /// the other one a second try.
    fn refusal(&self, identity: &GenerationIdentity, environment: &Environment) -> Option<Refusal> {
        let newest = self.state(|state| state.rollout.newest().digest());
        let but_for_secrets = || self.ledger.refusal_but_for_secrets(identity.component, &environment.settings);
        let is_other = identity.component != newest;
        self.ledger.refusal(identity).or_else(|| is_other.then(but_for_secrets).flatten())
    }

    /// Remembers a refusal, and returns it as an error.
    fn refuse(&self, digest: Option<Digest>, reason: String) -> DeployError {
        self.remember_refusal(digest, &reason);
        DeployError::Refused(reason)
    }
}

async fn commit(replacement: Replacement) -> anyhow::Result<()> {
    let done = timeout(RENAMING, spawn_blocking(move || replacement.commit())).await;
    let late = || anyhow!("the file was not replaced within {RENAMING:?}: it may still be replaced later");
    Ok(done.map_err(|_| late())???)
}

/// Returns why a component was not deployed although nothing is wrong with it.
fn unwritten(reason: anyhow::Error) -> DeployError {
    let reason = reason.downcast::<Unwritten>().map_or_else(|other| other, |Unwritten(reason)| reason);
    let words = crate::plugin::text::line(&reason);
    match reason.downcast_ref() {
        Some(WriteError::UnderWay(_)) => DeployError::NotNow(words),
        _ => DeployError::Failed(words),
    }
}
