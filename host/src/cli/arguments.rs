//! Reads the command line and the environment: the command, and its settings.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::status::{self, Probe};
use super::{cluster, dashboard, drain, plugin, token, trace};
use crate::config::{Overrides, Source};

const ABOUT: &str = "\
Hotgate is a WebSocket push gateway. Two WebAssembly plugins decide who a client is and who gets a message. To change \
a plugin, copy the new file over the old one: it takes effect while all clients stay connected.

Without any settings:
  0.0.0.0:1234    clients connect here, by WebSocket
  127.0.0.1:5678  internal systems push here, one line of text for each message
  127.0.0.1:1236  internal systems push here, too, by HTTP
  127.0.0.1:1235  operators connect here, by HTTP, with `hotgate plugin` or with a browser (`hotgate dashboard`)
  built-in plugins: a client whose first packet is {\"id\":\"u1\"} gets the uid u1";

const EXAMPLES: &str = "\
Examples:
  hotgate
      Run with the defaults.
  hotgate --authenticator auth.wasm --router router.wasm
      Run with your own plugins.
  hotgate --authenticator jwt.wasm --authenticator builtin:origin-auth
      Ask one plugin first, then another.
  hotgate config print > hotgate.toml
      Write a commented configuration file with every setting.
  hotgate --config hotgate.toml config check
      Check this file without running the gateway.
  hotgate --config hotgate.toml
      Run with this file.
  hotgate --config hotgate.toml plugin list
      List the plugins of the gateway that runs with this file, with their calls and failures.
  hotgate --config hotgate.toml drain
      Close this gateway's connections over some seconds, before it is stopped.
  hotgate --config hotgate.toml status
      Show this gateway on one page.
  hotgate --config hotgate.toml dashboard
      Print an address at which a browser shows this gateway.
  hotgate --config hotgate.toml cluster nodes
      List the gateways of this gateway's cluster, with their connections and plugins.
  hotgate token new billing
      Make a token for a system that pushes by HTTP, and print the lines that allow it.
  hotgate plugin new my-auth --role authenticator --lang rust
      Create a project for your own plugin.

A flag overrides its environment variable, a variable overrides the file, and the file overrides the default.
An empty variable counts as unset. A configuration file is read only if you name it.";

/// The command line after parsing.
#[derive(Debug)]
pub(super) struct Cli {
    /// The command.
    pub(super) command: Command,
    /// The source of the configuration.
    pub(super) source: Source,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Run the gateway.
    Serve,
    /// Check the configuration.
    ConfigCheck,
    /// Print the configuration in effect.
    ConfigPrint,
    /// List or change the plugins of a running gateway, or make a plugin.
    Plugin(Box<plugin::Arguments>),
    /// Show all gateways of a cluster.
    Cluster(cluster::Arguments),
    /// Print the address of a running gateway's dashboard.
    Dashboard(dashboard::Arguments),
    /// Drain a running gateway.
    Drain(drain::Arguments),
    /// Show the status of a running gateway.
    Status(status::Arguments),
    /// Ask whether a running gateway serves.
    Ready(Probe),
    /// Make a token for the HTTP push API.
    Token(token::Action),
    /// Follow a client of a running gateway.
    Trace(trace::Arguments),
    /// Serve the plugin in a folder, and build it on each change.
    Dev(PathBuf),
}

#[derive(Parser)]
#[command(name = "hotgate", version, about = ABOUT, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten, next_help_heading = "Settings")]
    options: Options,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Run the gateway (the default command)
    Serve,
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigAction),
    /// List and change the plugins of the gateway that runs with these settings; make, check, run and measure your own
    /// plugin
    Plugin(Box<plugin::Arguments>),
    /// Show all gateways of a cluster: the gateway that runs with these settings is asked, and asks the others
    Cluster(cluster::Arguments),
    /// Print an address at which a browser shows and changes the gateway that runs with these settings. It works once,
    /// within a minute; this needs the admin token, even for --read-only
    Dashboard(dashboard::Arguments),
    /// Close all connections of the gateway that runs with these settings without haste, and wait until they have
    /// closed; the gateway refuses new ones, and does not end
    Drain(drain::Arguments),
    /// Show the gateway that runs with these settings on one page: listeners, connections, rates, plugins, budgets,
    /// warnings
    Status(status::Arguments),
    /// Ask whether the gateway that runs with these settings serves: exit code 0 if it does, 1 while it starts and
    /// shuts down, 69 if it cannot be reached; needs no token
    Ready(Probe),
    /// Make tokens for the HTTP push API
    #[command(subcommand)]
    Token(token::Action),
    /// Show what happens to one client of the gateway that runs with these settings, as it happens: packets, calls of
    /// plugins, verdicts, actions, messages
    Trace(trace::Arguments),
    /// Build the plugin in a folder and serve it on this machine only; build and swap it again on each change
    Dev {
        /// A folder made by `hotgate plugin new`
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
}

#[derive(Subcommand, Clone, Copy)]
enum ConfigAction {
    /// Check the configuration and load its plugins, without serving; exit code 78 if something is wrong
    Check,
    /// Print the configuration in effect as a commented file, with defaults and plugin settings
    Print,
}

#[derive(Args)]
struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "HOTGATE_CONFIG", hide_env_values = true, global = true)]
    config: Option<OsString>,
    /// The address where clients connect [default: 0.0.0.0:1234]
    #[arg(long, value_name = "ADDR", env = "HOTGATE_WEBSOCKET_LISTEN", hide_env_values = true, global = true)]
    websocket_listen: Option<OsString>,
    /// The address where internal systems push [default: 127.0.0.1:5678]
    #[arg(long, value_name = "ADDR", env = "HOTGATE_TEXT_LISTEN", hide_env_values = true, global = true)]
    text_listen: Option<OsString>,
    /// The address where operators connect [default: 127.0.0.1:1235]
    #[arg(long, value_name = "ADDR", env = "HOTGATE_ADMIN_LISTEN", hide_env_values = true, global = true)]
    admin_listen: Option<OsString>,
    /// The address where internal systems push by HTTP [default: 127.0.0.1:1236]
    #[arg(long, value_name = "ADDR", env = "HOTGATE_API_LISTEN", hide_env_values = true, global = true)]
    api_listen: Option<OsString>,
    /// A plugin that decides who a client is: a file or builtin:NAME. Repeat this flag for a chain of plugins that are
    /// asked in order; in the variable, separate them by commas. This replaces the chain of the configuration file, but
    /// a plugin that is also in the file keeps its settings [default: builtin:origin-auth]
    #[arg(long, value_name = "FILE", env = "HOTGATE_AUTHENTICATOR", hide_env_values = true, global = true)]
    authenticator: Vec<OsString>,
    /// The plugin that decides who gets a message: a file or builtin:NAME [default: builtin:origin-router]
    #[arg(long, value_name = "FILE", env = "HOTGATE_ROUTER", hide_env_values = true, global = true)]
    router: Option<OsString>,
    /// The level of the log: error, warn, info, debug, trace, or directives like info,hotgate=debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "HOTGATE_LOG_LEVEL", hide_env_values = true, global = true)]
    log_level: Option<OsString>,
    /// The format of the log: text for people, json for machines [default: text]
    #[arg(long, value_name = "FORMAT", env = "HOTGATE_LOG_FORMAT", hide_env_values = true, global = true)]
    log_format: Option<OsString>,
}

/// Reads the command line and the environment. For `--help`, `--version` and wrong usage, prints the answer and exits.
pub(super) fn parse() -> Cli {
    parse_from(&std::env::args_os().collect::<Vec<_>>()).unwrap_or_else(|error| error.exit())
}

fn parse_from(line: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = Arguments::command().try_get_matches_from(line)?;
    let Arguments { options, action } = Arguments::from_arg_matches(&matches)?;
    let command = match action {
        None | Some(Action::Serve) => Command::Serve,
        Some(Action::Config(ConfigAction::Check)) => Command::ConfigCheck,
        Some(Action::Config(ConfigAction::Print)) => Command::ConfigPrint,
        Some(Action::Plugin(arguments)) => Command::Plugin(arguments),
        Some(Action::Cluster(arguments)) => Command::Cluster(arguments),
        Some(Action::Dashboard(arguments)) => Command::Dashboard(arguments),
        Some(Action::Drain(arguments)) => Command::Drain(arguments),
        Some(Action::Status(arguments)) => Command::Status(arguments),
        Some(Action::Ready(probe)) => Command::Ready(probe),
        Some(Action::Token(action)) => Command::Token(action),
        Some(Action::Trace(arguments)) => Command::Trace(arguments),
        Some(Action::Dev { folder }) => Command::Dev(folder),
    };
    options.whole_chain(line, &matches)?;
    let overrides = options.overrides(&matches)?;
    let config = options.config.filter(|path| !path.is_empty() || !from_environment(&matches, "config"));
    Ok(Cli { command, source: Source { file: config.map(PathBuf::from), overrides } })
}

fn from_environment(matches: &ArgMatches, option: &str) -> bool {
    matches.value_source(option) == Some(ValueSource::EnvVariable)
}

/// Returns the values in an option's environment variable. Only the chain is a list; commas in log directives do not
/// separate values.
fn split(option: &str, value: &str) -> Vec<String> {
    match option {
        _ if value.is_empty() => Vec::new(),
        "authenticator" => value.split(',').map(|file| file.trim().to_owned()).collect(),
        _ => vec![value.to_owned()],
    }
}

impl Options {
    /// Refuses `--authenticator` flags both before and after a command: clap keeps only one side, and the chain must
    /// not silently lose an authenticator.
    fn whole_chain(&self, line: &[OsString], matches: &ArgMatches) -> Result<(), clap::Error> {
        let is_flag = |word: &&OsString| word.to_string_lossy().split('=').next() == Some("--authenticator");
        let given = line.iter().filter(is_flag).count();
        if from_environment(matches, "authenticator") || given == self.authenticator.len() {
            return Ok(());
        }
        let problem = "put all --authenticator flags before the command, or all after it";
        Err(Arguments::command().error(ErrorKind::ArgumentConflict, problem))
    }

    fn overrides(&self, matches: &ArgMatches) -> Result<Overrides, clap::Error> {
        let mut overrides = Overrides::default();
        let mut set = |key, option: &str, values: &[OsString]| {
            let by_variable = from_environment(matches, option);
            let by = match by_variable {
                true => format!("HOTGATE_{}", option.to_uppercase()),
                false => format!("--{}", option.replace('_', "-")),
            };
            let mut texts = Vec::new();
            for value in values {
                // No lossy conversion: the result might name another file.
                match value.to_str() {
                    Some(text) if !by_variable => texts.push(text.to_owned()),
                    Some(text) => texts.extend(split(option, text)),
                    None => {
                        let problem = format!("{by}: {value:?} is not UTF-8");
                        return Err(Arguments::command().error(ErrorKind::InvalidUtf8, problem));
                    }
                }
            }
            if !texts.is_empty() {
                overrides.set(key, by, texts);
            }
            Ok(())
        };
        set("websocket.listen", "websocket_listen", self.websocket_listen.as_slice())?;
        set("text.listen", "text_listen", self.text_listen.as_slice())?;
        set("admin.listen", "admin_listen", self.admin_listen.as_slice())?;
        set("api.listen", "api_listen", self.api_listen.as_slice())?;
        set("authenticator", "authenticator", &self.authenticator)?;
        set("router", "router", self.router.as_slice())?;
        set("log.level", "log_level", self.log_level.as_slice())?;
        set("log.format", "log_format", self.log_format.as_slice())?;
        Ok(overrides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(line: &str) -> Result<Cli, clap::Error> {
        parse_from(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        for (line, command) in [
            ("hotgate", Command::Serve),
            ("hotgate serve", Command::Serve),
            ("hotgate config check", Command::ConfigCheck),
            ("hotgate config print", Command::ConfigPrint),
        ] {
            assert_eq!(cli(line).unwrap().command, command, "{line}");
        }
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        let mut expected = Overrides::default();
        expected.set("authenticator", "--authenticator", ["a,b".to_owned(), "c".to_owned()]);
        expected.set("log.level", "--log-level", ["debug".to_owned()]);
        let flags = "--config x.toml --authenticator a,b --log-level debug --authenticator c";
        for line in [
            format!("hotgate {flags}"),
            format!("hotgate {flags} serve"),
            format!("hotgate serve {flags}"),
            format!("hotgate {flags} config check"),
            format!("hotgate config {flags} check"),
            format!("hotgate config check {flags}"),
        ] {
            let cli = cli(&line).unwrap();
            assert_eq!(cli.source.file.as_deref(), Some(std::path::Path::new("x.toml")), "{line}");
            assert_eq!(cli.source.overrides, expected, "{line}");
        }
    }

    #[test]
    fn a_path_that_is_not_utf_8_is_refused_and_not_mistaken_for_another() {
        use std::os::unix::ffi::OsStrExt as _;
        let path = std::ffi::OsStr::from_bytes(b"r\xffr.wasm").to_owned();
        let error = parse_from(&["hotgate".into(), "--router".into(), path]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--router") && error.to_string().contains("UTF-8"), "{error}");
    }

    #[test]
    fn wrong_usage_is_an_error() {
        for line in [
            "hotgate run",
            "hotgate --port 1",
            "hotgate --router",
            "hotgate config",
            "hotgate --authenticator a serve --authenticator b",
            "hotgate plugin",
            "hotgate plugin rollback",
            "hotgate plugin deploy",
            "hotgate plugin list --slot router",
            "hotgate plugin deploy a.wasm --gateway 127.0.0.1:1",
            "hotgate plugin deploy a.wasm --keep-going",
            "hotgate cluster",
            "hotgate drain --cancel --no-wait",
            "hotgate drain --cancel --status",
            "hotgate token",
            "hotgate token new",
            "hotgate token new a/b",
        ] {
            assert_eq!(cli(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
