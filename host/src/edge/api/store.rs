//! Keeps the tokens in effect. They change while the gateway runs, when its configuration is read again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::info;

use super::tokens::{ApiTokens, Grant};
use crate::base::state::StateFolder;
use crate::config::{ApiTokenConfig, Credential, Scope};
use crate::edge::http::token::{API_FILE, Token};

/// The name of the token in the state folder.
const DEFAULT: &str = "default";

/// The tokens in effect.
#[derive(Debug)]
pub struct TokenStore {
    state: Arc<StateFolder>,
    current: ArcSwap<ApiTokens>,
}

impl TokenStore {
    /// Loads the configured tokens. Without any, loads the token in the state folder, and makes it if there is none.
    /// Blocks.
    ///
    /// # Errors
    /// If no token is configured, and the state folder has none and cannot keep one.
    pub(super) fn load(configured: Vec<ApiTokenConfig>, state: Arc<StateFolder>) -> io::Result<Self> {
        let tokens = ApiTokens::default().replaced(or_default(configured, &state)?);
        Ok(Self { state, current: ArcSwap::from_pointee(tokens) })
    }

    /// Replaces the tokens by those of a new configuration. Logs it if they differ. Blocks.
    ///
    /// # Errors
    /// Like [`load`](Self::load). The tokens then stay as they are.
    pub fn configure(&self, configured: Vec<ApiTokenConfig>) -> io::Result<()> {
        let configured = or_default(configured, &self.state)?;
        let current = self.current.load();
        if !current.are(&configured) {
            let names = configured.iter().map(|token| token.name.as_str()).collect::<Vec<_>>().join(", ");
            self.current.store(Arc::new(current.replaced(configured)));
            info!(names, "tokens of the API changed");
        }
        Ok(())
    }

    /// Returns what the token in an `Authorization` header allows, or `None` if there is no such token.
    pub(super) fn find(&self, authorization: &[u8]) -> Option<Arc<Grant>> {
        self.current.load().find(authorization)
    }

    /// Returns what a client with these names in its certificate may do, or `None` if there is no token for them.
    pub(super) fn of_certificate(&self, names: &[String]) -> Option<Arc<Grant>> {
        self.current.load().of_certificate(names)
    }

    /// Returns the file of the token in the state folder.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.state.path(API_FILE)
    }
}

/// Returns the configured tokens or, if there are none, the one in the state folder: it has every scope.
fn or_default(configured: Vec<ApiTokenConfig>, state: &StateFolder) -> io::Result<Vec<ApiTokenConfig>> {
    if !configured.is_empty() {
        return Ok(configured);
    }
    let credential = Credential::Token(Token::create(state, API_FILE)?.digest());
    let scopes = Scope::ALL.map(|(_, scope)| scope).into();
    Ok(vec![ApiTokenConfig { name: DEFAULT.to_owned(), scopes, credential, ..ApiTokenConfig::default() }])
}
