//! `hotgate dev`: builds the plugin in a folder on each change, and serves what was built, on this machine only.
//!
//! What is served is a copy, put in its place whole: the gateway watches it like any plugin's file, and takes it over
//! or says why not.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
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

/// What the gateway keeps of this plugin: what it serves, its configuration, compiled code, the admin token.
const STATE: &str = ".hotgate";

/// What it serves.
const SERVED: &str = "plugin.wasm";

/// What is logged unless the command line says otherwise: also what the plugin decides, and whatever it says.
const LOG: &str = "info,plugin=trace,verdict=trace";

/// For how long nothing must have changed before it is built: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// After which time it is built all the same.
const LONGEST_WRITING: Duration = Duration::from_secs(2);

/// Watches the sources of a plugin, and builds.
pub struct Builder {
    folder: PathBuf,
    project: Project,
    overrides: Overrides,
    /// What it serves as, once it does.
    roles: Option<Roles>,
    changes: mpsc::Receiver<()>,
    tell: mpsc::Sender<()>,
    _watcher: RecommendedWatcher,
}

impl Builder {
    /// Reads the project in a folder, and starts to watch it. `overrides` count more than what it says.
    ///
    /// # Errors
    /// When it is none, or cannot be watched, or would be served to others.
    pub fn open(folder: &Path, overrides: &Overrides) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
        let project = Project::read(&folder)?;
        let (tell, changes) = mpsc::channel(1);
        let watcher = watch(&folder, &project, tell.clone())?;
        let overrides = overrides.clone();
        let builder = Self { folder, project, overrides, roles: None, changes, tell, _watcher: watcher };
        builder.configure()?;
        Ok(builder)
    }

    /// Builds until what comes out can serve, waiting for a change each time it cannot. Returns the configuration to
    /// serve it with.
    ///
    /// # Errors
    /// When that cannot be made.
    pub async fn first(&mut self) -> anyhow::Result<(Source, Config)> {
        loop {
            match self.take_over().await {
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

    /// Builds after each change, for as long as it is polled.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.changed().await;
            match self.take_over().await {
                Ok(report) if self.roles.is_some_and(|roles| roles != report.roles()) && report.problems.is_empty() => {
                    say(format_args!(
                        "hotgate: this is another role than before; start `hotgate dev` again to serve it\n"
                    ));
                }
                // Why it cannot serve, the gateway says.
                Ok(_) => {}
                Err(error) => say(format_args!("hotgate: {error:#}; what was built before goes on serving\n")),
            }
        }
    }

    /// Builds, and puts what came out in the place of what is served.
    async fn take_over(&mut self) -> anyhow::Result<Report> {
        self.project = Project::read(&self.folder)?;
        // Anew: folders may have been replaced, and are watched for what they are and not for what they are called.
        match watch(&self.folder, &self.project, self.tell.clone()) {
            Ok(watcher) => self._watcher = watcher,
            Err(error) => say(format_args!("hotgate: {error:#}; what was watched before still is\n")),
        }
        say(format_args!("hotgate: {}\n", self.project.build));
        if !self.project.build(&self.folder)?.succeeded().await? {
            bail!("the build failed");
        }
        let component = self.folder.join(&self.project.component);
        let shown = self.project.component.display();
        let next = self.state().join("next.wasm");
        let code = read_component(&PluginSource::File(component), PluginLimits::default().max_component);
        let code = code.with_context(|| format!("cannot read {shown}, which the build should have written"))?;
        fs::write(&next, &code).with_context(|| format!("cannot write {}", next.display()))?;
        // Settings may be new, too. First, so that what cannot be leaves everything as it was, and new code does not
        // meet old settings.
        let config = self.configure()?.1;
        fs::rename(&next, self.served()).with_context(|| format!("cannot write {}", self.served().display()))?;
        if self.roles.is_some() {
            return inspect(&shown.to_string(), &code, None);
        }
        let told = settings(&self.project.settings, &self.folder);
        let devkit = DevKit::open(&self.served(), &config, Some(told), &self.state())?;
        devkit.check(&shown.to_string(), None).await
    }

    async fn changed(&mut self) {
        // Never closed: it has a sender of its own.
        self.changes.recv().await;
        let settle = async { while timeout(QUIET, self.changes.recv()).await.is_ok() {} };
        let _ = timeout(LONGEST_WRITING, settle).await;
    }

    fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }

    fn served(&self) -> PathBuf {
        self.state().join(SERVED)
    }

    /// Writes the configuration for the plugin in its roles, if they are known yet, unless it is one that cannot be.
    fn configure(&self) -> anyhow::Result<(Source, Config)> {
        let state = self.state();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&state);
        made.with_context(|| format!("cannot create {}", state.display()))?;
        let (file, next) = (state.join("hotgate.toml"), state.join("next.toml"));
        let text = self.configuration();
        fs::write(&next, &text).with_context(|| format!("cannot write {}", next.display()))?;
        let source = |file| Source { file: Some(file), overrides: self.overrides.clone() };
        let config = source(next.clone()).load()?;
        for (key, address) in [
            ("websocket.listen", config.websocket.listen),
            ("text.listen", config.text.listen),
            ("admin.listen", config.admin.listen),
        ] {
            let ip = address.ip();
            ensure!(ip.is_loopback(), "{key}: `hotgate dev` serves this machine only, and {address} is not on it");
        }
        // The gateway reads it whenever it is written: only if it says something new.
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
            // Whoever develops wants to see what is new at once, and what fails.
            let deploy = table(vec![("probation", text("0s"))]);
            let settings = table(settings.collect());
            table(vec![("file", path(&self.served())), ("settings", settings), ("deploy", deploy)])
        };
        let roles = self.roles.unwrap_or(Roles { authenticator: false, router: false });
        let config = table(vec![
            ("state_folder", path(&self.state())),
            ("log", table(vec![("level", text(LOG))])),
            ("websocket", table(vec![("listen", text("127.0.0.1:1234"))])),
            ("limits", table(vec![("connections", Value::Integer(1000))])),
            ("authenticator", Value::Array(vec![plugin(roles.authenticator, "origin-auth")])),
            ("router", plugin(roles.router, "origin-router")),
        ]);
        config.as_table().map(ToString::to_string).unwrap_or_default()
    }
}

/// Tells of changes that are worth building for.
fn watch(folder: &Path, project: &Project, tell: mpsc::Sender<()>) -> anyhow::Result<RecommendedWatcher> {
    let all = |paths: &[PathBuf]| paths.iter().map(|path| folder.join(path)).collect::<Vec<_>>();
    let mut sources = all(&project.watch);
    sources.push(folder.join(project::FILE));
    let mut products = all(&project.ignore);
    products.extend([folder.join(STATE), folder.join("target"), folder.join(&project.component)]);
    let watched = sources.clone();
    let told = move |event: notify::Result<Event>| {
        let within = |path: &PathBuf, places: &[PathBuf]| places.iter().any(|place| path.starts_with(place));
        let concerns = |path: &PathBuf| within(path, &sources) && !within(path, &products);
        let worth_it = event.map_or(true, |event| {
            // What a build reads is no change of it. What was missed may be one.
            event.need_rescan() || !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(concerns)
        });
        if worth_it {
            // Full, it says so already.
            let _ = tell.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(told).context("files cannot be watched")?;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (folders, files): (Vec<_>, Vec<_>) = watched.into_iter().partition(|path| path.is_dir());
    // Editors put another file in a file's place, and tools another folder in a folder's: that happens in the folder
    // above.
    let above = folders.iter().filter(|path| real(path) != folder).chain(&files).filter_map(|path| path.parent());
    let above = above.map(|path| (path, RecursiveMode::NonRecursive));
    let places: Vec<_> = folders.iter().map(|path| (path.as_path(), RecursiveMode::Recursive)).chain(above).collect();
    for (place, mode) in places {
        // Seen already, and to watch a part of what is watched would end that.
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

/// Says something to whoever develops, who may have closed the terminal.
fn say(what: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(tame(&what.to_string()).as_bytes());
}
