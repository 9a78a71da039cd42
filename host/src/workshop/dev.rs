//! `hotgate dev`: builds the plugin in a folder on each change, and serves what was built, on this machine only. That a new
//! build takes over is the gateway's own doing: it watches the component like any plugin's file.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, timeout};
use toml::{Table, Value};

use super::Workshop;
use super::project::{self, Project};
use crate::config::{Config, Overrides, PluginSource, Source};
use crate::plugin::Roles;

/// What the gateway keeps of this plugin: its configuration, compiled code, the admin token.
const STATE: &str = ".hotgate";

/// What is logged unless the command line says otherwise: also what the plugin decides, and whatever it says.
const LOG: &str = "info,plugin=trace,verdict=trace";

/// For how long nothing must have changed before it is built: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// Watches the sources of a plugin, and builds.
pub struct Builder {
    folder: PathBuf,
    project: Project,
    changes: mpsc::Receiver<()>,
    /// What it serves as, and what counts more than the project.
    served: Option<(Roles, Overrides)>,
    _watcher: notify::RecommendedWatcher,
}

impl Builder {
    /// Reads the project in a folder, and starts to watch it.
    ///
    /// # Errors
    /// When it is none, or cannot be watched.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
        let project = Project::read(&folder)?;
        let watched: Vec<_> = project
            .watch
            .iter()
            .map(PathBuf::as_path)
            .chain([Path::new(project::FILE)])
            .map(|path| folder.join(path))
            .collect();
        let (tell, changes) = mpsc::channel(1);
        let mine = watched.clone();
        let told = move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            let concerns = |path: &PathBuf| mine.iter().any(|mine| path.starts_with(mine));
            // What a build reads is no change of it.
            if !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(concerns) {
                let _ = tell.try_send(());
            }
        };
        let mut watcher = notify::recommended_watcher(told).context("files cannot be watched")?;
        for path in &watched {
            // An editor puts another file in a file's place: that happens in its folder.
            let (place, mode) = match path.parent().filter(|_| !path.is_dir()) {
                Some(folder) => (folder, RecursiveMode::NonRecursive),
                None => (path.as_path(), RecursiveMode::Recursive),
            };
            let watched = watcher.watch(place, mode);
            watched.with_context(|| format!("cannot watch {} (plugin.toml, watch)", path.display()))?;
        }
        Ok(Self { folder, project, changes, served: None, _watcher: watcher })
    }

    /// Builds until what comes out can serve, waiting for a change each time it cannot. Returns the configuration to serve it
    /// with, in which `overrides` count more.
    ///
    /// # Errors
    /// When that cannot be made.
    pub async fn first(&mut self, overrides: &Overrides) -> anyhow::Result<(Source, Config)> {
        loop {
            if self.build().await? {
                let config = self.configure(None, overrides)?.1;
                let component = self.folder.join(&self.project.component);
                let shown = self.project.component.display().to_string();
                let checked = async { Workshop::open(&component, &config, None, true)?.check(&shown, None).await };
                match checked.await {
                    Ok(report) if report.usable => {
                        let roles = Roles { authenticator: report.authenticator, router: report.router };
                        self.served = Some((roles, overrides.clone()));
                        return self.configure(Some(roles), overrides);
                    }
                    Ok(report) => eprint!("{report}"),
                    Err(error) => eprintln!("hotgate: {error:#}"),
                }
            }
            eprintln!("hotgate: waiting for a change in {}", self.folder.display());
            self.changed().await;
        }
    }

    /// Builds after each change, for as long as it is polled.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.changed().await;
            match self.build().await {
                // Its settings may have changed, too: the gateway reads its configuration again when that does.
                Ok(true) => {
                    if let Some((roles, overrides)) = &self.served
                        && let Err(error) = self.configure(Some(*roles), overrides)
                    {
                        eprintln!("hotgate: {error:#}");
                    }
                }
                Ok(false) => eprintln!("hotgate: the build failed; what was built before goes on serving"),
                Err(error) => eprintln!("hotgate: {error:#}"),
            }
        }
    }

    async fn build(&mut self) -> anyhow::Result<bool> {
        let folder = self.folder.clone();
        let read = spawn_blocking(move || Project::read(&folder)).await?;
        match read {
            Ok(project) => self.project = project,
            // It is being edited.
            Err(error) => {
                eprintln!("hotgate: {error:#}");
                return Ok(false);
            }
        }
        let (folder, project) = (self.folder.clone(), self.project.clone());
        eprintln!("hotgate: {}", project.build);
        spawn_blocking(move || project.build(&folder)).await?
    }

    async fn changed(&mut self) {
        // A closed channel would mean that nobody watches any more: then nothing ever changes.
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while timeout(QUIET, self.changes.recv()).await.is_ok() {}
    }

    /// Writes the configuration for a plugin of these roles, or none yet.
    fn configure(&self, roles: Option<Roles>, overrides: &Overrides) -> anyhow::Result<(Source, Config)> {
        let state = self.folder.join(STATE);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&state);
        made.with_context(|| format!("cannot create {}", state.display()))?;
        let file = state.join("hotgate.toml");
        let text = configuration(&state, &self.folder, &self.project, roles);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let source = Source { file: Some(file), overrides: overrides.clone() };
        let config = source.load()?;
        for (key, address) in [
            ("websocket.listen", config.websocket.listen),
            ("text.listen", config.text.listen),
            ("admin.listen", config.admin.listen),
        ] {
            ensure!(
                address.ip().is_loopback(),
                "{key}: `hotgate dev` serves this machine only, and {address} is not on it"
            );
        }
        Ok((source, config))
    }
}

fn configuration(state: &Path, folder: &Path, project: &Project, roles: Option<Roles>) -> String {
    let component = folder.join(&project.component);
    let text = |text: &str| Value::String(text.to_owned());
    let path = |path: &Path| text(&path.to_string_lossy());
    let table = |entries: Vec<(&str, Value)>| {
        Value::Table(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Table>())
    };
    let plugin = |mine: bool, other: &str| {
        if !mine {
            return table(vec![("file", text(&PluginSource::Builtin(other.to_owned()).to_string()))]);
        }
        let located = |(name, mut value): (String, Value)| {
            if let Some(Value::String(file)) = value.get_mut("file") {
                *file = folder.join(&*file).to_string_lossy().into_owned();
            }
            (name, value)
        };
        let settings = Value::Table(project.settings.clone().into_iter().map(located).collect());
        // Whoever develops wants to see what is new at once, and what fails.
        let deploy = table(vec![("probation", text("0s"))]);
        table(vec![("file", path(&component)), ("settings", settings), ("deploy", deploy)])
    };
    let roles = roles.unwrap_or(Roles { authenticator: false, router: false });
    let config = table(vec![
        ("state_folder", path(state)),
        ("log", table(vec![("level", text(LOG))])),
        ("websocket", table(vec![("listen", text("127.0.0.1:1234"))])),
        ("limits", table(vec![("connections", Value::Integer(1000))])),
        ("authenticator", Value::Array(vec![plugin(roles.authenticator, "origin-auth")])),
        ("router", plugin(roles.router, "origin-router")),
    ]);
    config.as_table().map(ToString::to_string).unwrap_or_default()
}
