//! `hotgate plugin check|run|bench|new`: commands for plugin authors. They need no running gateway.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytestring::ByteString;
use clap::{Args, Subcommand, ValueEnum};

use super::output::{complain, print_json, refuse, show};
use crate::base::message::Attribute;
use crate::config::{Config, ConfigError, Settings};
use crate::devkit::bench::Load;
use crate::devkit::check::inspect;
use crate::devkit::new::{self, Language};
use crate::devkit::publication::Publication;
use crate::devkit::run::{Talk, Tally};
use crate::devkit::{DevKit, cache_folder, capture};
use crate::plugin::{Roles, tame};

/// A command for plugin authors.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(super) enum Action {
    /// Create a project for a new plugin, in a folder of its own; nothing is downloaded
    New {
        /// The name of the plugin, like my-auth
        name: String,
        /// The role of the plugin
        #[arg(long, value_enum, default_value = "authenticator")]
        role: Role,
        /// The language of the plugin
        #[arg(long = "lang", value_enum, default_value = "rust")]
        language: Language,
    },
    #[command(flatten)]
    Component(Box<Use>),
}

impl Action {
    /// Returns `true` if the command can answer in JSON.
    pub(super) fn has_json(&self) -> bool {
        matches!(self, Self::Component(used) if matches!(**used, Use::Check { .. }))
    }
}

/// A command for a component.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(super) enum Use {
    /// Check whether a component can serve, and say what to do if it cannot; exit code 0 if it can, 1 if it cannot
    Check {
        #[command(flatten)]
        subject: Subject,
    },
    /// Send packets and lines to a component without a network, or run case files; exit code 1 if anything failed
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        input: Box<Input>,
    },
    /// Measure the calls of a component
    Bench {
        #[command(flatten)]
        subject: Subject,
        /// The first packet of a client
        #[arg(long, value_name = "TEXT", default_value = "{\"id\":\"u1\"}")]
        packet: String,
        /// A packet of an authenticated client
        #[arg(long, value_name = "TEXT", default_value = "{\"id\":\"u2\",\"msg\":\"hi\"}")]
        message: String,
        /// A line of an internal sender, and the message that it publishes to the uid u1
        #[arg(long, value_name = "TEXT", default_value = "{\"uid\":\"u1\"}")]
        line: String,
        /// How long each kind of call is measured, in seconds
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
}

const RUN_EXAMPLES: &str = "\
Examples:
  hotgate plugin run auth.wasm --packet '{\"id\":\"u1\"}'
      Let it greet a client, send it the client's packet, and print its answers.
  hotgate plugin run router.wasm --uid u1 --packet '{\"id\":\"u2\",\"msg\":\"hi\"}' --line '{\"uid\":\"u1\"}'
      Route a message of u1, then push a line.
  hotgate plugin run router.wasm --publish 'group:lobby hello'
      Ask whether a message of the HTTP API may go to a group, if it exports publications.
  hotgate plugin run auth.wasm --cases cases.toml --watch
      Run the cases, and again each time the component or the cases change.";

/// A setting from the command line. Its `Debug` does not show the value, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
struct SettingFlag {
    name: String,
    value: String,
}

impl fmt::Debug for SettingFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

/// The component, its settings and its role.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Subject {
    /// The component: a file, or builtin:NAME
    file: PathBuf,
    /// A setting of the plugin; NAME=@FILE reads it from a file. Repeat this flag for more [default: the settings in
    /// --config]
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    setting: Vec<SettingFlag>,
    /// The role of the component [default: every role that it supports]
    #[arg(long, value_enum)]
    role: Option<Role>,
}

/// The input of the component.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Input {
    /// A packet of the client. Repeat this flag for more. An authenticator gets the packets until it accepts, then a
    /// router
    #[arg(long, value_name = "TEXT")]
    packet: Vec<String>,
    /// A line of an internal sender. Repeat this flag for more
    #[arg(long, value_name = "TEXT")]
    line: Vec<String>,
    /// A recipient and a text that an internal system publishes to it: "uid:u1 hello", also connection:NUMBER,
    /// group:NAME or everyone. Repeat this flag for more
    #[arg(long, value_name = "TO TEXT")]
    publish: Vec<Publication>,
    /// A header of the client's handshake. Repeat this flag for more
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<Attribute>,
    /// The path of the client's handshake, perhaps with a query
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// The uid of the session, if no authenticator decides it
    #[arg(long, default_value = "u1")]
    uid: String,
    /// A file with cases. Repeat this flag for more
    #[arg(long, value_name = "FILE", conflicts_with_all = ["packet", "line", "publish", "setting", "header", "path", "uid"])]
    cases: Vec<PathBuf>,
    /// Run again each time the component or a case file changes
    #[arg(long)]
    watch: bool,
}

/// The roles of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Decides who a client is
    Authenticator,
    /// Decides who gets a message
    Router,
    /// Both roles
    Both,
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self { authenticator: role != Role::Router, router: role != Role::Authenticator, publications: false }
    }
}

fn setting(text: &str) -> Result<SettingFlag, String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE, or NAME=@FILE")?;
    let flag = SettingFlag { name: name.to_owned(), value: value.to_owned() };
    if name.is_empty() { Err("the name is missing".to_owned()) } else { Ok(flag) }
}

fn header(text: &str) -> Result<Attribute, String> {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE")?;
    Ok(Attribute { name: name.trim().to_lowercase(), value: value.trim().to_owned() })
}

impl Subject {
    fn settings(&self) -> Option<Settings> {
        let mut settings = Settings::default();
        for SettingFlag { name, value } in &self.setting {
            match value.strip_prefix('@') {
                Some(file) => settings.set_file(name.clone(), file.into()),
                None => settings.set(name.clone(), value.clone()),
            }
        }
        (!self.setting.is_empty()).then_some(settings)
    }

    /// Opens the component. If an earlier command has compiled it, it is not compiled again.
    fn open(&self, config: &Config) -> anyhow::Result<DevKit> {
        DevKit::open(&self.file, config, self.settings(), &cache_folder())
    }

    fn roles(&self) -> Option<Roles> {
        self.role.map(Roles::from)
    }
}

/// Runs a command.
pub(super) fn run(action: &Action, json: bool, settings: impl FnOnce() -> Result<Config, ConfigError>) -> ExitCode {
    let used = match action {
        Action::Component(used) => &**used,
        Action::New { name, role, language } => {
            let made = new::create(Path::new(""), name, (*role).into(), *language);
            let steps = made.and_then(|folder| new::next_steps(&folder));
            return steps.map_or_else(|error| failed(&error), |steps| show(&steps));
        }
    };
    let config = match settings() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let run = || -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match used {
                Use::Check { subject } => check(subject, &config, json).await,
                Use::Run { subject, input } => run_component(subject, input, &config).await,
                Use::Bench { subject, packet, message, line, seconds } => {
                    let text = |text: &String| ByteString::from(text.as_str());
                    let (packet, message, line) = (text(packet), text(message), text(line));
                    let load = Load { packet, message, line, time: Duration::from_secs(*seconds) };
                    bench(subject, &load, &config).await
                }
            }
        })
    };
    run().unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    complain(&format_args!("{error:#}"));
    ExitCode::FAILURE
}

async fn check(subject: &Subject, config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    capture::listen();
    let devkit = subject.open(config)?;
    let report = devkit.check(&subject.file.display().to_string(), subject.roles()).await?;
    let shown = if json { print_json(&serde_json::to_value(&report)?) } else { show(&report.to_string()) };
    Ok(if report.usable { shown } else { ExitCode::FAILURE })
}

/// Runs the component once, or again on each change.
async fn run_component(subject: &Subject, input: &Input, config: &Config) -> anyhow::Result<ExitCode> {
    capture::listen();
    loop {
        let begun = stamps(subject, input);
        let result = run_once(subject, input, config).await;
        if !input.watch {
            return result;
        }
        if let Err(error) = result {
            complain(&format_args!("{error:#}"));
        }
        let _ = writeln!(io::stderr(), "--- waiting for a change of {}", subject.file.display());
        let mut seen = begun.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = stamps(subject, input);
            // A file may be written in parts: wait until it stops changing.
            if now == seen && now != begun {
                break;
            }
            seen = now;
        }
    }
}

/// How often the files are checked for changes.
const LOOK: Duration = Duration::from_millis(300);

/// Returns the times and sizes of the files. They show whether a file has changed.
fn stamps(subject: &Subject, input: &Input) -> Vec<Option<(std::time::SystemTime, u64)>> {
    let stamp = |path: &PathBuf| path.metadata().ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
    [&subject.file].into_iter().chain(&input.cases).map(stamp).collect()
}

async fn run_once(subject: &Subject, input: &Input, config: &Config) -> anyhow::Result<ExitCode> {
    let devkit = subject.open(config)?;
    let Some(roles) = roles(subject, &devkit, !input.cases.is_empty()).await? else { return Ok(ExitCode::FAILURE) };
    if input.cases.is_empty() {
        let (path, query) = match input.path.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (input.path.clone(), None),
        };
        let texts = |texts: &[String]| texts.iter().map(|text| ByteString::from(text.as_str())).collect();
        let (packets, lines) = (texts(&input.packet), texts(&input.line));
        let (headers, uid, publications) = (input.header.clone(), input.uid.clone(), input.publish.clone());
        let talk = Talk { path, query, headers, uid, packets, lines, publications };
        let well = devkit.talk(roles, &talk, |text| _ = show(text)).await?;
        return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let Tally { passed, failed } = devkit.play(&input.cases, roles, |text| _ = show(text)).await?;
    show(&format!("{passed} passed, {failed} failed\n"));
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn bench(subject: &Subject, load: &Load, config: &Config) -> anyhow::Result<ExitCode> {
    let devkit = subject.open(config)?;
    let Some(roles) = roles(subject, &devkit, false).await? else { return Ok(ExitCode::FAILURE) };
    let measured = devkit.measure(roles, load).await?;
    let shown = show(&measured.to_string());
    Ok(if measured.is_clean() { shown } else { ExitCode::FAILURE })
}

/// Returns the roles of the component. If it cannot serve, prints why and returns `None`. Cases have settings of their
/// own, so with cases this does not check the settings.
async fn roles(subject: &Subject, devkit: &DevKit, of_cases: bool) -> anyhow::Result<Option<Roles>> {
    let file = subject.file.display().to_string();
    let report = match of_cases {
        true => inspect(&file, devkit.code(), subject.roles())?,
        false => devkit.check(&file, subject.roles()).await?,
    };
    if report.problems.is_empty() {
        return Ok(Some(report.roles_to_load(subject.roles())));
    }
    let _ = io::stderr().write_all(tame(&report.to_string()).as_bytes());
    Ok(None)
}
