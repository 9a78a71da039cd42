//! Compiling plugins to machine code. A separate process does it, and may fail without harm. Only the gateway's user
//! can reach the stored machine code.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hotgate_tests::{Component, Gateway, Setup, eventually, skip};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bystanders::Bystanders;

/// A gateway without compiled plugins, with debug lines in its log.
fn compiling(component: &Component, config: &str) -> Setup {
    Setup::plugin(component, "").and(config).compiling().argument("--log-level=debug")
}

/// The files of compiled plugins.
fn entries(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.join("compiled")).into_iter().flatten();
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}

/// The ids of the processes that compile for this gateway.
fn compilers(gateway: &Gateway) -> Vec<u32> {
    let id = gateway.id();
    let children = fs::read_dir(format!("/proc/{id}/task")).expect("it runs").flatten().flat_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.split_whitespace().map(|id| id.parse().expect("a number")).collect::<Vec<_>>()
    });
    children.collect()
}

/// Waits for a process that compiles for this gateway.
async fn compiler(gateway: &Gateway) -> u32 {
    let mut child = None;
    eventually("a process compiles", async || {
        child = compilers(gateway).first().copied();
        child.is_some()
    })
    .await;
    child.expect("found")
}

/// A component with much generated code, which takes a second or more to compile.
fn expensive() -> Component {
    Component::version(2).with_code(2_000, 100)
}

#[tokio::test]
async fn a_plugin_is_compiled_by_a_process_that_is_bounded_and_gone_when_it_is_done() {
    let gateway = compiling(&Component::version(1), "").start().await;
    let bystanders = Bystanders::watch(&gateway, 100).await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&expensive());
    let child = compiler(&gateway).await;
    let read = |file: &str| fs::read_to_string(format!("/proc/{child}/{file}")).unwrap_or_default();
    eventually("it has limited itself", async || {
        let limits = read("limits");
        let limit = |name: &str| limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        limit("Max address space").starts_with("2147483648 ")
            && limit("Max cpu time").starts_with("305 ")
            && limit("Max core file size").starts_with("0 ")
            && limit("Max file size").starts_with("268435456 ")
    })
    .await;
    eventually("it has given up its rights", async || {
        let status = read("status");
        let is = |name: &str, value| status.lines().any(|line| line.split_whitespace().eq([name, value]));
        is("NoNewPrivs:", "1") && is("Seccomp:", "2")
    })
    .await;
    assert!(read("environ").is_empty());
    assert_eq!(fs::read_link(format!("/proc/{child}/cwd")).expect("it runs"), Path::new("/"));
    assert_eq!(read("oom_score_adj").trim(), "1000");
    let stat = read("stat");
    let nice = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(16));
    assert_eq!(nice, Some("19"), "{stat}");

    gateway.swapped_since(mark).await;
    eventually("it is gone", async || compilers(&gateway).is_empty()).await;
    gateway.connect().await.expect("hello v2").await;
    bystanders.stop().await;
}

#[tokio::test]
async fn what_takes_long_to_compile_keeps_no_other_slot_waiting() {
    let config = "[[authenticator]]\nfile = \"plugin.wasm\"\n[router]\nfile = \"second.wasm\"";
    let setup =
        Setup::new(config).file("plugin.wasm", &Component::version(1)).file("second.wasm", &Component::version(1));
    let gateway = setup.compiling().start().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2).with_code(60_000, 100));
    let long = compiler(&gateway).await;
    gateway.file("second.wasm").move_over(&Component::version(3));
    let swapped = gateway.swapped_since(mark).await;
    assert_eq!(swapped.get("slot"), "router", "{swapped:?}");
    assert_eq!(compilers(&gateway), [long], "the one that takes long goes on");
}

#[tokio::test]
async fn what_is_compiled_is_in_the_gateway_s_memory_once() {
    const SIZE: usize = 60 << 20;
    let limits = "limits = { max_component = \"128MiB\" }";
    let gateway = Setup::plugin(&Component::version(1), limits).compiling().start().await;
    let before = gateway.resident_bytes().expect("Linux");
    for version in [2, 3] {
        // The gateway has given back the memory of the swap before.
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(version).with_data(SIZE));
        gateway.swapped_since(mark).await;
        gateway.connect().await.expect(format!("hello v{version}")).await;
    }
    // The gateway holds the component once. The machine code, which contains the same data, is not in memory as well.
    let peak = gateway.peak_bytes() - before;
    assert!(peak < (SIZE + SIZE / 2) as u64, "{} MiB more than before", peak >> 20);
}

#[tokio::test]
async fn a_compiler_that_is_killed_is_started_again() {
    let gateway = compiling(&Component::version(1), "[watch]\nrescan = \"200ms\"").start().await;
    let bystanders = Bystanders::watch(&gateway, 100).await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&expensive());
    // The gateway restarts a killed compiler twice at once. After the third kill it waits for its next look at the
    // file.
    for _ in 0..3 {
        let mut killed = None;
        eventually("a process compiles", async || {
            killed = compilers(&gateway).first().copied();
            killed.is_some_and(|id| signal("KILL", id))
        })
        .await;
        eventually("it is gone", async || !compilers(&gateway).contains(&killed.expect("found"))).await;
    }
    let refused = gateway.refused_since(mark).await;
    assert_eq!(refused.get("reason"), "the compiler was killed by signal 9");
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v2").await;
    bystanders.stop().await;
}

#[tokio::test]
async fn a_compiler_ends_with_its_gateway() {
    let gateway = compiling(&Component::version(1), "").start().await;
    gateway.file("plugin.wasm").move_over(&expensive());
    let child = format!("/proc/{}/environ", compiler(&gateway).await);
    gateway.signal("KILL");
    // The ended process may remain as a zombie for a while. A zombie has no memory, so no environment can be read.
    eventually("it has ended", async || fs::read(&child).is_err()).await;
}

#[tokio::test]
async fn what_takes_too_much_is_refused() {
    let one_function = Component::version(2).with_code(1, 100_000);
    for (config, component, reason) in [
        ("timeout = \"50ms\"", expensive(), "compiling it had not ended after 50ms (compiler.timeout)"),
        (
            "memory = \"256MiB\"",
            one_function,
            "compiling it takes more than 268435456 bytes of memory (compiler.memory)",
        ),
        ("max_code = \"1MiB\"", expensive(), "it compiles to more than 1048576 bytes (compiler.max_code)"),
    ] {
        // Compiles version 1 first, because the start below must need no compiler.
        let setup = Setup::plugin(&Component::version(1), "").compiling();
        setup.rehearse().await;
        let gateway = setup.and(&format!("[compiler]\n{config}")).start().await;
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&component);
        let refused = gateway.refused_since(mark).await;
        assert_eq!(refused.get("reason"), reason);
        assert!(compilers(&gateway).is_empty());
        gateway.connect().await.expect("hello v1").await;
    }
}

#[tokio::test]
async fn the_second_start_finds_everything_compiled() {
    let setup = compiling(&Component::version(1), "");
    setup.rehearse().await;
    let state = setup.state_folder();
    for path in [&*state, &state.join("compiled")] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
    let files = entries(&state);
    assert_eq!((files.len(), mode(&files[0])), (1, 0o600), "{files:?}");

    let gateway = setup.start().await;
    gateway.connect().await.expect("hello v1").await;
    gateway.logged(|line| line.message() == "compiled plugin found in the cache").await;
    assert!(!gateway.log().since(Default::default()).iter().any(|line| line.message() == "plugin compiled"));
    // Going back to version 1 needs no compiler, too.
    for (version, file) in [(2, 2), (1, 2), (2, 2)] {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(version));
        gateway.swapped_since(mark).await;
        gateway.connect().await.expect(format!("hello v{version}")).await;
        assert_eq!(entries(&state).len(), file);
    }
}

#[tokio::test]
async fn what_is_not_as_it_was_kept_is_compiled_anew() {
    type Damage = fn(&Path);
    let damage: [(&str, Damage); 6] = [
        ("its digest is wrong", |path| fs::write(path, "nonsense").expect("written")),
        ("its digest is wrong", |path| {
            let mut bytes = fs::read(path).expect("read");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).expect("written");
        }),
        ("its digest is wrong", |path| {
            fs::File::options().write(true).open(path).and_then(|file| file.set_len(1000)).expect("truncated");
        }),
        ("other users can access it (its mode is 644", |path| {
            fs::set_permissions(path, Permissions::from_mode(0o644)).expect("changed");
        }),
        ("it is a link", |path| {
            let elsewhere = path.with_extension("elsewhere");
            fs::rename(path, &elsewhere).and_then(|()| symlink(elsewhere, path)).expect("linked");
        }),
        ("it is not a regular file", |path| {
            assert!(fs::remove_file(path).is_ok() && shell(&format!("mkfifo -m 600 {}", path.display())));
        }),
    ];
    for (reason, damage) in damage {
        let setup = compiling(&Component::version(1), "");
        setup.rehearse().await;
        let state = setup.state_folder();
        let entry = entries(&state).remove(0);
        damage(&entry);
        let gateway = setup.start().await;
        let ignored = gateway.logged(|line| line.message().starts_with("compiled plugin ignored")).await;
        assert!(ignored.get("reason").contains(reason), "{reason}: {ignored:?}");
        gateway.logged(|line| line.message() == "plugin compiled").await;
        gateway.connect().await.expect("hello v1").await;
        assert!(entry.symlink_metadata().expect("it is kept again").is_file(), "{reason}");
    }
}

#[tokio::test]
async fn where_nothing_can_be_kept_the_gateway_serves_and_says_so() {
    // A file stands where the folder should be. This stops every user, root included.
    let setup = compiling(&Component::version(1), "");
    let state = setup.state_folder();
    fs::DirBuilder::new().mode(0o700).create(&state).expect("created");
    fs::write(state.join("compiled"), "").expect("written");
    let gateway = setup.start().await;
    let line = gateway.logged(|line| line.message() == "compiled plugins cannot be kept").await;
    assert!(line.get("problem").contains("it is a link, or not a folder"), "{line:?}");
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v2").await;
    let told = gateway.log().since(Default::default());
    assert_eq!(told.iter().filter(|line| line.message() == "compiled plugins cannot be kept").count(), 1);

    for (make, problem) in [
        (shared as fn(&Path), "other users can access it (its mode is 755, and must be 700)"),
        (linked, "it is a link, or not a folder"),
    ] {
        let setup = compiling(&Component::version(1), "");
        make(&setup.state_folder());
        let gateway = setup.environment("HOTGATE_API_LISTEN", "").start().await;
        let line = gateway.logged(|line| line.message().starts_with("no state folder")).await;
        assert!(line.get("problem").ends_with(problem), "{line:?}");
        gateway.connect().await.expect("hello v1").await;
    }
}

#[tokio::test]
async fn on_a_full_disk_the_gateway_serves_and_says_so() {
    if !Setup::may_mount() {
        return skip("this needs a file system of its own (unshare -rm)");
    }
    let gateway = compiling(&Component::version(1), "").disk("100k").start().await;
    let line = gateway.logged(|line| line.message() == "compiled plugins cannot be kept").await;
    assert!(line.get("problem").contains("No space left"), "{line:?}");
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v2").await;
}

#[tokio::test]
async fn the_state_folder_is_where_the_settings_say() {
    let setup = Setup::new("state_folder = \"kept/here\"").compiling();
    let (place, usual) = (setup.path().join("kept/here"), setup.state_folder());
    let gateway = setup.start().await;
    gateway.connect().await.expect("HeartBeat").await;
    assert_eq!(entries(&place).len(), 2);
    assert!(!usual.exists());
}

/// Sends a message every few milliseconds until `stop`. Returns the time that each answer took, sorted.
async fn answers(gateway: &Gateway, stop: impl Future<Output = ()>) -> Vec<Duration> {
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..20 {
        let mut client = gateway.enter(&format!("client-{number}")).await;
        let done = Arc::clone(&done);
        clients.spawn(async move {
            let mut took = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let begin = Instant::now();
                client.send("say hello").await;
                client.expect("hello").await;
                took.push(begin.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
            took
        });
    }
    stop.await;
    done.store(true, Ordering::Relaxed);
    let mut took: Vec<_> = clients.join_all().await.concat();
    took.sort();
    took
}

#[tokio::test]
#[ignore = "takes a minute, and a machine of its own"]
async fn soak_12_mb_are_compiled_and_swapped_in_and_neither_time_nor_memory_tells() {
    let gateway = compiling(&Component::version(1), "").start().await;
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
    let before = p99(&answers(&gateway, sleep(Duration::from_secs(10))).await);
    let memory = gateway.resident_bytes();

    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2).with_code(12_000, 100));
    let mut compiled = None;
    let during = async { compiled = Some(gateway.swapped_since(mark).await) };
    let during = p99(&answers(&gateway, during).await);
    let code = entries(&gateway.state_folder()).iter().filter_map(|path| path.metadata().ok()).map(|it| it.len()).max();
    let (now, code) = (gateway.resident_bytes(), code.expect("it is kept"));
    let compile_ms = compiled.expect("swapped").number("compile_ms");
    println!(
        "compiled in {compile_ms} ms to {code} bytes; p99 {before:?}, then {during:?}; memory {memory:?}, then {now:?}"
    );
    assert!(during < 2 * before + Duration::from_millis(1));
    let (Some(memory), Some(now)) = (memory, now) else { return };
    assert!(now < memory + code + (8 << 20));
}

fn shared(folder: &Path) {
    fs::create_dir(folder).expect("created");
    fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("changed");
}

fn linked(folder: &Path) {
    let target = folder.with_extension("target");
    fs::DirBuilder::new().mode(0o700).create(&target).expect("created");
    symlink(target, folder).expect("linked");
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().expect("it is there").permissions().mode() & 0o7777
}

fn signal(name: &str, id: u32) -> bool {
    shell(&format!("kill -{name} {id}"))
}

fn shell(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).status().expect("a shell").success()
}
