//! `hotgate plugin …`: sends requests to the admin listener of a running gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{Method, Request, StatusCode};
use ureq::{Agent, AsSendBody};

use super::author;
use super::output::{complain, print, print_json, refuse};
use super::show::{Plugin, table};
use crate::base::state::StateFolder;
use crate::config::{Config, ConfigError, ListenAddress, MAX_TOKEN_FILE, Source, open_file, read_file};
use crate::edge::http::token::{self, Token};

/// The exit code for wrong usage, the same as clap's.
const EXIT_USAGE: u8 = 2;

/// The exit code when the gateway cannot be reached: `EX_UNAVAILABLE` of sysexits.h.
const EXIT_UNAVAILABLE: u8 = 69;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of a request that only reads.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of a request that changes something: a little longer than the gateway's own limit, with compiling.
const ACT_TIMEOUT: Duration = Duration::from_secs(15 * 60 + 10);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

const RUNNING: &str = "The running gateway";

/// The command, and its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The gateway's admin listener [default: admin.listen of the settings]
    #[arg(long, value_name = "HOST:PORT", global = true, help_heading = RUNNING)]
    address: Option<String>,
    /// The file with the gateway's token [default: admin-token in the state folder of the settings]
    #[arg(long, value_name = "FILE", global = true, help_heading = RUNNING)]
    token_file: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Action {
    #[command(flatten)]
    Operate(Operation),
    #[command(flatten)]
    Author(author::Action),
}

/// A command for a running gateway.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Operation {
    /// Show the plugin in each slot, its calls and failures, and the last events
    List,
    /// Go back to the generation before
    Rollback {
        /// The slot, or the name of its plugin
        slot: String,
        /// Only if this is the newest generation, the one to give up
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Move a new generation to its next stage: from shadow to canary, to all clients, to the end of its probation
    Promote {
        /// The slot, or the name of its plugin
        slot: String,
        /// Only if this is the newest generation, the one to promote
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Read the slot's file again, even if it was refused or rolled back
    Reload {
        /// The slot, or the name of its plugin
        slot: String,
    },
    /// Check a component, and replace the slot's file with it
    Deploy {
        /// The component
        file: PathBuf,
        /// The slot, or the name of its plugin [default: the slot that has a file, if there is only one]
        #[arg(long)]
        slot: Option<String>,
    },
}

/// Why a command failed.
enum Failure {
    /// The settings are wrong.
    Settings(ConfigError),
    /// The gateway cannot be reached.
    Unavailable(String),
    /// The request was refused, or did not work.
    Failed(String),
}

/// Runs a command. Loads the settings only if they are needed.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let operation = match &arguments.action {
        Action::Operate(operation) => operation,
        Action::Author(action) if arguments.json && !action.has_json() => {
            return fail(EXIT_USAGE, "--json is for `check` and for the commands to a running gateway");
        }
        Action::Author(action) => return author::run(action, arguments.json, || Ok(source.load_to_serve()?.config)),
    };
    let settings = || source.load_admin();
    let answered = Client::new(arguments, settings).and_then(|client| client.answer(operation));
    let plugins = match answered {
        Ok(answer) if arguments.json => return print_json(&answer),
        Ok(answer) => plugins(answer),
        Err(failure) => Err(failure),
    };
    match plugins {
        Ok(plugins) => print(&table(&plugins, SystemTime::now())),
        Err(Failure::Settings(error)) => {
            refuse(&format_args!("{error}; correct this, or give both --address and --token-file"))
        }
        Err(Failure::Unavailable(problem)) => fail(EXIT_UNAVAILABLE, &problem),
        Err(Failure::Failed(problem)) => fail(1, &problem),
    }
}

fn fail(code: u8, problem: &str) -> ExitCode {
    complain(&problem);
    ExitCode::from(code)
}

/// Returns the plugins in an answer, which is a list of plugins or one plugin.
fn plugins(mut answer: Value) -> Result<Vec<Plugin>, Failure> {
    let list = match answer.get_mut("plugins") {
        Some(list) => list.take(),
        None => Value::Array(vec![answer]),
    };
    serde_json::from_value(list)
        .map_err(|error| Failure::Failed(format!("cannot understand the answer of the gateway: {error}")))
}

struct Client {
    agent: Agent,
    address: String,
    token: Token,
}

impl Client {
    fn new(arguments: &Arguments, settings: impl FnOnce() -> Result<Config, ConfigError>) -> Result<Self, Failure> {
        let (address, token) = match (&arguments.address, &arguments.token_file) {
            // The settings may be in the middle of an edit: that must not prevent a rollback.
            (Some(address), Some(file)) => (address.clone(), read_token(file)?),
            (address, file) => {
                let config = settings().map_err(Failure::Settings)?;
                let address = address.clone().map_or_else(|| address_of(&config), Ok)?;
                (address, file.as_deref().map_or_else(|| token_of(&config), read_token)?)
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // No proxy may see the token.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT));
        Ok(Self { agent: config.build().into(), address, token })
    }

    fn answer(&self, operation: &Operation) -> Result<Value, Failure> {
        let act = |slot: &str, action: &str, generation: &Option<u64>| {
            let query = generation.map(|number| format!("?generation={number}")).unwrap_or_default();
            self.ask(Method::POST, &format!("/plugins/{}/{action}{query}", encoded(slot)), ())
        };
        match operation {
            Operation::List => self.ask(Method::GET, "/plugins", ()),
            Operation::Rollback { slot, generation } => act(slot, "rollback", generation),
            Operation::Promote { slot, generation } => act(slot, "promote", generation),
            Operation::Reload { slot } => act(slot, "reload", &None),
            Operation::Deploy { file, slot } => {
                // The file is sent while it is read. The gateway refuses a file that is too large before it is sent.
                let component = open_file(file)
                    .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", file.display())))?;
                let slot = slot.clone().map_or_else(|| self.only_slot(), Ok)?;
                self.ask(Method::PUT, &format!("/plugins/{}", encoded(&slot)), component)
            }
        }
    }

    /// Returns the slot that has a file, if there is only one.
    fn only_slot(&self) -> Result<String, Failure> {
        let plugins = plugins(self.ask(Method::GET, "/plugins", ())?)?;
        let mut of_files = plugins.iter().filter(|plugin| !plugin.source.starts_with("builtin:"));
        match (of_files.next(), of_files.next()) {
            (Some(only), None) => Ok(only.slot.clone()),
            (Some(_), Some(_)) => {
                let slots: Vec<_> = plugins.iter().map(|plugin| plugin.slot.as_str()).collect();
                Err(Failure::Failed(format!("--slot must name one of these: {}", slots.join(", "))))
            }
            (None, _) => {
                let problem = "no slot has a file that could be replaced: all plugins are built in. Start the gateway \
                               with files, like --authenticator auth.wasm";
                Err(Failure::Failed(problem.to_owned()))
            }
        }
    }

    fn ask(&self, method: Method, path: &str, body: impl AsSendBody) -> Result<Value, Failure> {
        let url = format!("http://{}{path}", self.address);
        let timeout = if method == Method::GET { LOOK_TIMEOUT } else { ACT_TIMEOUT };
        let has_body = method == Method::PUT;
        let request = Request::builder().method(method).uri(&url).header("authorization", self.token.header());
        // A component that is too large, or comes during another upload, is refused before it is sent.
        let request = if has_body { request.header("expect", "100-continue") } else { request };
        let request = request.body(body).map_err(|error| Failure::Failed(format!("{url}: {error}")))?;
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        let mut response = self.agent.run(request).map_err(|error| self.failure(&error))?;
        let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let answer = answer.map_err(|error| self.failure(&error))?;
        let (status, answer) = (response.status(), serde_json::from_slice::<Value>(&answer));
        let problem = match (status, answer) {
            (StatusCode::OK, Ok(answer)) => return Ok(answer),
            (_, Ok(answer)) => answer["error"].as_str().map(str::to_owned),
            (_, Err(_)) => None,
        };
        let problem = problem.unwrap_or_else(|| format!("{} does not answer like a gateway ({status})", self.address));
        Err(Failure::Failed(match status {
            StatusCode::UNAUTHORIZED => {
                format!("{problem}: the gateway at {} has another token (--config, --token-file)", self.address)
            }
            _ => problem,
        }))
    }

    fn failure(&self, error: &ureq::Error) -> Failure {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
        let Self { address, .. } = self;
        match error {
            Timeout(_) | ConnectionFailed | HostNotFound | Io(_) => Failure::Unavailable(format!(
                "cannot reach {address}: {error}. Is the gateway running, and is this its admin.listen? If not, give \
                 its settings by --config, or its address by --address"
            )),
            error => Failure::Failed(format!("{address}: {error}")),
        }
    }
}

/// Returns the address at which a gateway with these settings can be reached from its own machine.
fn address_of(config: &Config) -> Result<String, Failure> {
    if !config.admin.enabled {
        return Err(Failure::Unavailable("there is no admin listener: admin.enabled = false".to_owned()));
    }
    let addresses = config.admin.listener.listen.iter().filter_map(ListenAddress::tcp);
    let Some(listen) = addresses.into_iter().find(|address| address.port() != 0) else {
        let problem = "admin.listen has no fixed port: find the port in the gateway's log, and give it by --address";
        return Err(Failure::Unavailable(problem.to_owned()));
    };
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listen.port()).to_string())
}

/// Reads the token of a gateway with these settings.
fn token_of(config: &Config) -> Result<Token, Failure> {
    let state = StateFolder::existing(config.state_folder.as_deref());
    let content = state.read_private(token::ADMIN_FILE, MAX_TOKEN_FILE).map_err(|error| {
        let hint = "Run this command as the gateway's user, or give the file by --token-file";
        Failure::Failed(format!("cannot read the token: {error}. {hint}"))
    })?;
    let content = content.ok_or_else(|| {
        let path = state.path(token::ADMIN_FILE).unwrap_or_default();
        Failure::Unavailable(format!(
            "there is no token at {}. Is the gateway running, with these settings and as this user? If not, give its \
             settings by --config, or the file by --token-file",
            path.display()
        ))
    })?;
    Token::parse(token::ADMIN_FILE, &content).map_err(|error| Failure::Failed(error.to_string()))
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    let read = || {
        let too_large = || io::Error::other(format!("the file has more than {} bytes", MAX_TOKEN_FILE));
        Token::parse(token::ADMIN_FILE, &read_file(file, MAX_TOKEN_FILE)?.ok_or_else(too_large)?)
    };
    read().map_err(|error| Failure::Failed(format!("cannot read the token from {}: {error}", file.display())))
}

/// Encodes a name as one segment of a path (RFC 3986 §2.3).
fn encoded(segment: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(segment, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(encoded("authenticator+router"), "authenticator%2Brouter");
        assert_eq!(encoded("../a b?ä"), "..%2Fa%20b%3F%C3%A4");
    }

    #[test]
    fn a_gateway_that_listens_everywhere_is_reached_here() {
        let mut config = Config::default();
        let mut address = |listen: &str| {
            config.admin.listener.listen = vec![listen.parse::<SocketAddr>().unwrap().into()];
            address_of(&config).ok()
        };
        assert_eq!(address("0.0.0.0:1235").as_deref(), Some("127.0.0.1:1235"));
        assert_eq!(address("[::]:1235").as_deref(), Some("[::1]:1235"));
        assert_eq!(address("192.0.2.1:80").as_deref(), Some("192.0.2.1:80"));
        assert_eq!(address("127.0.0.1:0"), None);
    }
}
