//! The examples in `host/API.md`: each runs as it stands there, against a real gateway.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use hotgate_tests::{Gateway, skip};
use serde_json::{Deserializer, Value};
use tokio::time::timeout;

use crate::foreign::run;

const PAGE: &str = include_str!("../../host/API.md");

/// A uid with characters that a query must encode. A program that writes `+` for a space reaches nobody.
const UID: &str = "anna +&ü";

/// How long a compiler may take. It may have to compile its own library first.
const COMPILING: Duration = Duration::from_mins(5);

/// A fenced block of the page.
struct Block {
    /// The heading above it.
    heading: &'static str,
    language: &'static str,
    text: String,
}

/// All fenced blocks of the page.
fn blocks() -> Vec<Block> {
    let (mut blocks, mut heading, mut open) = (Vec::new(), "", None);
    for line in PAGE.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some(Block { heading, language, text: String::new() }),
            (None, None) if line.starts_with('#') => heading = line.trim_start_matches('#').trim(),
            (None, None) => {}
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
        }
    }
    blocks
}

/// The program below this heading.
fn program(heading: &str) -> String {
    let block = blocks().into_iter().find(|block| block.heading == heading);
    block.unwrap_or_else(|| panic!("host/API.md has no program below the heading {heading}")).text
}

fn exists(tool: &str) -> bool {
    Command::new(tool).arg("--help").stdin(Stdio::null()).output().is_ok()
}

/// What a program has printed, and whether it says that it has reached everybody.
async fn result(gateway: &Gateway, token: &str, words: &[&str], uids: &[&str]) -> (bool, String) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(uids).stdin(Stdio::null());
    command.env("HOTGATE_API", format!("http://{}", gateway.api().await.address)).env("HOTGATE_TOKEN", token);
    let Output { status, stdout, stderr } = run(command).await;
    let printed = String::from_utf8(stdout).expect("text");
    assert!(!printed.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
    (status.success(), printed)
}

/// Checks that a program tells the truth about a client, about somebody who is offline, and about a wrong token.
async fn tells_the_truth(words: &[&str]) {
    let gateway = Gateway::start().await;
    let token = gateway.api().await.token;
    let mut anna = gateway.login(UID).await;
    let (has_reached, printed) = result(&gateway, &token, words, &[UID]).await;
    assert!(has_reached && printed.contains("200") && printed.contains(r#"{"reached":1}"#), "{printed}");
    anna.expect("hello").await;
    let (has_reached, printed) = result(&gateway, &token, words, &["bob"]).await;
    assert!(!has_reached && printed.contains("404") && printed.contains(r#""reason":"offline""#), "{printed}");
    let (has_reached, printed) = result(&gateway, "wrong", words, &[UID]).await;
    assert!(!has_reached && printed.contains("401") && printed.contains(r#""reason":"unauthorized""#), "{printed}");
}

/// Writes the program below a heading into a file, which an interpreter runs.
async fn interpreted(heading: &str, interpreter: &str, file: &str) {
    if !exists(interpreter) {
        return skip(&format!("there is no {interpreter}"));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(file);
    fs::write(&file, program(heading)).expect("a writable folder");
    tells_the_truth(&[interpreter, file.to_str().expect("a path in UTF-8")]).await;
}

#[tokio::test]
async fn curl_tells_the_truth() {
    match exists("curl") {
        true => interpreted("curl", "sh", "push.sh").await,
        false => skip("there is no curl"),
    }
}

#[tokio::test]
async fn python_tells_the_truth() {
    interpreted("Python", "python3", "push.py").await;
}

#[tokio::test]
async fn node_tells_the_truth() {
    interpreted("Node", "node", "push.mjs").await;
}

#[tokio::test]
async fn php_tells_the_truth() {
    interpreted("PHP", "php", "push.php").await;
}

#[tokio::test]
async fn go_tells_the_truth() {
    if !exists("go") {
        return skip("there is no go");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("push.go"), program("Go")).expect("a writable folder");
    let mut build = tokio::process::Command::new("go");
    build.args(["build", "-o", "push", "push.go"]).current_dir(&folder).kill_on_drop(true);
    build.env("GOCACHE", hotgate_tests::cache("go")).env("GOTOOLCHAIN", "local");
    let output = timeout(COMPILING, build.output()).await.expect("the compiler ends in time").expect("go starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tells_the_truth(&[folder.path().join("push").to_str().expect("a path in UTF-8")]).await;
}

#[tokio::test]
async fn a_stream_in_python_tells_the_truth() {
    if !exists("python3") {
        return skip("there is no python3");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("stream.py");
    fs::write(&file, program("Python, stream")).expect("a writable folder");
    let words = ["python3", file.to_str().expect("a path in UTF-8")];
    let gateway = Gateway::start().await;
    let token = gateway.api().await.token;
    let mut anna = gateway.login(UID).await;
    let (has_reached, printed) = result(&gateway, &token, &words, &[UID, UID]).await;
    assert!(has_reached && printed.lines().count() == 3, "{printed}");
    anna.expect("hello").await;
    anna.expect("hello").await;
    let (has_reached, printed) = result(&gateway, &token, &words, &["bob", UID]).await;
    assert!(!has_reached && printed.contains(r#""reason": "offline""#), "{printed}");
    anna.expect("hello").await;
    let (has_reached, printed) = result(&gateway, "wrong", &words, &[UID]).await;
    assert!(!has_reached && printed.contains(r#""reason": "unauthorized""#), "{printed}");
}

/// Returns `true` if an answer is the one on the page. There, `…` stands for any text; seconds pass.
fn is_like(page: &Value, answer: &Value) -> bool {
    match (page, answer) {
        (Value::String(page), Value::String(_)) if page == "…" => true,
        (Value::Array(page), Value::Array(answer)) => {
            page.len() == answer.len() && page.iter().zip(answer).all(|(page, answer)| is_like(page, answer))
        }
        (Value::Object(page), Value::Object(answer)) => {
            let has = |(name, page): (&String, &Value)| {
                answer.get(name).is_some_and(|answer| name == "seconds" && answer.is_u64() || is_like(page, answer))
            };
            page.len() == answer.len() && page.iter().all(has)
        }
        _ => page == answer,
    }
}

fn values(text: &str) -> Vec<Value> {
    let values = Deserializer::from_str(text).into_iter().collect::<Result<_, _>>();
    values.unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn shell(script: &str, variables: [(&str, &str); 2]) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]).envs(variables).stdin(Stdio::null());
    let output = run(command).await;
    assert!(output.status.success(), "{script}{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn each_request_of_the_page_is_answered_as_it_says() {
    if !exists("curl") {
        return skip("there is no curl");
    }
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let (address, token) = (format!("http://{}", api.address), api.token);
    let variables = [("API", address.as_str()), ("TOKEN", token.as_str())];
    let (_anna, _bob) = (gateway.login("u1").await, gateway.login("u2").await);
    let join = r#"curl -fsS -X PUT -H "Authorization: Bearer $TOKEN" "$API/v1/membership?group=room&uid=u1""#;
    shell(join, variables).await;
    let blocks = blocks();
    // `/v1/events` is not among them: its answer does not end.
    let is_request = |block: &Block| block.language == "sh" && block.text.contains("\"$API/v1/");
    let requests = blocks.iter().zip(&blocks[1..]).filter(|(block, _)| is_request(block));
    let mut count = 0;
    for (request, page) in requests.filter(|(request, _)| !request.text.contains("/v1/events")) {
        let answer = shell(&request.text, variables).await;
        let is_right = match page.language {
            "json" => {
                let (page, answer) = (values(&page.text), values(&answer));
                is_like(&Value::Array(page), &Value::Array(answer))
            }
            _ => page.text.trim() == answer.trim(),
        };
        assert!(is_right, "{}\nis answered\n{answer}\nand not\n{}", request.text, page.text);
        count += 1;
    }
    assert!(count >= 12, "only {count} requests were found on the page");
}

#[tokio::test]
async fn the_first_command_of_the_page_reaches_a_client() {
    if !exists("curl") {
        return skip("there is no curl");
    }
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("u1").await;
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = home.path().join(".local/state/hotgate");
    fs::create_dir_all(&state).expect("a writable folder");
    fs::copy(gateway.state_folder().join("api-token"), state.join("api-token")).expect("a token");
    let page = blocks().swap_remove(0).text;
    let script = page.replace("127.0.0.1:1236", &gateway.api().await.address.to_string());
    assert_ne!(script, page);
    let home = Path::new(home.path()).to_str().expect("a path in UTF-8");
    assert_eq!(shell(&script, [("HOME", home), ("LC_ALL", "C")]).await.trim(), r#"{"reached":1}"#);
    anna.expect("hello").await;
}
