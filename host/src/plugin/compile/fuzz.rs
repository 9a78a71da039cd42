//! Components, as anybody may hand them over.

/// What is looked at in a component before it is compiled.
pub(crate) fn inspect(bytes: &[u8]) {
    if let Err(error) = super::inspect::inspect(bytes) {
        let error = error.to_string();
        assert!(error.len() < 200, "{error}");
    }
}
