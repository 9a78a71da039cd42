//! Compares the contract that a component was built against with the contract in `wit/`, and describes each difference.
//! The engine only reports that types do not match.

use std::collections::HashSet;

use anyhow::Context as _;
use wasmparser::Parser;
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{
    Function, InterfaceId, PackageName, Resolve, SourceMap, Type, TypeDefKind, WorldId, WorldItem, WorldKey,
};

use crate::plugin::text::{list, shown};

/// The longest name from a component that is shown, in bytes.
const MAX_NAME: usize = 256;

/// The files of the contract.
pub(super) const FILES: [(&str, &str); 8] = [
    ("authenticator.wit", include_str!("../../../wit/authenticator.wit")),
    ("directory.wit", include_str!("../../../wit/directory.wit")),
    ("lifecycle.wit", include_str!("../../../wit/lifecycle.wit")),
    ("logging.wit", include_str!("../../../wit/logging.wit")),
    ("publications.wit", include_str!("../../../wit/publications.wit")),
    ("router.wit", include_str!("../../../wit/router.wit")),
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// A set of interfaces: the contract of this host, or the interfaces that a component was built against.
pub(super) struct Interfaces {
    resolve: Resolve,
    /// The exports and imports of a component; `None` for the contract.
    world: Option<WorldId>,
}

/// One interface in a component.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    id: InterfaceId,
    package: &'a PackageName,
    name: &'a str,
}

impl Found<'_> {
    /// Returns its full name: `hotgate:gateway/router@0.1.0`.
    pub(super) fn full_name(&self) -> String {
        self.package.interface_id(self.name)
    }

    /// Returns its name within the contract, if it belongs to the contract's package, in whatever version.
    pub(super) fn of_contract(&self) -> Option<&str> {
        (self.package.namespace == "hotgate" && self.package.name == "gateway").then_some(self.name)
    }

    /// Returns its package without the version: `wasi:http`.
    pub(super) fn package(&self) -> String {
        format!("{}:{}", self.package.namespace, self.package.name)
    }
}

impl Interfaces {
    /// Reads the contract of this host.
    pub(super) fn of_host() -> anyhow::Result<Self> {
        let mut files = SourceMap::new();
        for (name, text) in FILES {
            files.push_str(name, text);
        }
        let mut resolve = Resolve::default();
        let parsed = files.parse().map_err(|(_, error)| anyhow::anyhow!("{error:?}"));
        resolve.push_group(parsed.context("the contract cannot be read")?).context("the contract cannot be read")?;
        Ok(Self { resolve, world: None })
    }

    /// Reads the interfaces that a component was built against.
    ///
    /// # Errors
    /// When the component is malformed.
    pub(super) fn of_component(code: &[u8]) -> anyhow::Result<Self> {
        // Parse first: `decode` allocates as many bytes as the header of a section announces, even if they do not
        // follow.
        for payload in Parser::new(0).parse_all(code) {
            payload?;
        }
        match decode(code)? {
            DecodedWasm::Component(resolve, world) => Ok(Self { resolve, world: Some(world) }),
            DecodedWasm::WitPackage(..) => anyhow::bail!("it holds interfaces and no code (a WIT package)"),
        }
    }

    /// Returns the interfaces that a component exports.
    pub(super) fn exports(&self) -> impl Iterator<Item = Found<'_>> {
        let world = self.world.map(|world| &self.resolve.worlds[world].exports);
        world.into_iter().flatten().filter_map(|(key, item)| self.found(key, item))
    }

    /// Returns the interfaces that a component imports.
    pub(super) fn imports(&self) -> impl Iterator<Item = Found<'_>> {
        let world = self.world.map(|world| &self.resolve.worlds[world].imports);
        world.into_iter().flatten().filter_map(|(key, item)| self.found(key, item))
    }

    /// Returns the functions that a component imports outside of interfaces. Exports outside of interfaces belong to
    /// its language's runtime.
    pub(super) fn bare(&self) -> Vec<String> {
        let world = self.world.map(|world| &self.resolve.worlds[world].imports);
        let bare = world.into_iter().flatten().filter(|(_, item)| matches!(item, WorldItem::Function(_)));
        bare.map(|(key, _)| self.resolve.name_world_key(key)).collect()
    }

    fn found(&self, key: &WorldKey, item: &WorldItem) -> Option<Found<'_>> {
        let WorldItem::Interface { id, .. } = item else { return None };
        let named = match key {
            WorldKey::Interface(id) => &self.resolve.interfaces[*id],
            WorldKey::Name(_) => return None,
        };
        let package = &self.resolve.packages[named.package?].name;
        Some(Found { id: *id, package, name: named.name.as_deref()? })
    }

    /// Returns the version of the package. The contract has one package.
    #[cfg(test)]
    pub(super) fn version(&self) -> Option<String> {
        self.resolve.packages.iter().find_map(|(_, package)| package.name.version.as_ref().map(ToString::to_string))
    }

    fn interface(&self, name: &str) -> Option<InterfaceId> {
        self.resolve.packages.iter().find_map(|(_, package)| package.interfaces.get(name).copied())
    }
}

/// Returns the differences between one interface of a component and the same interface of the host. An exported
/// interface must have every function, because the host calls them; an imported one may have only some of them.
pub(super) fn differences(host: &Interfaces, component: &Interfaces, found: Found<'_>, exported: bool) -> Vec<String> {
    let Some(known) = host.interface(found.name) else {
        return vec![format!("the host has no interface `{}`", found.name)];
    };
    let (known, given) = (&host.resolve.interfaces[known], &component.resolve.interfaces[found.id]);
    let mut compare =
        Compare { host: &host.resolve, component: &component.resolve, seen: HashSet::new(), found: Vec::new() };
    for function in known.functions.values() {
        match given.functions.get(&function.name) {
            Some(given) => compare.function(function, given),
            None if exported => compare.found.push(format!("it has no function `{}`", function.name)),
            None => {}
        }
    }
    for name in given.functions.keys().filter(|name| !exported && !known.functions.contains_key(*name)) {
        compare.found.push(format!("it calls `{name}`, which the host does not have"));
    }
    compare.found
}

/// Compares the types of the host and of a component. Reports the difference of a named type once.
struct Compare<'a> {
    host: &'a Resolve,
    component: &'a Resolve,
    seen: HashSet<String>,
    found: Vec<String>,
}

impl Compare<'_> {
    fn function(&mut self, known: &Function, given: &Function) {
        let name = &known.name;
        if known.params.len() != given.params.len() {
            let names: Vec<_> = known.params.iter().map(|param| param.name.as_str()).collect();
            let (takes, has) = (given.params.len(), known.params.len());
            let arguments = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            self.found.push(format!("`{name}` has {takes} arguments, the host knows {has}{arguments}"));
            return;
        }
        for (known, given) in known.params.iter().zip(&given.params) {
            self.types(&format!("argument `{}` of `{name}`", known.name), known.ty, given.ty);
        }
        self.optional(&format!("the result of `{name}`"), known.result, given.result);
    }

    fn optional(&mut self, at: &str, known: Option<Type>, given: Option<Type>) {
        match (known, given) {
            (Some(known), Some(given)) => self.types(at, known, given),
            (None, None) => {}
            (known, given) => {
                let type_name =
                    |resolve: &Resolve, of: Option<Type>| of.map_or("nothing".to_owned(), |of| name(resolve, of));
                let (known, given) = (type_name(self.host, known), type_name(self.component, given));
                self.found.push(format!("{at} is {given}, the host knows {known}"));
            }
        }
    }

    fn types(&mut self, at: &str, known: Type, given: Type) {
        let (known, given) = (plain(self.host, known), plain(self.component, given));
        let (Type::Id(known_id), Type::Id(given_id)) = (known, given) else {
            if known != given {
                self.differ(at, known, given);
            }
            return;
        };
        let (known_def, given_def) = (&self.host.types[known_id], &self.component.types[given_id]);
        // Compare each named type once, however often it is used.
        if let Some(name) = &known_def.name
            && !self.seen.insert(name.clone())
        {
            return;
        }
        let label = known_def.name.as_ref().map_or_else(|| at.to_owned(), |name| format!("`{name}`"));
        match (&known_def.kind, &given_def.kind) {
            (TypeDefKind::Record(known), TypeDefKind::Record(given)) => {
                let fields = |record: &wit_parser::Record| -> Vec<_> {
                    record.fields.iter().map(|field| (field.name.clone(), Some(field.ty))).collect()
                };
                self.members(&label, "fields", &fields(known), &fields(given));
            }
            (TypeDefKind::Variant(known), TypeDefKind::Variant(given)) => {
                let cases = |variant: &wit_parser::Variant| -> Vec<_> {
                    variant.cases.iter().map(|case| (case.name.clone(), case.ty)).collect()
                };
                self.members(&label, "cases", &cases(known), &cases(given));
            }
            (TypeDefKind::Enum(known), TypeDefKind::Enum(given)) => {
                let cases = |list: &wit_parser::Enum| -> Vec<_> {
                    list.cases.iter().map(|case| (case.name.clone(), None)).collect()
                };
                self.members(&label, "cases", &cases(known), &cases(given));
            }
            (TypeDefKind::Option(known), TypeDefKind::Option(given))
            | (TypeDefKind::List(known), TypeDefKind::List(given)) => self.types(at, *known, *given),
            (TypeDefKind::Result(known), TypeDefKind::Result(given)) => {
                self.optional(at, known.ok, given.ok);
                self.optional(&format!("the error of {at}"), known.err, given.err);
            }
            (TypeDefKind::Tuple(known), TypeDefKind::Tuple(given)) if known.types.len() == given.types.len() => {
                known.types.iter().zip(&given.types).for_each(|(known, given)| self.types(at, *known, *given));
            }
            // The contract has no types of other kinds.
            _ => self.differ(at, known, given),
        }
    }

    fn members(&mut self, at: &str, kind: &str, known: &[(String, Option<Type>)], given: &[(String, Option<Type>)]) {
        let names = |members: &[(String, Option<Type>)]| -> Vec<String> {
            members.iter().map(|(name, _)| name.clone()).collect()
        };
        if names(known) == names(given) {
            for ((name, known), (_, given)) in known.iter().zip(given) {
                self.optional(&format!("`{name}` of {at}"), *known, *given);
            }
            return;
        }
        let (ours, theirs) = (names(known), names(given));
        let lacks = list(ours.iter().filter(|name| !theirs.contains(name)).map(|name| format!("`{name}`")));
        let more = list(theirs.iter().filter(|name| !ours.contains(name)).map(|name| format!("`{name}`")));
        let mut detail = Vec::new();
        if !lacks.is_empty() {
            detail.push(format!("it lacks {lacks}"));
        }
        if !more.is_empty() {
            detail.push(format!("the host does not know {more}"));
        }
        if detail.is_empty() {
            detail.push("the order differs".to_owned());
        }
        let (has, knows) = (given.len(), known.len());
        self.found.push(format!("{at} has {has} {kind}, the host knows {knows}: {}", detail.join("; ")));
    }

    fn differ(&mut self, at: &str, known: Type, given: Type) {
        let (known, given) = (name(self.host, known), name(self.component, given));
        self.found.push(format!("{at} is {given}, the host knows {known}"));
    }
}

/// Returns the type behind its aliases.
fn plain(resolve: &Resolve, mut of: Type) -> Type {
    while let Type::Id(id) = of
        && let TypeDefKind::Type(inner) = resolve.types[id].kind
    {
        of = inner;
    }
    of
}

/// How deep a type without a name is described, such as a list of lists.
const DEPTH: usize = 4;

/// Describes a type.
fn name(resolve: &Resolve, of: Type) -> String {
    let (mut of, mut text) = (of, String::new());
    for _ in 0..DEPTH {
        let Type::Id(id) = plain(resolve, of) else { break };
        let def = &resolve.types[id];
        match (&def.name, &def.kind) {
            (None, TypeDefKind::List(inner)) => (of, text) = (*inner, text + "list of "),
            (None, TypeDefKind::Option(inner)) => (of, text) = (*inner, text + "option of "),
            (None, kind) => return text + kind.as_str(),
            (Some(name), kind) => return format!("{text}{} `{}`", kind.as_str(), shown(name, MAX_NAME)),
        }
    }
    match plain(resolve, of) {
        Type::Id(id) => text + resolve.types[id].kind.as_str(),
        of => text + &format!("{of:?}").to_lowercase(),
    }
}
