use plugin_settings::Settings;

use crate::claims::Rules;
use crate::keys::Keys;
use crate::places::Places;

/// The names of all settings. The documentation of the crate explains them.
const KNOWN: &[&str] = &[
    "JWT_KEYS",
    "JWT_PUBLIC_KEY",
    "JWT_SECRET",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "JWT_LEEWAY",
    "JWT_EXPIRY",
    "JWT_UID_CLAIM",
    "JWT_ATTRIBUTES",
    "JWT_FIELD",
    "JWT_HEADER",
    "JWT_QUERY",
    "JWT_COOKIE",
    "JWT_REPLY",
];

/// The settings of the plugin.
#[derive(Debug)]
pub(crate) struct JwtSettings {
    pub(crate) keys: Keys,
    pub(crate) rules: Rules,
    pub(crate) places: Places,
    /// `JWT_REPLY`; `None` if it is empty.
    pub(crate) reply: Option<String>,
}

impl JwtSettings {
    pub(crate) fn from_environment() -> Result<Self, String> {
        Self::read(&Settings::from_environment(KNOWN)?)
    }

    #[cfg(test)]
    pub(crate) fn new(settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::read(&Settings::new(settings.iter().copied(), KNOWN)?)
    }

    fn read(settings: &Settings) -> Result<Self, String> {
        let reply = settings.get("JWT_REPLY").unwrap_or("Link_successful");
        Ok(Self {
            keys: Keys::read(settings)?,
            rules: Rules::read(settings)?,
            places: Places::read(settings)?,
            reply: (!reply.is_empty()).then(|| reply.to_owned()),
        })
    }
}
