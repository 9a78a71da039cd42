//! Opens the listeners.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use super::error::StartError;
use crate::base::notices::Notices;
use crate::base::state::StateFolder;
use crate::config::{AllowedOrigins, Config, ListenAddress, ListenerName, PluginConfig};
use crate::edge::admin::{Admin, ListenerStatus};
use crate::edge::api::Api;
use crate::edge::listener::{Inherited, Listener};
use crate::edge::tls::Certificates;

/// What listeners are made of.
pub(super) struct Listeners<'a> {
    pub(super) config: &'a Config,
    pub(super) inherited: Inherited,
    pub(super) certificates: &'a Certificates,
    pub(super) notices: &'a Notices,
    /// The addresses of the listeners so far.
    pub(super) listening: Vec<ListenerStatus>,
}

impl Listeners<'_> {
    /// Opens the sockets of a listener.
    pub(super) async fn open(&mut self, name: ListenerName) -> Result<Listener, StartError> {
        self.bind(name).await.map_err(StartError::Listen)
    }

    async fn bind(&mut self, name: ListenerName) -> anyhow::Result<Listener> {
        Listener::bind(name, self.config.listener(name), self.inherited.named(name)).await
    }

    /// Starts the admin listener, if it is enabled. Also returns its addresses.
    pub(super) async fn admin(
        &mut self,
        state: Arc<StateFolder>,
    ) -> Result<Option<(Admin, Vec<ListenAddress>)>, StartError> {
        let config = &self.config.admin;
        if !config.enabled {
            return Ok(None);
        }
        let listener = self.open(ListenerName::Admin).await?;
        let addresses = listener.addresses();
        let started = Admin::start(config, state, listener, self.certificates.of(ListenerName::Admin)).await;
        Ok(Some((started.map_err(StartError::Listen)?, addresses)))
    }

    /// Starts the API's listener, if it is enabled. Also returns its addresses. If the configuration does not name it
    /// (`is_named`), the gateway also serves without it.
    pub(super) async fn api(
        &mut self,
        is_named: bool,
        state: Arc<StateFolder>,
    ) -> Result<Option<(Api, Vec<ListenAddress>)>, StartError> {
        let config = &self.config.api;
        if !config.enabled {
            return Ok(None);
        }
        let start = async {
            let listener = self.bind(ListenerName::Api).await?;
            let addresses = listener.addresses();
            Ok((Api::start(config, state, listener, self.certificates.of(ListenerName::Api)).await?, addresses))
        };
        match start.await {
            Ok(started) => Ok(Some(started)),
            Err(error) if is_named => Err(StartError::Listen(error)),
            Err(error) => {
                let error: anyhow::Error = error;
                warn!(error = format!("{error:#}"), "no HTTP push API; the gateway serves without it");
                self.notices.set(ListenerName::Api.as_str(), vec![format!("no HTTP push API: {error:#}")]);
                Ok(None)
            }
        }
    }

    /// Warns if every page of every network may say who it is, and is believed.
    pub(super) fn warn_of_believing(&self) {
        let (websocket, believing) = (&self.config.websocket, &PluginConfig::default().source);
        let is_public = websocket.listener.public_address().is_some();
        let believes = self.config.authenticators.iter().any(|plugin| plugin.source == *believing);
        if believes && is_public && !self.config.cluster.is_sender() && websocket.allowed_origins == AllowedOrigins::Any
        {
            warn!(
                plugin = %believing,
                "this authenticator believes every client, and every web page may connect: before others can reach \
                 websocket.listen, choose another [[authenticator]], or list your pages in websocket.allowed_origins"
            );
        }
    }

    /// Remembers the addresses of a listener, for the log and for the status.
    pub(super) fn remember(&mut self, listener: ListenerName, addresses: &[ListenAddress]) {
        let has_tls = self.certificates.of(listener).is_some();
        for address in addresses {
            let tls = has_tls && address.tcp().is_some();
            self.listening.push(ListenerStatus { listener, address: address.to_string(), tls });
        }
    }
}

/// Logs the addresses of all listeners. `token` is the file with the only token of the API, if there is one.
pub(super) fn log(listeners: &[ListenerStatus], token: Option<&Path>) {
    for ListenerStatus { listener, address, tls } in listeners {
        let token = token.filter(|_| *listener == ListenerName::Api).map(|file| file.display().to_string());
        info!(listener = listener.as_str(), %address, tls = tls.then_some(true), token, "listening");
    }
}
