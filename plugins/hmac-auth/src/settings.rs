use plugin_settings::Settings;

const KNOWN: &[&str] = &["HMAC_SECRET", "HMAC_KEYS", "HMAC_REPLY"];
/// The shortest secret, in bytes: as long as the hash. A shorter secret would be easier to guess than a MAC.
const MIN_SECRET: usize = 32;

/// The settings of the plugin.
pub(crate) struct HmacSettings {
    pub(crate) secret: String,
    pub(crate) keys: Keys,
    /// `HMAC_REPLY`; `None` if it is empty.
    pub(crate) reply: Option<String>,
}

/// `HMAC_KEYS`: the keys that clients have.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// The secret itself.
    Shared,
    /// A key made from the secret and the uid.
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
