//! Clients of other projects: Python's `websockets`, and `nc`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hotgate_tests::{Gateway, skip, within};

/// Runs a program until it ends, without blocking the test.
pub(crate) async fn run(mut command: Command) -> Output {
    let running = tokio::task::spawn_blocking(move || command.output());
    within("the end of a program", running).await.expect("no panic").expect("the program starts")
}

fn python(interpreter: &Path, arguments: &[&str]) -> Option<Output> {
    Command::new(interpreter).args(arguments).stdin(Stdio::null()).output().ok()
}

/// A Python with `websockets`: the machine's own, or else an environment below the target directory.
fn python_with_websockets() -> Option<PathBuf> {
    const IMPORT: [&str; 2] = ["-c", "import websockets.sync.client"];
    let system = PathBuf::from("python3");
    if python(&system, &IMPORT)?.status.success() {
        return Some(system);
    }
    let folder = hotgate_tests::cache("python-venv");
    let ours = folder.join("bin").join("python");
    if !python(&ours, &IMPORT).is_some_and(|output| output.status.success()) {
        let folder = folder.to_str().expect("a path in UTF-8");
        for (interpreter, arguments) in [
            (&system, &["-m", "venv", "--clear", folder] as &[_]),
            (&ours, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "websockets"]),
        ] {
            let output = python(interpreter, arguments).expect("an interpreter");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
    }
    Some(ours)
}

#[tokio::test]
async fn python_s_websockets_is_served() {
    let Some(python) = python_with_websockets() else {
        return skip("there is no python3");
    };
    let gateway = Gateway::start().await;
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/foreign_client.py"));
    command.args([gateway.websocket.port().to_string(), gateway.text.port().to_string()]);
    let output = run(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(gateway.log().since(Default::default()).iter().all(|line| line.get("level") != "ERROR"));
}

#[tokio::test]
async fn netcat_pushes() {
    let help = Command::new("nc").arg("-h").stdin(Stdio::null()).output();
    if !help.is_ok_and(|help| String::from_utf8_lossy(&help.stderr).contains("-N")) {
        return skip("there is no nc that knows -N (Debian: netcat-openbsd)");
    }
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let mut command = Command::new("sh");
    let lines = r#"printf '{"uid":"anna","n":1}\nnonsense\r\n{"uid":"anna","n":2}\r\n'"#;
    command.args(["-c", &format!("{lines} | nc -N 127.0.0.1 {}", gateway.text.port())]);
    let output = run(command).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\nfail\nok\n", "{output:?}");
    anna.expect(r#"{"uid":"anna","n":1}"#).await;
    anna.expect(r#"{"uid":"anna","n":2}"#).await;
}
