//! Checks a component: what it is, which roles it can fill, and which problems it has, each with advice.

use std::fmt;

use serde::Serialize;

use super::contract::{Found, Interfaces, differences};
use super::{DevKit, capture};
use crate::plugin::text::{line, list};
use crate::plugin::{CheckRefused, Digest, Encoding, Roles, Surroundings};

/// The packages of WASI that plugins may import.
const WASI: [&str; 6] = ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// The packages whose functions always fail. Language runtimes import them, even if the plugin does not use them.
const REFUSED: [&str; 2] = ["wasi:filesystem", "wasi:sockets"];

/// The result of a check.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The file of the component.
    pub file: String,
    /// Bytes of the component.
    pub bytes: usize,
    /// Its SHA-256.
    pub sha256: String,
    /// True if it can serve.
    pub usable: bool,
    /// True if it can be an authenticator.
    pub authenticator: bool,
    /// True if it can be a router.
    pub router: bool,
    /// True if it is a router that can serve with `api.rules = "router"`.
    pub publications: bool,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// Its problems, the gravest first.
    pub problems: Vec<Finding>,
    /// Facts that are no problems, such as imports whose functions always fail.
    pub notes: Vec<String>,
    /// The resources that it takes; `None` if it could not be loaded.
    pub taken: Option<Taken>,
    /// The log lines of its `lifecycle.check`, if they were captured.
    #[serde(skip)]
    pub log: Vec<String>,
}

/// A problem, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of the problem.
    pub kind: Kind,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub advice: &'static str,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The file is not a component, or cannot be read.
    Format,
    /// The component lacks an export that its role needs.
    Role,
    /// The component was built against another contract.
    Contract,
    /// The component imports something that the gateway does not provide.
    Imports,
    /// The component cannot be loaded.
    Load,
    /// Its `lifecycle.check` refuses.
    Refused,
}

/// The resources that a plugin takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Taken {
    /// How long compiling took, in ms. For compiled code from the cache: how long it took then.
    pub compile_ms: u64,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Bytes of linear memory of an instance at its start.
    pub memory_bytes: usize,
}

const EMPTY: &str = "the build has written nothing, or is not finished: build the plugin again";
const ENCODING: &str =
    "the file is cut off, or made by older or newer tools: build it again with current tools, or take a newer gateway";
const DAMAGED: &str =
    "the file is damaged, holds no code, or is made by newer tools: build it again, or take a newer gateway";
const REBUILD: &str = "build it against the wit/ of this host: `hotgate plugin new` writes a copy of it";
const BUILD_A_COMPONENT: &str = "compile for a target that makes components: in Rust, \
                                 `cargo build --target wasm32-wasip2` with crate-type = [\"cdylib\"]";
const EXPORT: &str = "a plugin must export hotgate:gateway/lifecycle, and authenticator, router or both (see \
                      wit/worlds.wit); `hotgate plugin new` writes one to begin with";
const SETTINGS: &str = "read the reason; if a setting is missing, give it with --setting NAME=VALUE or --config (for \
                        `hotgate dev`: in plugin.toml)";
const LOAD: &str = "read the reason; if a limit is too low, raise it in the configuration and check with --config";
const NO_NETWORK: &str = "a plugin reaches no network and no service: all that it knows comes from its settings and \
                          from packets. If a library imports this, build the library without it. A plugin may import \
                          hotgate:gateway, and wasi:cli, clocks, filesystem, io, random and sockets";
const BARE: &str = "the toolchain added an import that the gateway does not have: in Rust, build for wasm32-wasip2";

/// Inspects a component without running it: what it is, and whether it can fill the roles that are `wanted`.
///
/// # Errors
/// When the contract of this host cannot be read.
pub fn inspect(file: &str, code: &[u8], wanted: Option<Roles>) -> anyhow::Result<Report> {
    let sha256 = Digest::of(code).full();
    let mut report = Report { file: file.to_owned(), bytes: code.len(), sha256, ..Report::default() };
    let Some(component) = component(code, &mut report) else { return Ok(report) };
    let roles = roles(&Interfaces::of_host()?, &component, &mut report);
    for (role, able, is_wanted) in [
        ("authenticator", roles.authenticator, wanted.is_some_and(|wanted| wanted.authenticator)),
        ("router", roles.router, wanted.is_some_and(|wanted| wanted.router)),
    ] {
        if is_wanted && !able {
            let what = format!("it is no {role}: it does not export hotgate:gateway/{role}@{CONTRACT_VERSION}");
            report.problem(Kind::Role, what, EXPORT);
        }
    }
    let Roles { authenticator, router, publications } = roles;
    (report.authenticator, report.router, report.publications) = (authenticator, router, publications);
    Ok(report)
}

impl DevKit {
    /// Inspects the component. If it has no problems, loads it as the gateway would, with the settings of the devkit.
    /// Loads it for the roles that are `wanted`, or else for all roles that it can fill.
    ///
    /// # Errors
    /// When the contract of this host cannot be read.
    pub async fn check(&self, file: &str, wanted: Option<Roles>) -> anyhow::Result<Report> {
        let mut report = inspect(file, self.code(), wanted)?;
        if !report.problems.is_empty() {
            return Ok(report);
        }
        let loaded = self.load(report.roles_to_load(wanted), None, Surroundings::default()).await;
        report.log = capture::take().lines().map(str::to_owned).collect();
        match loaded {
            Ok((harness, _)) => {
                let live = harness.slot().status().live;
                let compile_ms = live.compile_ms.unwrap_or_default();
                let (code_bytes, memory_bytes) = (live.code_bytes, live.memory_bytes);
                report.taken = Some(Taken { compile_ms, code_bytes, memory_bytes });
                report.usable = true;
            }
            Err(error) => {
                // Leave out the outermost error: it only names slot and file, which are known here.
                let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
                let why = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
                let (kind, advice) = match error.chain().any(<dyn std::error::Error>::is::<CheckRefused>) {
                    true => (Kind::Refused, SETTINGS),
                    false => (Kind::Load, LOAD),
                };
                report.problem(kind, why, advice);
            }
        }
        Ok(report)
    }
}

impl Report {
    /// Returns the roles that the component can fill.
    pub fn roles(&self) -> Roles {
        Roles { authenticator: self.authenticator, router: self.router, publications: self.publications }
    }

    /// Returns the roles that are `wanted`, or else all that the component can fill. A router that exports
    /// `publications` is loaded with this interface.
    pub fn roles_to_load(&self, wanted: Option<Roles>) -> Roles {
        let able = self.roles();
        wanted.map_or(able, |wanted| Roles { publications: wanted.router && able.publications, ..wanted })
    }

    fn problem(&mut self, kind: Kind, what: impl Into<String>, advice: &'static str) {
        self.problems.push(Finding { kind, what: what.into(), advice });
    }
}

/// Reads the interfaces that a component was built against. Reports a problem if the code is no component.
fn component(code: &[u8], report: &mut Report) -> Option<Interfaces> {
    let (what, advice) = match Encoding::of(code) {
        Encoding::Component => match Interfaces::of_component(code) {
            Ok(component) => return Some(component),
            Err(error) => (format!("it is a component that cannot be read: {}", line(&error)), DAMAGED),
        },
        Encoding::Empty => ("the file is empty".to_owned(), EMPTY),
        Encoding::Text => ("it is text, not WebAssembly".to_owned(), BUILD_A_COMPONENT),
        Encoding::Other => ("it is not WebAssembly".to_owned(), BUILD_A_COMPONENT),
        Encoding::Module => ("it is a core WebAssembly module, not a component".to_owned(), BUILD_A_COMPONENT),
        Encoding::OtherVersion(_) | Encoding::Unknown => {
            ("it begins like WebAssembly, but in an encoding that this gateway does not know".to_owned(), ENCODING)
        }
    };
    report.problem(Kind::Format, what, advice);
    None
}

/// Returns the roles that the component can fill, and reports its problems.
fn roles(host: &Interfaces, component: &Interfaces, report: &mut Report) -> Roles {
    report.exports = component.exports().map(|found| found.full_name()).collect();
    report.imports = component.imports().map(|found| found.full_name()).collect();
    let export = |name: &str| component.exports().find(|found| found.of_contract() == Some(name));
    let (lifecycle, authenticator, router) = (export("lifecycle"), export("authenticator"), export("router"));
    let publications = export("publications");
    if authenticator.is_none() && router.is_none() {
        let (what, advice) = not_a_plugin(component);
        report.problem(Kind::Role, what, advice);
    } else if lifecycle.is_none() {
        let what = format!("it does not export hotgate:gateway/lifecycle@{CONTRACT_VERSION}");
        report.problem(Kind::Role, what, EXPORT);
    }
    for found in [lifecycle, authenticator, router, publications].into_iter().flatten() {
        compare(host, component, found, true, report);
    }
    for found in component.imports() {
        match found.of_contract() {
            Some(_) => compare(host, component, found, false, report),
            None if WASI.contains(&found.package().as_str()) => {
                let package = found.package();
                let note = format!("it imports {package}: this is allowed, but every call of it is refused");
                if REFUSED.contains(&package.as_str()) && !report.notes.contains(&note) {
                    report.notes.push(note);
                }
            }
            None => {
                let what = format!("it imports {}, which the gateway does not provide", found.full_name());
                report.problem(Kind::Imports, what, NO_NETWORK);
            }
        }
    }
    for function in component.bare() {
        let what = format!("it imports a function `{function}`, which the gateway does not provide");
        report.problem(Kind::Imports, what, BARE);
    }
    let (authenticator, router) = (authenticator.is_some(), router.is_some());
    Roles { authenticator, router, publications: router && publications.is_some() }
}

/// Describes a component that is not a plugin, and returns advice.
fn not_a_plugin(component: &Interfaces) -> (String, &'static str) {
    let exports = |wanted: &str| component.exports().any(|found| found.full_name().starts_with(wanted));
    if exports("wasi:cli/run") {
        let advice = "a plugin is a library: in Rust, src/lib.rs with crate-type = [\"cdylib\"] instead of src/main.rs";
        return ("it is a command (it exports wasi:cli/run), not a plugin".to_owned(), advice);
    }
    if exports("wasi:http/") {
        return ("it is an HTTP handler, not a plugin".to_owned(), EXPORT);
    }
    let has = list(component.exports().map(|found| found.full_name()));
    let has = if has.is_empty() { "nothing" } else { &has };
    (
        format!("it is not a plugin: it exports neither hotgate:gateway/authenticator nor router; it exports {has}"),
        EXPORT,
    )
}

/// Compares one interface of the component with the host's, and reports each difference.
fn compare(host: &Interfaces, component: &Interfaces, found: Found<'_>, exported: bool, report: &mut Report) {
    let name = found.of_contract().unwrap_or_default();
    let built = found.full_name();
    let differences = differences(host, component, found, exported);
    let version = built.split_once('@').map_or("no version", |(_, version)| version);
    if differences.is_empty() && !is_compatible(version) {
        let what = format!("it was built against {built}; this host has {CONTRACT_VERSION}");
        report.problem(Kind::Contract, what, REBUILD);
    }
    for difference in differences {
        let what = match version == CONTRACT_VERSION {
            true => format!("{name}: {difference} (both have version {CONTRACT_VERSION}, but one was changed)"),
            false => format!("{name}: {difference}: built against {built}; this host has {CONTRACT_VERSION}"),
        };
        report.problem(Kind::Contract, what, REBUILD);
    }
}

/// The version of the contract.
const CONTRACT_VERSION: &str = "0.1.0";

/// Returns `true` if the linker accepts this version of the contract (semver: 0.1.x).
fn is_compatible(version: &str) -> bool {
    version
        .strip_prefix("0.1.")
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns one line for each package: `wasi:cli@0.2.6: environment, exit`.
fn by_package(interfaces: &[String]) -> Vec<String> {
    let mut packages: Vec<(String, Vec<&str>)> = Vec::new();
    for full in interfaces {
        let (package, rest) = full.split_once('/').unwrap_or((full, ""));
        let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
        let package = if version.is_empty() { package.to_owned() } else { format!("{package}@{version}") };
        match packages.iter_mut().find(|(known, _)| *known == package) {
            Some((_, names)) => names.push(name),
            None => packages.push((package, vec![name])),
        }
    }
    packages.into_iter().map(|(package, names)| format!("{package}: {}", names.join(", "))).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: usize| match bytes {
            0..10_240 => format!("{bytes} bytes"),
            10_240..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
            _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        };
        let roles = match (self.authenticator, self.router) {
            (true, true) => "authenticator and router",
            (true, false) => "authenticator",
            (false, true) => "router",
            (false, false) => "none",
        };
        writeln!(f, "{}", self.file)?;
        writeln!(f, "  size      {}, sha256 {}", size(self.bytes), &self.sha256[..12])?;
        writeln!(f, "  roles     {roles}")?;
        match (self.router, self.publications) {
            (_, true) => writeln!(f, "  api.rules \"direct\" or \"router\": it exports publications")?,
            (true, false) => writeln!(f, "  api.rules \"direct\" only: it does not export publications")?,
            (false, false) => {}
        }
        for (label, interfaces) in [("exports", &self.exports), ("imports", &self.imports)] {
            for (index, names) in by_package(interfaces).iter().enumerate() {
                let label = if index == 0 { label } else { "" };
                writeln!(f, "  {label:9} {names}")?;
            }
        }
        if let Some(Taken { compile_ms, code_bytes, memory_bytes }) = self.taken {
            writeln!(f, "  compiled  in {compile_ms} ms, to {} of machine code", size(code_bytes))?;
            writeln!(f, "  memory    {} at its start", size(memory_bytes))?;
            writeln!(f, "  check     accepts these settings")?;
        }
        for line in &self.log {
            writeln!(f, "  check     {line}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note      {note}")?;
        }
        for Finding { what, advice, .. } in &self.problems {
            writeln!(f, "  PROBLEM   {what}")?;
            writeln!(f, "            → {advice}")?;
        }
        writeln!(f, "{}", if self.usable { "It can serve." } else { "It cannot serve." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_contract() {
        assert_eq!(Interfaces::of_host().unwrap().version().as_deref(), Some(CONTRACT_VERSION));
    }

    #[test]
    fn versions_of_the_track_are_taken() {
        for (version, taken) in
            [("0.1.0", true), ("0.1.12", true), ("0.2.0", false), ("1.1.0", false), ("0.1.", false), ("0.1.x", false)]
        {
            assert_eq!(is_compatible(version), taken, "{version}");
        }
    }
}
