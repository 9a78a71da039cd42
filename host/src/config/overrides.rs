//! Settings that do not come from the file.

/// What flags and environment variables say; it counts more than the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(pub(super) Vec<Override>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub key: &'static str,
    pub by: String,
    pub values: Vec<String>,
}

impl Overrides {
    /// Sets `key` as `by`, the name of a flag or variable for errors, says.
    ///
    /// A key is its dotted name in the file, such as `websocket.listen`. `authenticator` replaces the whole chain and
    /// `router` the router, by paths relative to the working directory or `builtin:NAME`; a plugin that the file names in
    /// the same role keeps its settings, isolation and limits there, another one has the defaults.
    pub fn set(&mut self, key: &'static str, by: impl Into<String>, values: impl IntoIterator<Item = String>) {
        self.0.push(Override { key, by: by.into(), values: values.into_iter().collect() });
    }
}
