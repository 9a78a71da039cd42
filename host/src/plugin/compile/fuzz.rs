//! Fuzzing of components, which may come from anybody.

/// Inspects a component as before compiling.
pub(crate) fn inspect(bytes: &[u8]) {
    if let Err(error) = super::inspect::inspect(bytes) {
        let error = error.to_string();
        assert!(error.len() < 200, "{error}");
    }
}
