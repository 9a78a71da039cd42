//! A component that is ready to run, with all that its instances are made of.

use std::sync::Arc;

use wasmtime::component::InstancePre;

use super::environment::Environment;
use super::host::Host;
use super::log::GuestLog;
use super::memory::Holding;
use super::spec::Spec;
use super::turns::SlowCalls;
use crate::plugin::contract::Exports;

/// A linked component with its settings.
pub(crate) struct Prepared {
    pub(crate) spec: Arc<Spec>,
    pub(crate) component: InstancePre<Host>,
    pub(crate) exports: Exports,
    pub(crate) log: Arc<GuestLog>,
    pub(crate) environment: Environment,
}

impl Prepared {
    /// Creates the host's side of a new instance.
    pub(crate) fn host(&self, slow_calls: Arc<SlowCalls>, holding: Holding) -> Host {
        Host::new(&self.spec, &self.log, &self.environment, slow_calls, holding)
    }
}
