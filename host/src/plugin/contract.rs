//! The contract of `wit/` as Rust types, and the checks that compare a component with the contract.

// One world with everything: the types are generated once, and the functions of each interface are looked up
// separately.
wasmtime::component::bindgen!({
    world: "authentication-routing-and-publishing",
    path: "../wit",
    // Arguments are borrowed: a packet is copied into the guest's memory and nowhere else.
    ownership: Borrowing { duplicate_if_necessary: true },
    // A call of these functions can end at its deadline, and can wait for a turn.
    imports: {
        "hotgate:gateway/directory": async | trappable,
        "hotgate:gateway/logging": async | trappable,
    },
    exports: { default: async },
});

pub(crate) use self::exports::hotgate::gateway::{authenticator, lifecycle, publications, router};
pub(crate) use self::hotgate::gateway::{directory, logging, types};

use std::fmt;

use anyhow::{Context as _, anyhow, bail};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::text::{list, plain};

/// The name of the optional interface of routers.
const PUBLICATIONS: &str = "hotgate:gateway/publications@0.1.0";

/// The roles of a plugin. A plugin can have both roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Whether the plugin decides who a client is.
    pub authenticator: bool,
    /// Whether the plugin decides who gets a message.
    pub router: bool,
    /// Whether the router also decides about messages of the HTTP API (`publications`). Only with `router`.
    pub publications: bool,
}

/// One role of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Decides who a client is.
    Authenticator,
    /// Decides who gets a message.
    Router,
}

/// One `T` for each role, so that the calls of one role do not hold up the calls of the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PerRole<T> {
    authenticator: T,
    router: T,
}

impl<T> PerRole<T> {
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        Self { authenticator: make(), router: make() }
    }

    pub(crate) fn of(&self, role: Role) -> &T {
        match role {
            Role::Authenticator => &self.authenticator,
            Role::Router => &self.router,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.authenticator, &self.router].into_iter()
    }
}

impl Roles {
    /// Returns the number of roles. `publications` is a part of the router's role.
    pub(crate) fn count(self) -> usize {
        usize::from(self.authenticator) + usize::from(self.router)
    }

    /// Returns `true` if all `others` are among these roles.
    pub fn include(self, others: Self) -> bool {
        (self.authenticator || !others.authenticator)
            && (self.router || !others.router)
            && (self.publications || !others.publications)
    }

    /// Returns the interfaces that a component with these roles must export.
    fn interfaces(self) -> impl Iterator<Item = &'static str> {
        let role = |wanted: bool, interface| wanted.then_some(interface);
        let roles = [
            role(self.authenticator, "authenticator"),
            role(self.router, "router"),
            role(self.publications, "publications"),
        ];
        ["lifecycle"].into_iter().chain(roles.into_iter().flatten())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.authenticator, self.router) {
            (true, true) => "authenticator and router",
            (true, false) => "authenticator",
            (false, true) => "router",
            (false, false) => "plugin",
        })?;
        f.write_str(if self.publications { " with publications" } else { "" })
    }
}

/// The functions of the contract that serve connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// `authenticator.greet`
    Greet,
    /// `authenticator.authenticate`
    Authenticate,
    /// `router.opened`
    Opened,
    /// `router.route`
    Route,
    /// `router.closed`
    Closed,
    /// `router.push`
    Push,
    /// `publications.publish`
    Publish,
}

/// The number of functions.
pub(crate) const FUNCTIONS: usize = 7;

impl Function {
    pub(crate) const ALL: [Self; FUNCTIONS] =
        [Self::Greet, Self::Authenticate, Self::Opened, Self::Route, Self::Closed, Self::Push, Self::Publish];

    /// Returns `true` if the client has no uid yet when this function is called.
    pub(crate) fn is_before_login(self) -> bool {
        matches!(self, Self::Greet | Self::Authenticate)
    }

    /// Returns the role that the function belongs to.
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Greet | Self::Authenticate => Role::Authenticator,
            Self::Opened | Self::Route | Self::Closed | Self::Push | Self::Publish => Role::Router,
        }
    }

    /// Returns the function's name in the contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Greet => "greet",
            Self::Authenticate => "authenticate",
            Self::Opened => "opened",
            Self::Route => "route",
            Self::Closed => "closed",
            Self::Push => "push",
            Self::Publish => "publish",
        }
    }
}

/// The places of a component's functions in its instances.
pub(crate) struct Exports {
    lifecycle: lifecycle::GuestIndices,
    authenticator: Option<authenticator::GuestIndices>,
    router: Option<router::GuestIndices>,
    publications: Option<publications::GuestIndices>,
}

impl Exports {
    /// Looks up the functions of these roles. If a function is missing, the error lists the exports that the roles need
    /// and the exports that the component has. If only `publications` is missing, the error names the setting that
    /// needs it.
    pub(crate) fn find<T>(component: &InstancePre<T>, roles: Roles) -> anyhow::Result<Self> {
        let wanted = |wanted: bool| wanted.then_some(component);
        let find = || -> wasmtime::Result<Self> {
            Ok(Self {
                lifecycle: lifecycle::GuestIndices::new(component)?,
                authenticator: wanted(roles.authenticator).map(authenticator::GuestIndices::new).transpose()?,
                router: wanted(roles.router).map(router::GuestIndices::new).transpose()?,
                publications: None,
            })
        };
        let mut exports = match find() {
            Ok(exports) => exports,
            Err(error) => {
                let wanted: Vec<_> = roles.interfaces().map(|name| format!("hotgate:gateway/{name}@0.1.0")).collect();
                let engine = component.engine();
                let exports = component.component().component_type();
                let found = list(exports.exports(engine).map(|(name, _)| name));
                let found = if found.is_empty() { "nothing" } else { &found };
                let error = plain(error);
                bail!("it is no {roles}: {error}; it must export {}; it exports {found}", wanted.join(", "))
            }
        };
        let publications = wanted(roles.publications).map(publications::GuestIndices::new).transpose();
        exports.publications = publications.map_err(|_missing| {
            anyhow!(
                "it does not export {PUBLICATIONS}, which api.rules = \"router\" needs: take a router that exports it \
                 (builtin:rooms-router does; the default, builtin:origin-router, does not), or set api.rules = \"direct\""
            )
        })?;
        Ok(exports)
    }

    /// Compares the types of all functions with the types of the contract.
    pub(crate) fn check_types<T: Send + 'static>(
        &self,
        store: &mut Store<T>,
        instance: &Instance,
    ) -> anyhow::Result<()> {
        let mismatch = |interface| {
            format!(
                "its functions in hotgate:gateway/{interface} do not have the types of the contract (built against another version of wit/?)"
            )
        };
        self.lifecycle(store, instance).map_err(plain).with_context(|| mismatch("lifecycle"))?;
        if self.authenticator.is_some() {
            self.authenticator(store, instance).map_err(plain).with_context(|| mismatch("authenticator"))?;
        }
        if self.router.is_some() {
            self.router(store, instance).map_err(plain).with_context(|| mismatch("router"))?;
        }
        if self.publications.is_some() {
            self.publications(store, instance).map_err(plain).with_context(|| mismatch("publications"))?;
        }
        Ok(())
    }

    pub(crate) fn lifecycle<T>(&self, store: &mut Store<T>, instance: &Instance) -> wasmtime::Result<lifecycle::Guest> {
        self.lifecycle.load(store, instance)
    }

    pub(crate) fn authenticator<T>(
        &self,
        store: &mut Store<T>,
        instance: &Instance,
    ) -> wasmtime::Result<authenticator::Guest> {
        let indices =
            self.authenticator.as_ref().ok_or_else(|| wasmtime::format_err!("the plugin is not an authenticator"))?;
        indices.load(store, instance)
    }

    pub(crate) fn router<T>(&self, store: &mut Store<T>, instance: &Instance) -> wasmtime::Result<router::Guest> {
        let indices = self.router.as_ref().ok_or_else(|| wasmtime::format_err!("the plugin is not a router"))?;
        indices.load(store, instance)
    }

    pub(crate) fn publications<T>(
        &self,
        store: &mut Store<T>,
        instance: &Instance,
    ) -> wasmtime::Result<publications::Guest> {
        let indices = self.publications.as_ref().ok_or_else(|| wasmtime::format_err!("api.rules is not \"router\""))?;
        indices.load(store, instance)
    }
}
