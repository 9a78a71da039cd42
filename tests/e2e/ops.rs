//! The files in `host/ops`: systemd's own checks of the units, and the settings of the package and of the manifests.
//! `tests/ops/run` tests the release itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use hotgate_tests::{Setup, skip};

fn ops(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/ops").join(file)
}

/// Runs `systemd-analyze` on the units. Returns its exit code and output, or `None` on a machine without it.
fn analyze(arguments: &[&str], units: &[&Path]) -> Option<(Option<i32>, String)> {
    let Ok(output) = Command::new("systemd-analyze").args(arguments).args(units).output() else {
        skip("there is no systemd-analyze");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn systemd_calls_the_service_well_protected() {
    // In tenths: 0 is best, 100 is worst.
    if let Some((code, text)) =
        analyze(&["security", "--offline=true", "--threshold=15"], &[&ops("systemd/hotgate.service")])
    {
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let folder = tempfile::tempdir().expect("a folder");
    let units = ["hotgate.service", "hotgate.socket"].map(|name| {
        let unit = std::fs::read_to_string(ops("systemd").join(name)).expect("a unit");
        let path = folder.path().join(name);
        // systemd checks that the program exists.
        std::fs::write(&path, unit.replace("/usr/bin/hotgate", "/bin/sh")).expect("written");
        path
    });
    if let Some((code, text)) = analyze(&["verify", "--man=no"], &[&units[0], &units[1]]) {
        assert_eq!((code, text.trim()), (Some(0), ""));
    }
}

#[tokio::test]
async fn the_settings_that_are_shipped_are_accepted() {
    let packaged = std::fs::read_to_string(ops("debian/hotgate.toml")).expect("settings");
    let in_pods = ["kubernetes/hotgate.toml", "kubernetes/cluster/hotgate.toml"].map(|file| {
        let settings = std::fs::read_to_string(ops(file)).expect("settings");
        settings.replace("/run/secrets/hotgate/shop", "shop")
    });
    for settings in [packaged].into_iter().chain(in_pods) {
        let setup = Setup::new(&settings).bytes("shop", b"0123456789abcdef0123456789abcdef");
        let checked = setup.run(&["--config", "hotgate.toml", "config", "check"]).await;
        assert_eq!(checked.code, Some(0), "{settings}: {checked:?}");
    }
}
