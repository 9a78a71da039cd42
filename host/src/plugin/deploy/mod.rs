//! What is done to a slot: offering, replacing, promoting and rolling back what serves in it.

pub(crate) mod builtin;
pub(crate) mod candidate;
mod load;
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
use crate::plugin::deploy::source::{Replacement, WriteError};
use crate::plugin::identity::{Digest, Identity};
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::error::{DeployError, Reason, Refused};
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::ledger::Refusal;
use crate::plugin::slot::ledger::{before, written};
use crate::plugin::slot::rollout::Step;
use crate::plugin::slot::{Slot, State};

/// How long it may take to give a component that is written the name of the plugin file. Nobody can call that back.
const RENAMING: Duration = Duration::from_secs(60);

/// How something is offered.
#[derive(Default)]
pub(crate) struct OfferOptions {
    /// Takes the place of the plugin file before it is offered.
    replacement: Option<Replacement>,
    /// Even if it was rolled back before.
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

/// The component would do, but could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Unwritten(anyhow::Error);

impl Slot {
    /// Has what source and settings hold take its way to serve, if it passes all checks and has not been rolled back before.
    /// What serves stays as it is until then. `None` if that is not what they hold any more.
    pub(crate) async fn take_over(
        &self,
        wanted: Wanted,
        is_current: impl FnOnce() -> bool + Send + 'static,
    ) -> anyhow::Result<Option<Refused>> {
        let _loading = self.loading.lock().await;
        // Another may have been deployed while this one waited for its turn.
        if !blocking(move || Ok(is_current())).await? {
            return Ok(None);
        }
        self.settle(wanted, OfferOptions::default()).await.map(Some)
    }

    /// Reads source and settings again, and offers them even if they were rolled back before.
    ///
    /// # Errors
    /// Why they do not do. If only one of both does, that one is taken over.
    pub async fn reload(&self) -> Result<(), DeployError> {
        let _loading = self.loading.lock().await;
        let settings = self.settings();
        let taken_over = async {
            let wanted = Wanted::read(self.spec(), settings).await?;
            self.settle(wanted, OfferOptions { forgiving: true, ..OfferOptions::default() }).await
        };
        let refused = taken_over.await.map_err(|reason| self.turned_down(None, crate::plugin::text::line(&reason)))?;
        match refused.told() {
            Some((digest, reason)) => Err(self.turned_down(digest, reason)),
            None => Ok(()),
        }
    }

    /// Puts a component in the place of the slot's file, if it passes all checks, and offers it. Where the file was a
    /// symbolic link, returns where that led.
    ///
    /// It is written before it is checked: only what takes no time is left to do then, and what takes too long changes
    /// nothing later.
    ///
    /// # Errors
    /// Why it does not do, or why the file cannot be written.
    pub async fn deploy(&self, bytes: Vec<u8>) -> Result<Option<String>, DeployError> {
        let Spec { slot, source, limits, .. } = &**self.spec();
        let PluginSource::File(path) = source else {
            let problem = format!("{source} is part of the gateway: configure a file to deploy to");
            return Err(DeployError::NotNow(problem));
        };
        let limit = limits.max_component;
        if bytes.len() > limit {
            return Err(self.turned_down(None, format!("it is larger than {limit} bytes (limits.max_component)")));
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
            return Err(self.turned_down(reason.digest, reason.text));
        }
        if let Some(link) = &link {
            let file = path.display().to_string();
            warn!(slot, file, link, "the plugin file was a symbolic link; a component was deployed in its place");
        }
        Ok(link)
    }

    /// On to the next stage, if the newest generation is this one.
    ///
    /// # Errors
    /// Why there is nothing to promote.
    pub async fn promote(&self, generation: Option<u64>) -> Result<(), DeployError> {
        self.advance(generation, |state| state.rollout.promote(&state.deploy, Instant::now())).await
    }

    /// Back to what served before, if the newest generation is this one: it is environment up, and not loaded again until its
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

    /// Has what is wanted take its way to serve. A component and settings that do not do together are tried each with what
    /// serves now, first the component, then the settings: what is wrong with one of them does not hold up the other. Must be
    /// called while loading is locked.
    ///
    /// # Errors
    /// When the component would do, and cannot be written.
    async fn settle(&self, wanted: Wanted, mut options: OfferOptions) -> anyhow::Result<Refused> {
        let newest = self.state(|state| state.rollout.newest().clone());
        let serving = newest.environment();
        let is_deployment = options.replacement.is_some();
        let mut refused = Refused::default();
        let code = wanted.code.map_err(|error| refused.component = Some(Reason::of(&error, None))).ok();
        let mut code = code.map(|code| self.find_compiled(code.digest).unwrap_or(code));
        let environment = wanted.environment.map_err(|error| refused.settings = Some(Reason::of(&error, None))).ok();
        let is_new_code = code.as_ref().is_none_or(|code| code.digest != newest.digest());
        let are_new_settings = environment.as_ref().is_none_or(|environment| environment.values != serving.values);

        let mut done = false;
        if let (Some(code), Some(environment)) = (&mut code, &environment) {
            let reason = self.attempt(code, environment, &mut options).await?;
            done = reason.is_none();
            refused.component = reason.clone().filter(|_| is_new_code);
            refused.settings = reason.filter(|_| are_new_settings);
        }
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
        // What was sent and refused is not on disk.
        if done || !is_deployment {
            self.remember_refused(&refused);
        }
        Ok(refused)
    }

    /// Why this does not do, if it does not.
    ///
    /// # Errors
    /// When it would do, and cannot be written.
    async fn attempt(
        &self,
        code: &mut Code,
        environment: &Environment,
        options: &mut OfferOptions,
    ) -> anyhow::Result<Option<Reason>> {
        match self.offer(code, environment, options).await {
            Ok(()) => Ok(None),
            Err(error) if error.is::<Unwritten>() => Err(error),
            Err(error) => Ok(Some(Reason::of(&error, Some(code.digest)))),
        }
    }

    /// The component of this digest, if a generation runs it.
    fn find_compiled(&self, digest: Digest) -> Option<Code> {
        let generations = self.state(|state| state.rollout.generations());
        generations.iter().find(|generation| generation.digest() == digest).map(|generation| Code::of(generation))
    }

    /// From a component with settings to a generation at its first stage.
    async fn offer(
        &self,
        code: &mut Code,
        environment: &Environment,
        options: &mut OfferOptions,
    ) -> anyhow::Result<()> {
        let identity = Identity::new(code.digest, &environment.values);
        let is = |other: &Generation| *other.identity() == identity;
        if self.state(|state| is(state.rollout.newest()) || is(&state.rollout.live().generation)) {
            options.write().await?;
            // Whoever puts back what is live does not want the candidate any more.
            let unwanted = |state: &State| !is(state.rollout.newest());
            self.change(|state| if unwanted(state) { (state.rollout.withdraw(), ()) } else { (Vec::new(), ()) });
            return Ok(());
        }
        if !options.forgiving
            && let Some(refusal) = self.refusal(&identity, environment)
        {
            return Err(before(&refusal));
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

    /// Why this was rolled back, if it was. Another component than the one that serves was rolled back whatever secrets it has
    /// now: what serves needs new ones, and they are no reason to try it again.
    fn refusal(&self, identity: &Identity, environment: &Environment) -> Option<Refusal> {
        let serves = self.state(|state| state.rollout.newest().digest());
        let but_for_secrets = || self.ledger.refusal_but_for_secrets(identity.component, &environment.settings);
        let is_other = identity.component != serves;
        self.ledger.refusal(identity).or_else(|| is_other.then(but_for_secrets).flatten())
    }

    fn turned_down(&self, digest: Option<Digest>, reason: String) -> DeployError {
        self.remember_refusal(digest, &reason);
        DeployError::Refused(reason)
    }
}

async fn commit(replacement: Replacement) -> anyhow::Result<()> {
    let done = timeout(RENAMING, spawn_blocking(move || replacement.commit())).await;
    let late = || anyhow!("replacing the file has not ended after {RENAMING:?}: it may still take effect");
    Ok(done.map_err(|_| late())???)
}

/// Why nothing was deployed although nothing is wrong with the component.
fn unwritten(reason: anyhow::Error) -> DeployError {
    let reason = reason.downcast::<Unwritten>().map_or_else(|other| other, |Unwritten(reason)| reason);
    let words = crate::plugin::text::line(&reason);
    match reason.downcast_ref() {
        Some(WriteError::UnderWay(_)) => DeployError::NotNow(words),
        _ => DeployError::Failed(words),
    }
}
