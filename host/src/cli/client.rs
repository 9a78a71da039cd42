//! Asks a running gateway on its admin listener.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, AsSendBody, Body};

use super::failure::Failure;
use super::reach::Way;
use crate::base::state::StateFolder;
use crate::config::{Config, MAX_TOKEN_FILE, Source, read_file};
use crate::edge::http::token::{self, Token};

/// The time limit of a request that only reads.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of a request that changes something: a little longer than the gateway's own limit, with compiling.
const ACT_TIMEOUT: Duration = Duration::from_secs(15 * 60 + 10);
/// The time limit of an answer that goes on: a little longer than the gateway's own limit.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(15 * 60 + 10);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// The heading of the flags that say which gateway is meant.
pub(super) const RUNNING: &str = "The running gateway";

/// The flags that say which gateway is meant, and with which token it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct Target {
    /// The gateway's admin listener: HOST:PORT, https://HOST:PORT or unix:PATH [default: admin.listen of the settings]
    #[arg(long, value_name = "ADDRESS", global = true, help_heading = RUNNING)]
    pub(super) address: Option<String>,
    /// The file with the certificates that an https address must have, or their authorities
    #[arg(long, value_name = "FILE", global = true, help_heading = RUNNING)]
    pub(super) ca: Option<PathBuf>,
    /// The file with the gateway's token [default: the file in the state folder of the settings]
    #[arg(long, value_name = "FILE", global = true, help_heading = RUNNING)]
    pub(super) token_file: Option<PathBuf>,
}

/// Asks one gateway.
pub(super) struct Client {
    agent: Agent,
    way: Way,
    /// `None` for health probes, which need no token.
    token: Option<Token>,
}

impl Client {
    /// Finds the gateway and its token; `file` is the token's file in the state folder. Loads the settings only if they
    /// are needed.
    ///
    /// # Errors
    /// If the settings are needed and wrong, or there is no token.
    pub(super) fn new(target: &Target, file: &str, source: &Source) -> Result<Self, Failure> {
        let Target { address, token_file, ca } = target;
        let to = |address: &String| Way::to(address, ca.as_deref());
        let (way, token) = match (address, token_file) {
            // The settings may be in the middle of an edit: that must not prevent a rollback.
            (Some(address), Some(file)) => (to(address)?, read_token(file)?),
            (address, own) => {
                let config = settings(source, "both --address and --token-file")?;
                let way = address.as_ref().map_or_else(|| Way::from(&config), to)?;
                (way, own.as_deref().map_or_else(|| token_of(&config, file), read_token)?)
            }
        };
        Ok(Self { agent: way.agent(), way, token: Some(token) })
    }

    /// Finds the gateway, to send it health probes.
    ///
    /// # Errors
    /// If the settings are needed and wrong.
    pub(super) fn probe(address: Option<&str>, ca: Option<&Path>, source: &Source) -> Result<Self, Failure> {
        let configured = || Way::from(&settings(source, "--address")?);
        let way = address.map_or_else(configured, |address| Way::to(address, ca))?;
        Ok(Self { agent: way.agent(), way, token: None })
    }

    /// Returns the gateway's address, for messages.
    pub(super) fn shown(&self) -> String {
        self.way.shown()
    }

    /// Returns the gateway's address for a browser, or the path of its Unix socket.
    pub(super) fn page(&self) -> Result<String, String> {
        self.way.page()
    }

    /// Sends a request. Returns the answer, which is JSON.
    ///
    /// # Errors
    /// If the gateway cannot be reached, or refuses.
    pub(super) fn ask(&self, method: Method, path: &str, body: impl AsSendBody) -> Result<Value, Failure> {
        let timeout = if method == Method::GET { LOOK_TIMEOUT } else { ACT_TIMEOUT };
        let mut response = self.send(method, path, body, timeout)?;
        match (response.status(), self.read(&mut response)?) {
            (StatusCode::OK, Some(answer)) => Ok(answer),
            (status, answer) => Err(self.refusal(status, answer)),
        }
    }

    /// Asks for an answer that goes on.
    ///
    /// # Errors
    /// If the gateway cannot be reached, or refuses.
    pub(super) fn follow(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let mut response = self.send(Method::GET, path, (), FOLLOW_TIMEOUT)?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().into_reader()),
            status => Err(self.refusal(status, self.read(&mut response)?)),
        }
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: impl AsSendBody,
        timeout: Duration,
    ) -> Result<Response<Body>, Failure> {
        let url = format!("{}{path}", self.way.url());
        let has_body = method == Method::PUT;
        let request = Request::builder().method(method).uri(&url);
        let request = match &self.token {
            Some(token) => request.header("authorization", token.header()),
            None => request,
        };
        // A component that is too large, or comes during another upload, is refused before it is sent.
        let request = if has_body { request.header("expect", "100-continue") } else { request };
        let request = request.body(body).map_err(|error| Failure::Failed(format!("{url}: {error}")))?;
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        self.agent.run(request).map_err(|error| self.failure(&error))
    }

    /// Reads the body of an answer. Returns `None` if it is not JSON.
    fn read(&self, response: &mut Response<Body>) -> Result<Option<Value>, Failure> {
        let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        Ok(serde_json::from_slice(&answer.map_err(|error| self.failure(&error))?).ok())
    }

    /// Returns why the gateway refused a request.
    fn refusal(&self, status: StatusCode, answer: Option<Value>) -> Failure {
        let problem = answer.and_then(|answer| Some(answer["error"].as_str()?.to_owned()));
        let problem =
            problem.unwrap_or_else(|| format!("{} does not answer like a gateway ({status})", self.way.shown()));
        Failure::Failed(match status {
            StatusCode::UNAUTHORIZED => {
                format!("{problem}: the gateway at {} has another token (--config, --token-file)", self.way.shown())
            }
            _ => problem,
        })
    }

    fn failure(&self, error: &ureq::Error) -> Failure {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
        let address = self.way.shown();
        match error {
            Timeout(_) | ConnectionFailed | HostNotFound | Io(_) => Failure::Unavailable(format!(
                "cannot reach {address}: {error}. Is the gateway running, and is this its admin.listen? If not, give \
                 its settings by --config, or its address by --address"
            )),
            error => Failure::Failed(format!("{address}: {error}")),
        }
    }
}

/// Loads the settings that say where a gateway is. `flags` would make them needless.
fn settings(source: &Source, flags: &str) -> Result<Config, Failure> {
    source.load_admin().map_err(|error| Failure::Settings(format!("{error}; correct this, or give {flags}")))
}

/// Reads the token in this file of the state folder of a gateway with these settings.
fn token_of(config: &Config, file: &str) -> Result<Token, Failure> {
    let state = StateFolder::existing(config.state_folder.as_deref());
    let content = state.read_private(file, MAX_TOKEN_FILE).map_err(|error| {
        let hint = "Run this command as the gateway's user, or give the file by --token-file";
        Failure::Failed(format!("cannot read the token: {error}. {hint}"))
    })?;
    let content = content.ok_or_else(|| {
        let path = state.path(file).unwrap_or_default();
        Failure::Unavailable(format!(
            "there is no token at {}. Is the gateway running, with these settings and as this user? If not, give its \
             settings by --config, or the file by --token-file",
            path.display()
        ))
    })?;
    Token::parse(file, &content).map_err(|error| Failure::Failed(error.to_string()))
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    let read = || {
        let too_large = || io::Error::other(format!("the file has more than {} bytes", MAX_TOKEN_FILE));
        Token::parse(token::ADMIN_FILE, &read_file(file, MAX_TOKEN_FILE)?.ok_or_else(too_large)?)
    };
    read().map_err(|error| Failure::Failed(format!("cannot read the token from {}: {error}", file.display())))
}
