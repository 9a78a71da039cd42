//! `hotgate dev`, and all steps of a plugin author from an empty folder to a swap.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hotgate_tests::{Component, Gateway, Line, Mark, Setup, cache, eventually, skip};

/// A project whose build only copies `next.wasm`.
fn project(component: &Component, build: &str) -> Setup {
    let setup = Setup::new("");
    let text = format!("build = \"{build}\"\ncomponent = \"built.wasm\"\nwatch = [\"next.wasm\"]\n");
    std::fs::create_dir(setup.path().join("project")).expect("a writable folder");
    setup.bytes("project/plugin.toml", text.as_bytes()).file("project/next.wasm", component).developing("project")
}

/// Changes the project's `plugin.toml`: replaces the list `watch` and appends lines.
fn change(setup: &Setup, watch: &str, more: &str) {
    let file = setup.path().join("project/plugin.toml");
    let text = std::fs::read_to_string(&file).expect("the project").replace("[\"next.wasm\"]", watch);
    std::fs::write(file, text + more).expect("a writable folder");
}

fn create(folder: &Path, version: u32) {
    std::fs::create_dir_all(folder).expect("a writable folder");
    std::fs::write(folder.join("next.wasm"), Component::version(version).bytes()).expect("a writable folder");
}

async fn swapped(gateway: &Gateway, mark: Mark) {
    gateway.logged_since(mark, |line| line.message() == "plugin swapped").await;
}

#[tokio::test]
async fn dev_serves_what_is_built_and_swaps_what_is_built_next() {
    let gateway = project(&Component::version(1), "cp next.wasm built.wasm").start().await;
    let mut anna = gateway.enter("anna").await;
    anna.send("version").await;
    anna.expect("v1").await;
    gateway.logged(|line| line.message() == "authenticate: accept").await;
    gateway.logged(|line| line.message() == "route: reply").await;

    let mark = gateway.log().mark();
    gateway.file("project/next.wasm").move_over(&Component::version(2));
    swapped(&gateway, mark).await;
    anna.send("version").await;
    anna.expect("v2").await;

    // A component that cannot serve is refused. A failed build is reported.
    let mark = gateway.log().mark();
    gateway.file("project/next.wasm").copy_over(&Component::fixture("check=refuse not today"));
    gateway.logged_since(mark, |line| line.message() == "plugin refused" && line.says("not today")).await;
    gateway.file("project/next.wasm").delete();
    gateway.logged_since(mark, |line| line.message().contains("the previous build goes on serving")).await;
    anna.send("version").await;
    anna.expect("v2").await;

    let mark = gateway.log().mark();
    gateway.file("project/next.wasm").copy_over(&Component::version(3));
    swapped(&gateway, mark).await;

    // Settings are part of the project.
    let mark = gateway.log().mark();
    let text = "build = \"true\"\ncomponent = \"built.wasm\"\nwatch = [\"next.wasm\"]\n[settings]\nKEY = \"x\"\n";
    gateway.file("project/plugin.toml").move_over(&Component::from_bytes(text.as_bytes()));
    swapped(&gateway, mark).await;
    anna.send("version").await;
    anna.expect("v3").await;
}

#[tokio::test]
async fn dev_waits_until_there_is_something_to_serve() {
    let setup = project(&Component::command(), "cp next.wasm built.wasm");
    let (next, served) = (setup.path().join("project/next.wasm"), setup.path().join("project/.hotgate/project.wasm"));
    let wait = async {
        eventually("the first build", async || served.exists()).await;
        std::fs::write(next, Component::version(1).bytes()).expect("a writable folder");
    };
    let (mut gateway, ()) = tokio::join!(setup.start(), wait);
    gateway.logged(|line| line.message().contains("it is a command (it exports wasi:cli/run)")).await;
    gateway.connect().await.expect("hello v1").await;
    // The signal of a closed terminal.
    gateway.signal("HUP");
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn dev_that_is_ended_ends_its_build_with_all_that_it_started() {
    let setup = project(&Component::version(1), "sleep 1000 & echo $PPID $! > started; wait");
    for signal in ["TERM", "HUP", "INT"] {
        let file = setup.path().join("project/started");
        let interrupt = async {
            eventually("the build", async || std::fs::read_to_string(&file).is_ok_and(|ids| ids.ends_with('\n'))).await;
            let ids = std::fs::read_to_string(&file).expect("just written");
            let (own, started) = ids.trim().split_once(' ').expect("two processes");
            Command::new("kill").args(["-s", signal, own]).status().expect("kill is everywhere");
            started.to_owned()
        };
        let (ended, started) = tokio::join!(setup.run(&["dev", "project"]), interrupt);
        assert_eq!(ended.code, Some(0), "{signal}: {ended:?}");
        let status = format!("/proc/{started}/stat");
        let gone = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
        eventually("the end of what the build has started", async || gone()).await;
        std::fs::remove_file(file).expect("just read");
    }
}

#[tokio::test]
async fn dev_leaves_everything_as_it_was_when_settings_cannot_be() {
    let setup = project(&Component::version(1), "cp next.wasm built.wasm");
    let gateway = setup.start().await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    let text = "build = \"cp next.wasm built.wasm\"\ncomponent = \"built.wasm\"\nwatch = [\"next.wasm\"]\n";
    let broken = format!("{text}[settings]\nKEY = {{ file = \"nowhere\" }}\n");
    gateway.file("project/plugin.toml").move_over(&Component::from_bytes(broken.as_bytes()));
    gateway.file("project/next.wasm").move_over(&Component::version(2));
    let refused = |line: &Line| line.message().contains("KEY") && line.message().contains("goes on serving");
    gateway.logged_since(mark, refused).await;
    // Longer than the gateway needs to notice a new component.
    tokio::time::sleep(Duration::from_millis(500)).await;
    anna.send("version").await;
    anna.expect("v1").await;
    let mark = gateway.log().mark();
    gateway.file("project/plugin.toml").move_over(&Component::from_bytes(text.as_bytes()));
    swapped(&gateway, mark).await;
    anna.send("version").await;
    anna.expect("v2").await;
}

#[tokio::test]
async fn dev_serves_new_code_while_new_settings_are_refused() {
    let gateway = project(&Component::version(1), "cp next.wasm built.wasm").start().await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    let text = "build = \"cp next.wasm built.wasm\"\ncomponent = \"built.wasm\"\nwatch = [\"next.wasm\"]\n";
    let panics = format!("{text}[settings]\nCHECK = \"do trap\"\n");
    gateway.file("project/plugin.toml").move_over(&Component::from_bytes(panics.as_bytes()));
    gateway.logged_since(mark, |line| line.message().starts_with("settings refused")).await;
    gateway.file("project/next.wasm").move_over(&Component::version(2));
    swapped(&gateway, mark).await;
    anna.send("version").await;
    anna.expect("v2").await;
    let mark = gateway.log().mark();
    let right = format!("{text}[settings]\nVERSION = \"3\"\n");
    gateway.file("project/plugin.toml").move_over(&Component::from_bytes(right.as_bytes()));
    swapped(&gateway, mark).await;
}

#[tokio::test]
async fn dev_still_notices_what_changes_in_a_folder_that_was_replaced() {
    let setup = project(&Component::version(1), "cp src/next.wasm built.wasm");
    let folder = setup.path().join("project");
    change(&setup, "[\"src\"]", "");
    create(&folder.join("src"), 1);
    let gateway = setup.start().await;
    let mark = gateway.log().mark();
    create(&folder.join("new"), 2);
    std::fs::rename(folder.join("src"), folder.join("old")).expect("a writable folder");
    std::fs::rename(folder.join("new"), folder.join("src")).expect("a writable folder");
    swapped(&gateway, mark).await;
    let mark = gateway.log().mark();
    gateway.file("project/src/next.wasm").copy_over(&Component::version(3));
    swapped(&gateway, mark).await;
}

#[tokio::test]
async fn dev_notices_what_changes_in_a_folder_that_was_away() {
    let setup = project(&Component::version(1), "cp crates/mine/next.wasm built.wasm");
    let folder = setup.path().join("project/crates/mine");
    change(&setup, "[\"crates/mine\"]", "");
    create(&folder, 1);
    let gateway = setup.start().await;
    let mark = gateway.log().mark();
    std::fs::remove_dir_all(&folder).expect("a writable folder");
    gateway.logged_since(mark, |line| line.message().contains("there is no crates/mine")).await;
    create(&folder, 2);
    swapped(&gateway, mark).await;
}

#[tokio::test]
async fn dev_notices_what_changes_beside_the_project() {
    let setup = project(&Component::version(1), "cp ../shared/next.wasm built.wasm");
    change(&setup, "[\".\", \"../shared\"]", "");
    create(&setup.path().join("shared"), 1);
    let gateway = setup.start().await;
    let mark = gateway.log().mark();
    gateway.file("shared/next.wasm").copy_over(&Component::version(2));
    swapped(&gateway, mark).await;
}

#[tokio::test]
async fn dev_gives_the_settings_of_the_project_from_the_first_build_on() {
    let picky = Component::fixture("check=need KEY");
    let setup = project(&picky, "cp next.wasm built.wasm");
    change(&setup, "[\"next.wasm\"]", "[settings]\nKEY = { file = \"key\" }\n");
    let gateway = setup.bytes("project/key", b"secret").start().await;
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn dev_serves_nobody_else_and_says_what_is_wrong() {
    let setup = project(&Component::version(1), "cp next.wasm built.wasm");
    for (arguments, expected) in [
        (&["dev", "project", "--websocket-listen", "0.0.0.0:0"][..], "serves this machine only"),
        (&["dev", "."], "or make one with `hotgate plugin new`"),
        (&["dev", "nowhere"], "nowhere"),
        (&["--config", "hotgate.toml", "dev", "project"], "does not take --config"),
    ] {
        let ended = setup.run(arguments).await;
        assert!(ended.code == Some(78) && ended.stderr.contains(expected), "{expected}: {ended:?}");
    }
}

/// Runs a command of a project until it ends, however long it takes. Returns `true` if it succeeded.
async fn shell(folder: &Path, command: &str) -> bool {
    let (folder, command) = (folder.to_owned(), command.to_owned());
    let run = move || {
        let mut shell = Command::new("sh");
        // The commands that `plugin new` prints expect the usual target folder.
        shell.args(["-c", &command]).current_dir(folder).stdout(Stdio::null()).env_remove("CARGO_TARGET_DIR").status()
    };
    tokio::task::spawn_blocking(run).await.expect("it runs").expect("there is a shell").success()
}

/// All steps of an author: new, build, check, run the cases, serve, log in, change a rule in `source`, and the swap.
async fn from_nothing_to_a_swap(language: &str, source: &str) {
    let setup = Setup::new("").developing("mine");
    let made = setup.run(&["plugin", "new", "mine", "--role", "both", "--lang", language]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let folder = setup.path().join("mine");
    // Keeps cargo's target folder for the next run.
    let target = cache("authors").join(language);
    std::fs::create_dir_all(&target).expect("a writable target directory");
    std::os::unix::fs::symlink(target, folder.join("target")).expect("a writable folder");

    let lines: Vec<_> = made.stdout.lines().map(str::trim).collect();
    let (build, check, run) = (lines[2], lines[3], lines[4]);
    assert!(shell(&folder, build).await, "{build}");
    for command in [check, run] {
        let words: Vec<_> = command.split(' ').skip(1).collect();
        let words: Vec<_> = words
            .iter()
            .map(|word| if Path::new(word).extension().is_some() { format!("mine/{word}") } else { (*word).to_owned() })
            .collect();
        let ended = setup.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(ended.code, Some(0), "{command}: {ended:?}");
    }

    let gateway = setup.start().await;
    let mut anna = gateway.connect().await;
    anna.expect("HeartBeat").await;
    anna.send(r#"{"id":"anna"}"#).await;
    anna.expect("Link_successful").await;
    let mark = gateway.log().mark();
    let source = gateway.folder().join("mine").join(source);
    let text = std::fs::read_to_string(&source).expect("a source");
    assert!(text.contains("Link_successful"));
    std::fs::write(&source, text.replace("Link_successful", "Welcome")).expect("a writable folder");
    // Compiling a large plugin may take longer than a client may be silent.
    let speaking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            anna.expect_nothing().await;
        }
    };
    tokio::select! { () = swapped(&gateway, mark) => {}, () = speaking => {} }
    anna.send(r#"{"id":"anna","msg":"still here"}"#).await;
    anna.expect("still here").await;
    anna.expect("Already_Linked").await;
    let mut bob = gateway.connect().await;
    bob.expect("HeartBeat").await;
    bob.send(r#"{"id":"bob"}"#).await;
    bob.expect("Welcome").await;
}

#[tokio::test]
async fn rust_from_nothing_to_a_swap() {
    from_nothing_to_a_swap("rust", "src/lib.rs").await;
}

#[tokio::test]
async fn javascript_from_nothing_to_a_swap() {
    if !has_npm() {
        return;
    }
    from_nothing_to_a_swap("javascript", "src/plugin.js").await;
}

/// The random numbers of two fresh instances of a plugin that computes `uid = Math.random()`.
async fn two_numbers(setup: &Setup, component: &str) -> [String; 2] {
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let ran = setup.run(&["plugin", "run", component, "--packet", r#"{"id":"u1"}"#]).await;
        let number = ran.stdout.split('"').find(|word| word.parse::<f64>().is_ok_and(|it| (0.0..1.0).contains(&it)));
        numbers.push(number.unwrap_or_else(|| panic!("no random number: {ran:?}")).to_owned());
    }
    [numbers.remove(0), numbers.remove(0)]
}

#[tokio::test]
async fn each_instance_of_the_javascript_template_draws_numbers_of_its_own() {
    if !has_npm() {
        return;
    }
    let setup = Setup::new("");
    let made = setup.run(&["plugin", "new", "mine", "--lang", "javascript"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let source = setup.path().join("mine/src/plugin.js");
    let text = std::fs::read_to_string(&source).expect("a source");
    assert!(text.contains("val: greeting()"));
    let text = text.replace("val: greeting()", "val: String(Math.random())");
    std::fs::write(&source, text).expect("a writable folder");
    assert!(shell(&setup.path().join("mine"), made.stdout.lines().nth(2).expect("a build command")).await);
    let [first, second] = two_numbers(&setup, "mine/mine.wasm").await;
    assert_ne!(first, second);
}

#[tokio::test]
#[ignore = "takes 100 MB of downloads"]
async fn each_instance_of_the_guides_javascript_draws_numbers_of_its_own() {
    if !has_npm() {
        return;
    }
    let setup = Setup::new("");
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let guide = std::fs::read_to_string(contract.join("README.md")).expect("the guide");
    let block = |kind: &str| guide.split_once(kind).and_then(|(_, rest)| rest.split_once("```")).expect("a block").0;
    let (source, world) = (block("```js\n"), block("```wit\n"));
    let command = guide.split_once("    npx @bytecodealliance").expect("a command").1.split("\n\n").next();
    assert!(source.contains("String(handshake.connection)"));
    let source = source.replace("String(handshake.connection)", "String(Math.random())");
    let setup = setup.bytes("open-auth.js", source.as_bytes());
    assert!(shell(setup.path(), &format!("cp -r '{}' wit", contract.display())).await);
    std::fs::write(setup.path().join("wit/plugin.wit"), world).expect("a writable folder");
    assert!(shell(setup.path(), &format!("npx --yes @bytecodealliance{}", command.expect("its end"))).await);
    let [first, second] = two_numbers(&setup, "open-auth.wasm").await;
    assert_ne!(first, second);
}

fn has_npm() -> bool {
    let has = Command::new("npm").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has {
        skip("there is no npm");
    }
    has
}

#[tokio::test]
async fn cargo_component_from_nothing_to_a_swap() {
    if !Command::new("cargo")
        .args(["component", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        return skip("there is no cargo-component");
    }
    from_nothing_to_a_swap("rust-cargo-component", "src/lib.rs").await;
}

#[tokio::test]
#[ignore = "takes a minute of compiling, and 18 MB of downloads"]
async fn python_from_nothing_to_a_swap() {
    from_nothing_to_a_swap("python", "app.py").await;
}
