//! `hotgate dev`: builds the plugin in a folder after each change, and serves the result, on this machine only.
//!
//! The gateway serves a copy of the component. Each build replaces the copy whole. The gateway watches the copy like
//! any plugin file: it swaps to the new component, or logs why it refuses it.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use anyhow::{Context as _, bail};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use toml::{Table, Value};

use super::DevKit;
use super::check::{Report, inspect};
use super::project::{self, Project};
use super::setting::{Setting, settings};
use crate::config::{Config, Overrides, PluginLimits, PluginSource, Source, read_text};
use crate::plugin::{Roles, read_component, tame};

/// The folder, in the project, with everything that the gateway keeps: the served copy, the configuration, compiled
/// code, the admin token.
const STATE: &str = ".hotgate";

/// The log level, unless the command line sets one. It includes all decisions and all log lines of the plugin.
const LOG: &str = "info,plugin=trace,verdict=trace";

/// A build starts when nothing has changed for this time: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// A build starts after this time, even if files still change.
const LONGEST_WRITING: Duration = Duration::from_secs(2);

/// Watches the sources of a plugin, and builds it.
pub struct Builder {
    folder: PathBuf,
    project: Project,
    overrides: Overrides,
    /// The roles that the plugin serves in, once it serves.
    roles: Option<Roles>,
    changes: mpsc::Receiver<()>,
    change_sender: mpsc::Sender<()>,
    _watcher: RecommendedWatcher,
}

impl Builder {
    /// Reads the project in a folder, and starts to watch it. `overrides` take precedence over the configuration that
    /// this writes.
    ///
    /// # Errors
    /// When the folder is no project or cannot be watched, or when an address is not on this machine.
    pub fn open(folder: &Path, overrides: &Overrides) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("cannot open the folder {}", folder.display()))?;
        let project = Project::read(&folder)?;
        let (change_sender, changes) = mpsc::channel(1);
        let watcher = watch(&folder, &project, change_sender.clone())?;
        let overrides = overrides.clone();
        let builder = Self { folder, project, overrides, roles: None, changes, change_sender, _watcher: watcher };
        builder.configure()?;
        Ok(builder)
    }

    /// Builds until the result can serve; waits for a change each time that it cannot. Returns the configuration to
    /// serve it with.
    ///
    /// # Errors
    /// When the configuration is refused or cannot be written.
    pub async fn first(&mut self) -> anyhow::Result<(Source, Config)> {
        loop {
            match self.build_and_replace().await {
                Ok(report) if report.usable => {
                    self.roles = Some(report.roles());
                    return self.configure();
                }
                Ok(report) => say(format_args!("{report}")),
                Err(error) => say(format_args!("hotgate: {error:#}\n")),
            }
            say(format_args!("hotgate: waiting for a change in {}\n", self.folder.display()));
            self.changed().await;
        }
    }

    /// Builds after each change, for as long as the future is polled.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.changed().await;
            match self.build_and_replace().await {
                Ok(report) if self.roles.is_some_and(|roles| roles != report.roles()) && report.problems.is_empty() => {
                    say(format_args!(
                        "hotgate: the plugin has other roles or interfaces than before: restart `hotgate dev` to serve it\n"
                    ));
                }
                // If the component cannot serve, the gateway logs why.
                Ok(_) => {}
                Err(error) => say(format_args!("hotgate: {error:#}; the previous build goes on serving\n")),
            }
        }
    }

    /// Builds, and replaces the served copy by the result.
    async fn build_and_replace(&mut self) -> anyhow::Result<Report> {
        self.project = Project::read(&self.folder)?;
        // Start a new watcher: folders may have been replaced, and a watcher follows the folder, not its name.
        match watch(&self.folder, &self.project, self.change_sender.clone()) {
            Ok(watcher) => self._watcher = watcher,
            Err(error) => say(format_args!("hotgate: {error:#}; the files watched before are still watched\n")),
        }
        say(format_args!("hotgate: {}\n", self.project.build));
        if !self.project.build(&self.folder)?.succeeded().await? {
            bail!("the build failed");
        }
        let component = self.folder.join(&self.project.component);
        let shown = self.project.component.display();
        let next = self.state().join("next.component");
        let code = read_component(&PluginSource::File(component), PluginLimits::default().max_component);
        let code = code.with_context(|| format!("cannot read {shown}, which the build should have written"))?;
        fs::write(&next, &code).with_context(|| format!("cannot write {}", next.display()))?;
        // The settings may be new, too. They come first: refused settings then change nothing, and new code never runs
        // with old settings.
        let config = self.configure()?.1;
        fs::rename(&next, self.served()).with_context(|| format!("cannot write {}", self.served().display()))?;
        if self.roles.is_some() {
            return inspect(&shown.to_string(), &code, None);
        }
        let settings = settings(&self.project.settings, &self.folder);
        let devkit = DevKit::open(&self.served(), &config, Some(settings), &self.state())?;
        devkit.check(&shown.to_string(), None).await
    }

    /// Waits for a change, and then until nothing more changes.
    async fn changed(&mut self) {
        // The channel is never closed: this holds a sender.
        self.changes.recv().await;
        let settle = async { while timeout(QUIET, self.changes.recv()).await.is_ok() {} };
        let _ = timeout(LONGEST_WRITING, settle).await;
    }

    fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }

    /// Returns the path of the served copy. It has the name of the project's folder, because the gateway names a plugin
    /// after its file.
    fn served(&self) -> PathBuf {
        let mut name = self.folder.file_name().unwrap_or_default().to_owned();
        name.push(".wasm");
        self.state().join(name)
    }

    /// Writes the configuration to serve the plugin in its roles, if they are known yet. A configuration that is
    /// refused is not written.
    fn configure(&self) -> anyhow::Result<(Source, Config)> {
        let state = self.state();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&state);
        made.with_context(|| format!("cannot create {}", state.display()))?;
        let (file, next) = (state.join("hotgate.toml"), state.join("next.toml"));
        let text = self.configuration();
        fs::write(&next, &text).with_context(|| format!("cannot write {}", next.display()))?;
        let source = |file| Source { file: Some(file), overrides: self.overrides.clone() };
        let config = source(next.clone()).load()?;
        for (name, listener) in config.listeners() {
            if let Some(address) = listener.public_address() {
                bail!("{name}.listen: `hotgate dev` serves this machine only, and {address} is not a loopback address");
            }
        }
        // The gateway reads the file whenever it is written: write it only if it has changed.
        if read_text(&file, text.len()).ok() != Some(text) {
            fs::rename(&next, &file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok((source(file), config))
    }

    fn configuration(&self) -> String {
        let text = |text: &str| Value::String(text.to_owned());
        let path = |path: &Path| text(&path.to_string_lossy());
        let table = |entries: Vec<(&str, Value)>| {
            Value::Table(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Table>())
        };
        let setting = |setting: &Setting| match setting {
            Setting::Value(value) => text(value),
            Setting::File { file } => table(vec![("file", path(&self.folder.join(file)))]),
        };
        let plugin = |mine: bool, other: &str| {
            if !mine {
                return table(vec![("file", text(&PluginSource::Builtin(other.to_owned()).to_string()))]);
            }
            let settings = self.project.settings.iter().map(|(name, value)| (name.as_str(), setting(value)));
            // No probation: an author wants to see the new version at once, and its failures.
            let deploy = table(vec![("probation", text("0s"))]);
            let settings = table(settings.collect());
            table(vec![("file", path(&self.served())), ("settings", settings), ("deploy", deploy)])
        };
        let roles = self.roles.unwrap_or_default();
        let mut config = vec![
            ("state_folder", path(&self.state())),
            ("log", table(vec![("level", text(LOG))])),
            ("websocket", table(vec![("listen", text("127.0.0.1:1234"))])),
            ("limits", table(vec![("connections", Value::Integer(1000))])),
            ("authenticator", Value::Array(vec![plugin(roles.authenticator, "origin-auth")])),
            ("router", plugin(roles.router, "origin-router")),
        ];
        if roles.publications {
            config.push(("api", table(vec![("rules", text("router"))])));
        }
        table(config).as_table().map(ToString::to_string).unwrap_or_default()
    }
}

/// Starts a watcher that reports each change that needs a build.
fn watch(folder: &Path, project: &Project, change_sender: mpsc::Sender<()>) -> anyhow::Result<RecommendedWatcher> {
    let all = |paths: &[PathBuf]| paths.iter().map(|path| folder.join(path)).collect::<Vec<_>>();
    let mut sources = all(&project.watch);
    sources.push(folder.join(project::FILE));
    let mut products = all(&project.ignore);
    products.extend([folder.join(STATE), folder.join("target"), folder.join(&project.component)]);
    let watched = sources.clone();
    let on_event = move |event: notify::Result<Event>| {
        let within = |path: &PathBuf, places: &[PathBuf]| places.iter().any(|place| path.starts_with(place));
        let concerns = |path: &PathBuf| within(path, &sources) && !within(path, &products);
        let needs_build = event.map_or(true, |event| {
            // Reading a file does not change it. Events that were missed may have been changes.
            event.need_rescan() || !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(concerns)
        });
        if needs_build {
            // A full channel holds a change already.
            let _ = change_sender.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).context("files cannot be watched")?;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (folders, files): (Vec<_>, Vec<_>) = watched.into_iter().partition(|path| path.is_dir());
    // Editors replace a file by another file, and tools a folder by another folder. Such an event is one of the folder
    // above.
    let above = folders.iter().filter(|path| real(path) != folder).chain(&files).filter_map(|path| path.parent());
    let above = above.map(|path| (path, RecursiveMode::NonRecursive));
    let places: Vec<_> = folders.iter().map(|path| (path.as_path(), RecursiveMode::Recursive)).chain(above).collect();
    for (place, mode) in places {
        // Leave out folders within watched folders: their events are seen already, and to watch them would end the
        // outer watch.
        let (of, is_part) = (real(place), mode == RecursiveMode::NonRecursive);
        if folders.iter().map(|folder| real(folder)).any(|folder| of.starts_with(&folder) && (is_part || of != folder))
        {
            continue;
        }
        let watched = watcher.watch(place, mode);
        watched.with_context(|| format!("cannot watch {} ({}, watch)", place.display(), project::FILE))?;
    }
    Ok(watcher)
}

/// Prints a message for the author. The author may have closed the terminal.
fn say(message: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(tame(&message.to_string()).as_bytes());
}
