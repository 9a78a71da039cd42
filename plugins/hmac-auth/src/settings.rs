use plugin_settings::Settings;

const KNOWN: &[&str] = &["HMAC_SECRET", "HMAC_KEYS", "HMAC_REPLY"];
/// As long as the hash: less would make the secret the easier thing to guess.
const MIN_SECRET: usize = 32;

/// What the plugin is told by whoever deploys it.
pub(crate) struct HmacSettings {
    pub(crate) secret: String,
    pub(crate) keys: Keys,
    /// `HMAC_REPLY`; none if that is empty.
    pub(crate) reply: Option<String>,
}

/// `HMAC_KEYS`: what clients have.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// The secret.
    Shared,
    /// A key made from it and their uid.
    PerUid,
}

impl HmacSettings {
    pub(crate) fn from_environment() -> Result<Self, String> {
        Self::read(&Settings::from_environment(KNOWN)?)
    }

    #[cfg(test)]
    pub(crate) fn new(settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::read(&Settings::new(settings.iter().copied(), KNOWN)?)
    }

    fn read(settings: &Settings) -> Result<Self, String> {
        let secret = settings.secret("HMAC_SECRET")?.ok_or("HMAC_SECRET is missing: set it to a random text")?;
        if secret.len() < MIN_SECRET {
            return Err(format!("HMAC_SECRET is too short: it must have at least {MIN_SECRET} bytes"));
        }
        let reply = settings.get("HMAC_REPLY").unwrap_or("Link_successful");
        Ok(Self {
            secret: secret.to_owned(),
            keys: settings.choice("HMAC_KEYS", &[("shared", Keys::Shared), ("per-uid", Keys::PerUid)])?,
            reply: (!reply.is_empty()).then(|| reply.to_owned()),
        })
    }
}
