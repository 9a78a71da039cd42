//! Writes a new project: one of the templates in the binary, and a copy of the contract (`wit/`).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use include_dir::{Dir, DirEntry, include_dir};

use super::contract;
use super::project::Project;
use crate::plugin::Roles;

/// The templates: one folder for each language, which holds `common` and one folder for each role. The ending `.in` is
/// cut off the names of files: without it, cargo and git would use these files in this repository.
static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// The languages that there are templates for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust, with plain cargo.
    Rust,
    /// Rust, with cargo-component.
    RustCargoComponent,
    /// JavaScript.
    Javascript,
    /// Python.
    Python,
}

impl Language {
    /// Returns the template folders that a project is put together from.
    fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &["all", "rust-sources", "rust"],
            Self::RustCargoComponent => &["all", "rust-sources", "rust-cargo-component"],
            Self::Javascript => &["all", "javascript"],
            Self::Python => &["all", "python"],
        }
    }
}

/// Writes a project into a new folder of the project's name, in `parent`. Returns the folder.
///
/// # Errors
/// When the name is not allowed, or the folder exists or cannot be written.
pub fn create(parent: &Path, name: &str, roles: Roles, language: Language) -> anyhow::Result<PathBuf> {
    check_name(name)?;
    let folder = parent.join(name);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists already: choose another name", folder.display())
        }
        created => created.with_context(|| format!("cannot create {}", folder.display()))?,
    }
    for (path, text) in files(name, roles, language) {
        let path = folder.join(path);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            fs::write(&path, text)
        };
        if let Err(error) = write() {
            // Half a project would block the next attempt.
            let _ = fs::remove_dir_all(&folder);
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    }
    Ok(folder)
}

/// Returns what to do next with a project that was just written.
///
/// # Errors
/// When the folder holds no project.
pub fn next_steps(folder: &Path) -> anyhow::Result<String> {
    let Project { build, component, .. } = Project::read(folder)?;
    let (folder, component) = (folder.display(), component.display());
    Ok(format!(
        "{folder} is ready. Next:\n\
         \x20 cd {folder}\n\
         \x20 {build}\n\
         \x20 hotgate plugin check {component}\n\
         \x20 hotgate plugin run {component} --cases cases.toml\n\
         \x20 hotgate dev .\n\
         Then read README.md.\n"
    ))
}

/// Checks that Cargo, npm, Python and WIT all accept a name.
fn check_name(name: &str) -> anyhow::Result<()> {
    let words = name.split('-').all(|word| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    if !words || name.len() > MAX_NAME {
        bail!(
            "{name:?} cannot name a plugin: use lower-case words with hyphens between them, like my-auth, of at most {MAX_NAME} \
             characters in all"
        );
    }
    Ok(())
}

/// Returns the files of a project, each with its path in the project.
fn files(name: &str, roles: Roles, language: Language) -> Vec<(PathBuf, String)> {
    let (role, world) = match roles {
        Roles { authenticator: true, router: true, .. } => ("both", "authentication-and-routing"),
        Roles { authenticator: true, .. } => ("authenticator", "authentication"),
        Roles { .. } => ("router", "routing"),
    };
    let fill = |text: &str| {
        let text = text.replace("{{name}}", name).replace("{{name_snake}}", &name.replace('-', "_"));
        text.replace("{{role}}", role).replace("{{world}}", world)
    };
    let mut files: Vec<_> =
        contract::FILES.iter().map(|(file, text)| (Path::new("wit").join(file), (*text).to_owned())).collect();
    let parts = language.folders().iter().flat_map(|folder| ["common", role].map(|part| Path::new(folder).join(part)));
    for base in parts {
        let Some(template) = TEMPLATES.get_dir(&base) else { continue };
        collect(template, &mut |path, text| {
            let path = path.strip_prefix(&base).unwrap_or(path).to_string_lossy();
            let path = fill(path.strip_suffix(".in").unwrap_or(&path));
            files.push((path.into(), fill(text)));
        });
    }
    files
}

/// Calls `each` for every file in a folder and in its subfolders.
fn collect(folder: &Dir<'_>, each: &mut impl FnMut(&Path, &str)) {
    for entry in folder.entries() {
        match entry {
            DirEntry::Dir(folder) => collect(folder, each),
            DirEntry::File(file) => each(file.path(), file.contents_utf8().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_template_is_whole() {
        for language in Language::value_variants() {
            for (authenticator, router) in [(true, false), (false, true), (true, true)] {
                let roles = Roles { authenticator, router, ..Roles::default() };
                let files = files("my-plugin", roles, *language);
                let has = |name: &str| files.iter().any(|(path, _)| path == Path::new(name));
                for needed in ["README.md", "cases.toml", "plugin.toml", "wit/worlds.wit", ".gitignore"] {
                    assert!(has(needed), "{language:?} {roles}: {needed}");
                }
                for (path, text) in &files {
                    assert!(
                        !text.contains("{{name") && !text.contains("{{world") && !text.contains("{{role"),
                        "{path:?}"
                    );
                    assert!(!text.is_empty() && path.extension().is_none_or(|end| end != "in"), "{path:?}");
                }
                let folder = tempfile::tempdir().unwrap();
                let project = create(folder.path(), "my-plugin", roles, *language).unwrap();
                assert!(next_steps(&project).unwrap().contains("hotgate plugin check"));
                assert!(create(folder.path(), "my-plugin", roles, *language).is_err(), "it exists already");
            }
        }
    }

    #[test]
    fn rust_projects_and_the_guide_take_the_bindings_that_are_tested_here() {
        let version = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("wit-bindgen = ")).unwrap();
            line.to_owned()
        };
        let own = version(include_str!("../../../Cargo.toml"));
        assert_eq!(version(include_str!("../../../wit/README.md")), own);
        assert_eq!(version(TEMPLATES.get_file("rust/common/Cargo.toml.in").unwrap().contents_utf8().unwrap()), own);
    }

    #[test]
    fn names_are_such_that_every_toolchain_takes_them() {
        for name in ["a", "my-auth", "auth2-v3"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a--b", "My", "a_b", "2a", "a-2", "../a", "a b", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
