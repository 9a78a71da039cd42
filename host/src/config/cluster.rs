//! The settings of the cluster: how this gateway finds the others, and who it is among them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::error::Wrong;
use super::files::absolute;
use super::kinds::{Choice, Count, Kind, List, Text, Time, host, host_and_port};
use super::listener::CLIENT_CA as FILE;
use super::section::{Row, Section, Tables, keys};
use super::units::{MS, millis, secs};

/// The largest node id.
const LAST_NODE: u16 = 511;

/// How a gateway belongs to a cluster. It belongs to none if there is no NATS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The NATS servers.
    pub nats: Vec<String>,
    /// What this gateway is for.
    pub role: Role,
    /// This gateway's id in the cluster; `None` for a free one.
    pub node: Option<u16>,
    /// The file with a secret that all gateways of the cluster share.
    pub secret: Option<PathBuf>,
    /// The file of NATS credentials.
    pub credentials: Option<PathBuf>,
    /// The file with the seed of an nkey.
    pub nkey: Option<PathBuf>,
    /// The user at NATS.
    pub user: String,
    /// The file with the user's password.
    pub password: Option<PathBuf>,
    /// The file with the authorities that are trusted to certify NATS servers.
    pub authorities: Option<PathBuf>,
    /// The file with this gateway's certificate for NATS.
    pub certificate: Option<PathBuf>,
    /// The file with the key of this certificate.
    pub key: Option<PathBuf>,
    /// The first word of all NATS subjects.
    pub subjects: String,
    /// How long another gateway may take to answer.
    pub timeout: Duration,
    /// How long a login waits until the other gateways know of it.
    pub confirm: Duration,
    /// What to do if NATS cannot be reached at the start.
    pub without_nats: WithoutNats,
}

impl ClusterConfig {
    /// Returns `true` if this gateway belongs to a cluster.
    pub fn is_on(&self) -> bool {
        !self.nats.is_empty()
    }

    /// Returns `true` if no clients connect to this gateway.
    pub fn is_sender(&self) -> bool {
        self.is_on() && self.role == Role::Sender
    }

    fn files_mut(&mut self) -> [&mut Option<PathBuf>; 7] {
        let Self { secret, credentials, nkey, password, authorities, certificate, key, .. } = self;
        [secret, credentials, nkey, password, authorities, certificate, key]
    }

    /// Makes relative paths absolute; they start at `folder`.
    pub(super) fn locate(&mut self, folder: &Path) -> Result<(), String> {
        for path in self.files_mut().into_iter().flatten() {
            *path = absolute(folder, path)?;
        }
        Ok(())
    }
}

keys! {
    ClusterConfig {
        nats: List(SERVER), = Vec::new(),
            "The NATS servers over which the gateways of a cluster speak to each other. Empty: this gateway serves alone, \
             and all other keys of this table have no effect.";
        role: ROLE, = Role::Member,
            "What this gateway is for. \"member\": clients connect to it. \"sender\": it has no WebSocket listener, and only \
             passes on what internal systems push.";
        node: NodeNumber, = None,
            "The number of this gateway in the cluster. \"auto\" takes a free number at the start.";
        secret: FILE, = None,
            "The file with a secret that all gateways of the cluster share. Gateways with another secret are not heard, \
             so that two clusters do not mix by mistake. It does not protect against whoever may use the NATS subjects: \
             limit them in NATS. Empty: none.";
        credentials: FILE, = None,
            "The file of NATS credentials (a JWT and a seed). Empty: none.";
        nkey: FILE, = None,
            "The file with the seed of an nkey, in place of credentials. Empty: none.";
        user: USER, = String::new(),
            "The user at NATS, with a password in place of credentials. Empty: none.";
        password: FILE, = None,
            "The file with the user's password. Empty: none.";
        authorities: FILE, = None,
            "The file with the authorities that certify the NATS servers, in PEM. With it, all connections use TLS. \
             Empty: those of the system.";
        certificate: FILE, = None,
            "The file with the certificate that this gateway shows to NATS, in PEM. Empty: none.";
        key: FILE, = None,
            "The file with the private key of this certificate, in PEM. Empty: none.";
        subjects: SUBJECTS, = "hg".to_owned(),
            "The first word of all NATS subjects. Two clusters in one NATS account need different words.";
        timeout: Time(millis(50)..=secs(60)), = secs(1),
            "How long another gateway may take to carry out a command. A command that arrives later has no effect; \
             without an answer by then, nobody knows whether it had.";
        confirm: Time(MS..=secs(10)), = millis(100),
            "How long a login waits until the other gateways know of it, and with sessions.duplicate_login = \"close-older\" once \
             more until they have closed the older connections. Then the client gets its reply anyway.";
        without_nats: WITHOUT_NATS, = WithoutNats::Serve,
            "What to do if NATS cannot be reached at the start. \"serve\": serve alone, and go on trying. \"refuse\": \
             do not start.";
    }
}

/// What a gateway of a cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Clients connect to it.
    Member,
    /// It only passes on what internal systems push.
    Sender,
}

pub(super) const ROLE: Choice<Role> = Choice(&[("member", Role::Member), ("sender", Role::Sender)]);

/// What to do if NATS cannot be reached at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutNats {
    /// Serve alone, and go on trying.
    Serve,
    /// Do not start.
    Refuse,
}

pub(super) const WITHOUT_NATS: Choice<WithoutNats> =
    Choice(&[("serve", WithoutNats::Serve), ("refuse", WithoutNats::Refuse)]);

/// A NATS server.
pub(super) const SERVER: Text<String> = Text {
    parse: |text| {
        let authority = text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://"))?;
        let (name, port) = host_and_port(authority);
        let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        (is_port && host(name).is_some()).then(|| text.to_owned())
    },
    show: String::clone,
    allowed: "a NATS server without user and password, like \"nats://127.0.0.1:4222\" or \"tls://nats.internal:4222\"",
};

/// The first word of NATS subjects.
pub(super) const SUBJECTS: Text<String> = Text {
    parse: |text| {
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        (text.len() <= 64 && text.split('.').all(is_word)).then(|| text.to_owned())
    },
    show: String::clone,
    allowed: "words of letters, digits, \"-\" and \"_\" with dots between them, at most 64 bytes",
};

/// The name of a user; or nothing.
pub(super) const USER: Text<String> = Text {
    parse: |text| (text.len() <= 256 && !text.chars().any(char::is_control)).then(|| text.to_owned()),
    show: String::clone,
    allowed: "a name of at most 256 bytes, or empty",
};

/// The id of a node; or `None`, written as "auto".
pub(super) struct NodeNumber;

impl Kind for NodeNumber {
    type Value = Option<u16>;

    fn parse(&self, value: &DeValue<'_>) -> Result<Option<u16>, Wrong> {
        if value.as_str() == Some("auto") {
            return Ok(None);
        }
        Count(0..=LAST_NODE).parse(value).map(Some).map_err(|_| self.wrong(value))
    }

    fn show(&self, value: &Option<u16>) -> toml::Value {
        value.map_or_else(|| "auto".into(), |number| i64::from(number).into())
    }

    fn allowed(&self) -> String {
        format!("{}; or \"auto\"", Count(0..=LAST_NODE).allowed())
    }
}
