//! Fuzz targets: case files and components of any content.

use std::path::Path;

use super::cases::Cases;
use super::check;

/// Reads a case file.
pub(crate) fn cases(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(cases) = Cases::parse(text, Path::new(".")) {
        assert!(!cases.is_empty());
        assert!(cases.iter().all(|case| case.check.is_some() == case.steps.is_empty()));
    }
}

/// Inspects a component as `hotgate plugin check` does, without loading it.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(report) = check::inspect("plugin.wasm", bytes, None) else { return };
    let text = report.to_string();
    assert!(text.len() < 64 << 10, "{} bytes of report", text.len());
    assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'), "{text:?}");
}
