use plugin_settings::Settings;

const KNOWN: &[&str] = &[
    "ROOMS_JOIN",
    "ROOMS_PUBLISH",
    "ROOMS_SEND",
    "ROOMS_API_PUBLISH",
    "ROOMS_API_SEND",
    "ROOMS_MEMBERS",
    "ROOMS_MAX",
    "ROOMS_PRESENCE",
];

/// The settings of the plugin. The default allows nothing.
#[derive(Default)]
pub(crate) struct RoomSettings {
    pub(crate) join: String,
    pub(crate) publish: String,
    pub(crate) send: String,
    /// `ROOMS_API_PUBLISH`: the rooms that the HTTP API may publish in.
    pub(crate) api_publish: String,
    /// `ROOMS_API_SEND`: the uids that the HTTP API may write to.
    pub(crate) api_send: String,
    /// `ROOMS_MEMBERS`: the largest number of uids in an answer.
    pub(crate) members: u32,
    /// `ROOMS_MAX`: how many rooms a connection may be in. The host allows 1024 groups, and does not report a refused
    /// join.
    pub(crate) max: u32,
    pub(crate) presence: bool,
}

impl RoomSettings {
    pub(crate) fn from_environment() -> Result<Self, String> {
        Self::read(&Settings::from_environment(KNOWN)?)
    }

    #[cfg(test)]
    pub(crate) fn new(settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::read(&Settings::new(settings.iter().copied(), KNOWN)?)
    }

    fn read(settings: &Settings) -> Result<Self, String> {
        let patterns = |name| {
            let patterns = settings.list(name)?.unwrap_or_default();
            // Refuse a pattern that matches less than it seems to: such a mistake would be noticed late.
            let end = |pattern: &str| pattern.len().saturating_sub(1);
            if patterns.iter().any(|pattern| pattern.find('*').is_some_and(|star| star != end(pattern))) {
                return Err(format!("{name} has a pattern with a * before its end: a * stands for the rest of a name"));
            }
            Ok(patterns.join(","))
        };
        Ok(Self {
            join: patterns("ROOMS_JOIN")?,
            publish: patterns("ROOMS_PUBLISH")?,
            send: patterns("ROOMS_SEND")?,
            api_publish: patterns("ROOMS_API_PUBLISH")?,
            api_send: patterns("ROOMS_API_SEND")?,
            members: settings.number("ROOMS_MEMBERS", 100, 1..=1000)?,
            max: settings.number("ROOMS_MAX", 100, 1..=1024)?,
            presence: settings.choice("ROOMS_PRESENCE", &[("off", false), ("on", true)])?,
        })
    }
}
