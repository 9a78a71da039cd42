//! The plugins that are built into the binary. The build script compiles them.

/// The name and the component of each plugin.
const ALL: [(&str, &[u8]); 6] = [
    ("echo-router", include_bytes!(concat!(env!("OUT_DIR"), "/echo_router.wasm"))),
    ("hmac-auth", include_bytes!(concat!(env!("OUT_DIR"), "/hmac_auth.wasm"))),
    ("jwt-auth", include_bytes!(concat!(env!("OUT_DIR"), "/jwt_auth.wasm"))),
    ("origin-auth", include_bytes!(concat!(env!("OUT_DIR"), "/origin_auth.wasm"))),
    ("origin-router", include_bytes!(concat!(env!("OUT_DIR"), "/origin_router.wasm"))),
    ("rooms-router", include_bytes!(concat!(env!("OUT_DIR"), "/rooms_router.wasm"))),
];

/// Returns the component of a built-in plugin.
pub(crate) fn component(name: &str) -> Option<&'static [u8]> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, component)| *component)
}

/// Returns the names of all built-in plugins, as a list for error messages.
pub(crate) fn names() -> String {
    ALL.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PluginSource;

    #[test]
    fn the_configuration_knows_their_names() {
        assert_eq!(ALL.map(|(name, _)| name), PluginSource::BUILTINS);
    }

    /// Else each machine would build other plugins from the same sources, with other digests.
    #[test]
    fn they_name_no_folder_of_the_machine_that_built_them() {
        let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let workspace = std::path::Path::new(workspace).canonicalize().unwrap();
        for (name, component) in ALL {
            for folder in [workspace.to_str().unwrap(), "/.cargo/registry/"] {
                let found = component.windows(folder.len()).any(|window| window == folder.as_bytes());
                assert!(!found, "{name} names {folder}");
            }
        }
    }
}
