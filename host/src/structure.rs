//! Holds the structure of this crate: wings import only from wings below them, no files import each other in a circle,
//! and files and comment lines are short. The plugins' crates have no circles either.
//!
//! It reads the paths that begin with `crate::`, `super::` or `self::` in all files. Tests and fuzz targets may import
//! what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The wings, the lowest first.
const WINGS: [&str; 9] = ["config", "base", "hub", "plugin", "policy", "devkit", "edge", "gateway", "cli"];

/// The wings of `plugin/`, the lowest first. The files beside them are below all of them.
const PLUGIN_WINGS: [&str; 4] = ["plugin/compile", "plugin/runtime", "plugin/slot", "plugin/deploy"];

/// What wit-bindgen generates in the root of a plugin's crate. It stands in no file, so it is no import.
const GENERATED: [&str; 2] = ["exports", "hotgate"];

/// All modules by their path from the root of the crate (`hub/outbox/budget`), with their code. The path of `lib.rs` is
/// empty.
type Modules = BTreeMap<String, String>;

/// Reads all files but those of tests and fuzz targets.
fn read(folder: &Path, at: &str, modules: &mut Modules) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        let stem = path.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let module = match (at, stem) {
            (_, "main" | "structure" | "tests" | "fuzz") => continue,
            ("", "lib") => String::new(),
            ("", _) => stem.to_owned(),
            (_, "mod") => at.to_owned(),
            _ => format!("{at}/{stem}"),
        };
        if path.is_dir() {
            read(&path, &module, modules);
        } else if path.extension().is_some_and(|end| end == "rs") {
            modules.insert(module, code(&fs::read_to_string(&path).expect("a readable file")));
        }
    }
}

/// The code of a file without comments, and without the unit tests at its end.
fn code(text: &str) -> String {
    let (text, tests) = text.split_once("\nmod tests {").unwrap_or((text, ""));
    let end = tests.find("\n}\n").map_or(0, |at| at + "\n}\n".len());
    assert!(tests[end..].is_empty(), "code follows the unit tests: {}", &tests[end..]);
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that a module names. Each is written out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                write_out(String::new(), &mut code[at..].chars().peekable(), &mut paths);
            }
        }
    }
    paths
}

/// The path of a module below this one, counted from this one.
fn below<'a>(module: &str, other: &'a str) -> Option<&'a str> {
    let rest = other.strip_prefix(module)?;
    if module.is_empty() { Some(rest).filter(|rest| !rest.is_empty()) } else { rest.strip_prefix('/') }
}

/// The paths that begin with a child of this module, as `mod.rs` or `lib.rs` may write them: `child::item`.
fn child_paths(modules: &Modules, module: &str, code: &str) -> Vec<String> {
    let children = modules.keys().filter_map(|other| below(module, other));
    let mut paths = Vec::new();
    for child in children.filter(|child| !child.contains('/')) {
        for (at, _) in code.match_indices(&format!("{child}::")) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                write_out("self::".to_owned(), &mut code[at..].chars().peekable(), &mut paths);
            }
        }
    }
    paths
}

/// Reads one path, or a list of paths in braces, that follows this beginning.
fn write_out(begun: String, code: &mut std::iter::Peekable<std::str::Chars<'_>>, paths: &mut Vec<String>) {
    let mut path = begun;
    while let Some(&c) = code.peek() {
        if c == '{' {
            loop {
                code.next();
                while code.next_if(|c| c.is_whitespace()).is_some() {}
                write_out(path.clone(), code, paths);
                // What follows in the list: `as name`, a comma, or its end.
                while code.next_if(|&c| c != ',' && c != '}').is_some() {}
                if code.peek() != Some(&',') {
                    code.next();
                    return;
                }
            }
        }
        if !(c.is_alphanumeric() || c == '_' || c == ':') {
            break;
        }
        path.push(c);
        code.next();
    }
    paths.push(path);
}

/// The module that a path from `module` leads into, with what is left of the path.
fn resolve(modules: &Modules, module: &str, path: &str) -> Option<(String, String)> {
    let is_folder = |module: &str| modules.keys().any(|other| below(module, other).is_some());
    let mut at = module.to_owned();
    let mut left = path.split("::").peekable();
    while let Some(&step) = left.peek() {
        match step {
            "crate" => at.clear(),
            "self" => {}
            "super" => at = at.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned()),
            _ => {
                let next = if at.is_empty() { step.to_owned() } else { format!("{at}/{step}") };
                if !modules.contains_key(&next) && !is_folder(&next) {
                    break;
                }
                at = next;
            }
        }
        left.next();
    }
    modules.contains_key(&at).then(|| (at, left.collect::<Vec<_>>().join("::")))
}

/// Whether a statement is a `pub use`, of whatever visibility.
fn is_re_export(statement: &str) -> bool {
    let Some(rest) = statement.trim_start().strip_prefix("pub") else { return false };
    let rest = if rest.starts_with('(') { rest.split_once(')').map_or(rest, |(_, rest)| rest) } else { rest };
    rest.trim_start().starts_with("use ")
}

/// Where the modules in a folder's `mod.rs` are re-exported from: module and name, by module and name.
fn re_exports(modules: &Modules) -> BTreeMap<(String, String), (String, String)> {
    let mut found = BTreeMap::new();
    for (module, code) in modules {
        for statement in code.split(';').filter(|statement| is_re_export(statement)) {
            assert!(!statement.ends_with("::*"), "{module} re-exports everything of a module: {statement}");
            for path in paths(statement).into_iter().chain(child_paths(modules, module, statement)) {
                if let Some((target, name)) = resolve(modules, module, &path).filter(|(target, _)| target != module) {
                    // Behind `as` it has another name.
                    let shown = statement.split_once(&format!("{name} as ")).map(|(_, rest)| identifier(rest));
                    found.insert((module.clone(), shown.unwrap_or_else(|| name.clone())), (target, name));
                }
            }
        }
    }
    found
}

/// Which modules each module imports from. A name that is only re-exported counts as imported from where it is defined.
fn imports(modules: &Modules) -> BTreeMap<String, BTreeSet<String>> {
    let re_exports = re_exports(modules);
    let mut imports = BTreeMap::new();
    for (module, code) in modules {
        let from: &mut BTreeSet<String> = imports.entry(module.clone()).or_default();
        assert!(!code.contains("use crate as ") && !code.contains("$crate"), "{module} hides its imports");
        let all = |statement| [paths(statement), child_paths(modules, module, statement)].concat();
        let statements = code.split(';').map(|statement| (is_re_export(statement), all(statement)));
        for (re_exported, path) in statements.flat_map(|(is, paths)| paths.into_iter().map(move |path| (is, path))) {
            let Some((mut target, mut name)) = resolve(modules, module, &path) else { continue };
            // A folder's `mod.rs` shows what the folder contains. That is no import.
            if re_exported && below(module, &target).is_some() {
                continue;
            }
            while let Some((defined, as_name)) = re_exports.get(&(target.clone(), first(&name))) {
                (target, name) = (defined.clone(), as_name.clone());
            }
            let is_generated = target.is_empty() && GENERATED.contains(&first(&name).as_str());
            if target != *module && !is_generated {
                from.insert(target);
            }
        }
    }
    imports
}

/// The identifier at the beginning of a text.
fn identifier(text: &str) -> String {
    text.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect()
}

fn first(path: &str) -> String {
    path.split("::").next().unwrap_or_default().to_owned()
}

/// Imports that go up among these wings, as `from → to`.
fn upward(imports: &BTreeMap<String, BTreeSet<String>>, wings: &[&str]) -> Vec<String> {
    let is_in = |module: &str, wing: &str| {
        module.strip_prefix(wing).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let floor = |module: &str| match wings.iter().position(|wing| is_in(module, wing)) {
        Some(wing) => Some(wing + 1),
        // A file beside the wings of `plugin/`.
        None => (wings == PLUGIN_WINGS && module.starts_with("plugin/")).then_some(0),
    };
    let arrows = imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to)));
    let up = arrows.filter(|(from, to)| matches!((floor(from), floor(to)), (Some(from), Some(to)) if from < to));
    up.map(|(from, to)| format!("{from} → {to}")).collect()
}

/// A circle of imports, if there is one.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    fn visit<'a>(
        module: &'a str,
        imports: &'a BTreeMap<String, BTreeSet<String>>,
        trail: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<String> {
        if let Some(at) = trail.iter().position(|seen| *seen == module) {
            let name = |module: &&'a str| if module.is_empty() { "lib" } else { module };
            return Some(trail[at..].iter().chain([&module]).map(name).collect::<Vec<_>>().join(" → "));
        }
        if !done.insert(module) {
            return None;
        }
        trail.push(module);
        let found = imports.get(module)?.iter().find_map(|next| visit(next, imports, trail, done));
        trail.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}

fn this_crate() -> Modules {
    let mut modules = Modules::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut modules);
    // `lib.rs` is above all wings and only shows them.
    modules.remove("");
    modules
}

#[test]
fn every_module_is_in_a_wing() {
    for module in this_crate().keys() {
        assert!(WINGS.contains(&first(&module.replace('/', "::")).as_str()), "{module} is in none of {WINGS:?}");
    }
}

#[test]
fn wings_import_only_from_wings_below() {
    let imports = imports(&this_crate());
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 300, "imports are not found");
    assert_eq!(upward(&imports, &WINGS), Vec::<String>::new(), "a wing imports from above");
    assert_eq!(upward(&imports, &PLUGIN_WINGS), Vec::<String>::new(), "a wing of plugin/ imports from above");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    assert_eq!(circle(&imports(&this_crate())), None);
}

#[test]
fn no_files_of_a_plugin_import_each_other_in_a_circle() {
    let mut files = 0;
    for plugin in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins")).expect("a readable folder") {
        let source = plugin.expect("a readable folder").path().join("src");
        if source.is_dir() {
            let mut modules = Modules::new();
            read(&source, "", &mut modules);
            files += modules.len();
            assert_eq!(circle(&imports(&modules)), None, "{}", source.display());
        }
    }
    assert!(files > 20, "the plugins' files are not found");
}

/// All Rust files of the repository.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") && !is_hidden {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn files_and_comment_lines_are_short() {
    const MAX_LINES: usize = 400;
    const MAX_COLUMNS: usize = 120;
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut files);
    assert!(files.len() > 200, "files are not found");
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a readable file");
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push(format!("{}: {lines} lines", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            // Rows of a table cannot be wrapped.
            let is_row = line.trim_start_matches([' ', '/', '!']).starts_with('|');
            if line.trim_start().starts_with("//") && !is_row && line.chars().count() > MAX_COLUMNS {
                found.push(format!("{}:{}: a comment of over {MAX_COLUMNS} columns", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Made-up modules.
fn modules(files: &[(&str, &str)]) -> Modules {
    files.iter().map(|(name, text)| (name.to_string(), code(text))).collect()
}

#[test]
fn wrong_imports_are_found() {
    let files = modules(&[
        ("hub", "pub use self::outbox::{Budget, Outbox as Queue};"),
        ("hub/outbox", "use crate::base::message::Message;\nuse super::registry::Registry;"),
        ("hub/registry", "use crate::{base::message, hub::{Budget}};"),
        ("base/message", "fn f() { crate::hub::outbox::g() } // crate::cli::run"),
        ("cli", "#[cfg(test)]\nmod tests {\nuse crate::gateway;\n}\n"),
        ("plugin/slot", ""),
        ("plugin/status", "use super::slot::Slot;"),
        ("policy", "fn f() { ask::g() }"),
        ("policy/ask", "use super::f;"),
        ("config", "pub fn f() { use crate::hub::Queue; }"),
        ("config/units", "use crate::a; pub(crate) use crate::cli::run;"),
    ]);
    let imports = imports(&files);
    let expected = ["base/message → hub/outbox", "config → hub/outbox", "config/units → cli"];
    assert_eq!(upward(&imports, &WINGS), expected);
    assert_eq!(upward(&imports, &PLUGIN_WINGS), ["plugin/status → plugin/slot"]);
    assert!(imports["policy"].contains("policy/ask") && imports["policy/ask"].contains("policy"));
    assert_eq!(circle(&imports).unwrap(), "base/message → hub/outbox → base/message");
    assert!(imports["hub/registry"].contains("hub/outbox") && imports["hub/registry"].contains("base/message"));
    assert!(imports["hub"].is_empty() && imports["cli"].is_empty());
}

#[test]
fn circles_in_a_plugin_are_found() {
    let found = |files: &[(&str, &str)]| circle(&imports(&modules(files)));
    let child = ("uid", "use crate::string;");
    let through_lib = found(&[("", "mod uid;\nuse uid::MAX;\npub fn string() {}"), child]);
    assert_eq!(through_lib.as_deref(), Some("lib → uid → lib"));
    assert_eq!(found(&[("", "mod uid;\npub use uid::uid;\npub fn string() {}"), child]), None);
    let (keys, token) = (("keys", "use crate::token::Token;"), ("token", "fn f() { super::keys::g() }"));
    assert_eq!(found(&[("", ""), keys, token]).as_deref(), Some("keys → token → keys"));
    let generated = ("keys", "use crate::exports::hotgate::gateway::router::Action;\nuse crate::hotgate::gateway;");
    assert_eq!(found(&[("", "mod keys;\nuse keys::Keys;"), generated]), None);
}
