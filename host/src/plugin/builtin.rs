//! The plugins that are part of the binary, compiled by the build script.

/// Name and component of each.
const ALL: [(&str, &[u8]); 2] = [
    ("origin-auth", include_bytes!(concat!(env!("OUT_DIR"), "/origin_auth.wasm"))),
    ("origin-router", include_bytes!(concat!(env!("OUT_DIR"), "/origin_router.wasm"))),
];

/// The component of a built-in plugin.
pub(super) fn component(name: &str) -> Option<&'static [u8]> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, component)| *component)
}

/// The names of all built-in plugins, as an error message lists them.
pub(super) fn names() -> String {
    ALL.map(|(name, _)| name).join(", ")
}
