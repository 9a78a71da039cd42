//! The sockets that systemd has opened for this process and passed to it (sd_listen_fds(3)).

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, Result, bail};
use listenfd::ListenFd;

use crate::config::{Config, ListenAddress, ListenerName, Overrides};

/// A socket that systemd has passed.
#[derive(Debug)]
pub(crate) enum InheritedSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl InheritedSocket {
    fn address(&self) -> Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => Ok(ListenAddress::Tcp(listener.local_addr()?)),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().context("a Unix socket without a path cannot be used")?;
                Ok(ListenAddress::Unix(path.to_owned()))
            }
        }
    }
}

/// All sockets that systemd has passed, with their listeners.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<(ListenerName, InheritedSocket)>);

impl Inherited {
    /// Takes the sockets from the environment. Only the first call gets them. Must be called before the process has
    /// other threads, because it changes the environment.
    ///
    /// # Errors
    /// If a socket has not the name of a listener (`FileDescriptorName=` of the socket unit), or is neither a TCP nor a
    /// Unix socket.
    pub(crate) fn take() -> Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(passed.len());
        let mut names = names.split(':');
        for index in 0..passed.len() {
            let given = names.next().unwrap_or_default();
            let Some(name) = ListenerName::ALL.into_iter().find(|name| name.as_str() == given) else {
                let allowed = ListenerName::ALL.map(ListenerName::as_str).join(", ");
                bail!(
                    "systemd has passed a socket with the name {given:?}: FileDescriptorName= must be one of {allowed}"
                );
            };
            let socket = match passed.take_tcp_listener(index) {
                Ok(listener) => listener.map(InheritedSocket::Tcp),
                Err(_) => passed.take_unix_listener(index).ok().flatten().map(InheritedSocket::Unix),
            };
            let socket = socket.with_context(|| {
                format!(
                    "systemd has passed a socket with the name {given:?} that is not a stream socket of TCP or Unix"
                )
            })?;
            sockets.push((name, socket));
        }
        Ok(Self(sockets))
    }

    /// Replaces the addresses in the settings by those of the sockets.
    ///
    /// # Errors
    /// If the address of a socket cannot be read.
    pub(crate) fn apply(&self, overrides: &mut Overrides) -> Result<()> {
        for name in ListenerName::ALL {
            let own = self.0.iter().filter(|(of, _)| *of == name);
            let addresses: Vec<_> = own.map(|(_, socket)| Ok(socket.address()?.to_string())).collect::<Result<_>>()?;
            if !addresses.is_empty() {
                overrides.set(name.listen_key(), "systemd (LISTEN_FDS)", addresses);
            }
        }
        Ok(())
    }

    /// Checks that a listener takes each socket: clients of any other would wait for ever.
    ///
    /// # Errors
    /// Names a listener that is off.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        match self.0.iter().find(|(of, _)| config.listeners().all(|(name, _)| name != *of)) {
            None => Ok(()),
            Some((of, _)) => {
                let why = match of {
                    ListenerName::WebSocket => "cluster.role is \"sender\"".to_owned(),
                    of => format!("{of}.enabled is false"),
                };
                bail!("systemd has passed a socket with the name \"{of}\", but {why}")
            }
        }
    }

    /// Takes the sockets of this listener.
    pub(crate) fn named(&mut self, name: ListenerName) -> Vec<InheritedSocket> {
        self.0.extract_if(.., |(of, _)| *of == name).map(|(_, socket)| socket).collect()
    }
}
