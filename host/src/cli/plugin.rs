//! `hotgate plugin …`: speaks to the admin listener of a gateway that runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::Value;
use ureq::http::{Method, Request, StatusCode};
use ureq::{Agent, AsSendBody};

use super::author;
use super::output::{complain, print, print_json, refuse};
use super::show::{Plugin, table};
use crate::base::state::StateFolder;
use crate::config::{Config, ConfigError, Source, open_file, read_file};
use crate::edge::admin::token::{self, Token};

/// The exit code of wrong usage, as clap has it.
const EXIT_USAGE: u8 = 2;

/// The exit code when there is no gateway to speak to: `EX_UNAVAILABLE` of sysexits.h.
const EXIT_UNAVAILABLE: u8 = 69;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to act: a little longer than the gateway allows itself, compiling included.
const ACT_TIMEOUT: Duration = Duration::from_secs(15 * 60 + 10);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

const RUNNING: &str = "The gateway that runs";

/// What to do with which gateway.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The gateway's admin listener [default: admin.listen of the settings]
    #[arg(long, value_name = "HOST:PORT", global = true, help_heading = RUNNING)]
    address: Option<String>,
    /// The file with its token [default: admin-token in the state folder of the settings]
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

/// What is asked of a gateway that runs.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Operation {
    /// What serves in each slot, how it fares, and what happened last
    List,
    /// Put the generation before back
    Rollback {
        /// The slot, or the name of its plugin
        slot: String,
        /// Only if this is the newest generation, which is given up
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Take a new generation one stage further: from shadow to canary, to everybody, off probation
    Promote {
        /// The slot, or the name of its plugin
        slot: String,
        /// Only if this is the newest generation, which is promoted
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Read the slot's file again, also if it was refused or rolled back
    Reload {
        /// The slot, or the name of its plugin
        slot: String,
    },
    /// Check a component, and put it in the place of the slot's file
    Deploy {
        /// The component
        file: PathBuf,
        /// The slot, or the name of its plugin [default: the one that has a file, if there is only one]
        #[arg(long)]
        slot: Option<String>,
    },
}

/// Why a command had no success.
enum Failure {
    /// The settings cannot be.
    Settings(ConfigError),
    /// There is nobody to ask.
    Unavailable(String),
    /// It was refused, or did not work.
    Failed(String),
}

/// Does what the arguments say. The settings are loaded where they are needed.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let operation = match &arguments.action {
        Action::Operate(operation) => operation,
        Action::Author(action) if arguments.json && !action.has_json() => {
            return fail(EXIT_USAGE, "--json is for `check` and for what is asked of a gateway that runs");
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
            refuse(&format_args!("{error}; mend it, or name both --address and --token-file"))
        }
        Err(Failure::Unavailable(problem)) => fail(EXIT_UNAVAILABLE, &problem),
        Err(Failure::Failed(problem)) => fail(1, &problem),
    }
}

fn fail(code: u8, problem: &str) -> ExitCode {
    complain(&problem);
    ExitCode::from(code)
}

/// The plugins of an answer, which is a list or one of them.
fn plugins(mut answer: Value) -> Result<Vec<Plugin>, Failure> {
    let list = match answer.get_mut("plugins") {
        Some(list) => list.take(),
        None => Value::Array(vec![answer]),
    };
    serde_json::from_value(list).map_err(|error| Failure::Failed(format!("this answer is not understood: {error}")))
}

struct Client {
    agent: Agent,
    address: String,
    token: Token,
}

impl Client {
    fn new(arguments: &Arguments, settings: impl FnOnce() -> Result<Config, ConfigError>) -> Result<Self, Failure> {
        let (address, token) = match (&arguments.address, &arguments.token_file) {
            // Settings that are being edited must not keep anybody from rolling back.
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
            // The token is for nobody in between.
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
                // Sent as it is read: how large it may be, the gateway says before it is sent.
                let component = open_file(file)
                    .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", file.display())))?;
                let slot = slot.clone().map_or_else(|| self.only_slot(), Ok)?;
                self.ask(Method::PUT, &format!("/plugins/{}", encoded(&slot)), component)
            }
        }
    }

    /// The slot that a component can only be for.
    fn only_slot(&self) -> Result<String, Failure> {
        let plugins = plugins(self.ask(Method::GET, "/plugins", ())?)?;
        let mut of_files = plugins.iter().filter(|plugin| !plugin.source.starts_with("builtin:"));
        match (of_files.next(), of_files.next()) {
            (Some(only), None) => Ok(only.slot.clone()),
            (Some(_), Some(_)) => {
                let slots: Vec<_> = plugins.iter().map(|plugin| plugin.slot.as_str()).collect();
                Err(Failure::Failed(format!("--slot must say which: {}", slots.join(", "))))
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
        // A component that will be refused unseen, as one too many or too large, is not sent.
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
        let problem =
            problem.unwrap_or_else(|| format!("{} does not speak as a gateway does ({status})", self.address));
        Err(Failure::Failed(match status {
            StatusCode::UNAUTHORIZED => {
                format!("{problem}: the gateway at {} has another one (--config, --token-file)", self.address)
            }
            _ => problem,
        }))
    }

    fn failure(&self, error: &ureq::Error) -> Failure {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
        let Self { address, .. } = self;
        match error {
            Timeout(_) | ConnectionFailed | HostNotFound | Io(_) => Failure::Unavailable(format!(
                "cannot reach {address}: {error}. Is the gateway running, and is this its admin.listen? Else name its \
                 settings by --config, or its address by --address"
            )),
            error => Failure::Failed(format!("{address}: {error}")),
        }
    }
}

/// Where a gateway with these settings can be reached from its own machine.
fn address_of(config: &Config) -> Result<String, Failure> {
    let listen = config.admin.listen;
    if !config.admin.enabled {
        return Err(Failure::Unavailable("there is no admin listener: admin.enabled = false".to_owned()));
    }
    if listen.port() == 0 {
        let problem = "admin.listen leaves the port to the gateway, whose log tells: name it by --address";
        return Err(Failure::Unavailable(problem.to_owned()));
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listen.port()).to_string())
}

/// The token of a gateway with these settings.
fn token_of(config: &Config) -> Result<Token, Failure> {
    let state = StateFolder::existing(config.state_folder.as_deref());
    let content = state.read_private(token::FILE, token::MAX_FILE).map_err(|error| {
        let hint = "Run this as the user that the gateway runs as, or name the file by --token-file";
        Failure::Failed(format!("cannot read the token: {error}. {hint}"))
    })?;
    let content = content.ok_or_else(|| {
        let path = state.path(token::FILE).unwrap_or_default();
        Failure::Unavailable(format!(
            "there is no token at {}. Is the gateway running, with these settings and as this user? Else name its \
             settings by --config, or the file by --token-file",
            path.display()
        ))
    })?;
    Token::parse(&content).map_err(|error| Failure::Failed(error.to_string()))
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    let read = || {
        let too_large = || io::Error::other(format!("it has more than {} bytes", token::MAX_FILE));
        Token::parse(&read_file(file, token::MAX_FILE)?.ok_or_else(too_large)?)
    };
    read().map_err(|error| Failure::Failed(format!("cannot read the token from {}: {error}", file.display())))
}

/// A name as one segment of a path (RFC 3986 §2.3).
fn encoded(segment: &str) -> String {
    let encode = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    segment.bytes().map(encode).collect()
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
            config.admin.listen = listen.parse().unwrap();
            address_of(&config).ok()
        };
        assert_eq!(address("0.0.0.0:1235").as_deref(), Some("127.0.0.1:1235"));
        assert_eq!(address("[::]:1235").as_deref(), Some("[::1]:1235"));
        assert_eq!(address("192.0.2.1:80").as_deref(), Some("192.0.2.1:80"));
        assert_eq!(address("127.0.0.1:0"), None);
    }
}
