//! Settings from flags and environment variables.

/// Settings from flags and environment variables. They replace those of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(pub(super) Vec<Override>);

/// One key that a flag or environment variable sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub key: &'static str,
    pub by: String,
    pub values: Vec<String>,
}

impl Overrides {
    /// Sets `key` to `values`. `by` is the name of the flag or environment variable, which errors show.
    ///
    /// `key` is the dotted name in the file, such as `websocket.listen`. `authenticator` replaces the whole chain, and
    /// `router` replaces the router. Their values are `builtin:NAME`, or paths relative to the working directory. A
    /// plugin that the file configures in the same role keeps its settings, isolation and limits from the file; any
    /// other plugin has the defaults.
    pub fn set(&mut self, key: &'static str, by: impl Into<String>, values: impl IntoIterator<Item = String>) {
        self.0.push(Override { key, by: by.into(), values: values.into_iter().collect() });
    }
}
