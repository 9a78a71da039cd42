//! Every limit of a plugin. At the limit, the call fails or the excess is dropped, and the log names plugin,
//! generation, limit and value.

use std::time::Duration;

use hotgate_tests::{Component, Line, Setup};

use crate::bystanders::{Bystanders, LONGEST_DELAY};

/// Small limits, so that they are easy to reach.
const SMALL: &str = "isolation = \"pooled\"
limits.deadline = \"100ms\"
limits.memory = \"32MiB\"
limits.handles = 50
limits.host_call_bytes = \"1025KiB\"
limits.concurrency = 80
limits.max_actions = 100
limits.max_output = \"1MiB\"
limits.max_name = 20
limits.max_state = 10
limits.max_attributes = 2
limits.max_attribute_bytes = 30
limits.log_lines_per_call = 8
limits.log_line_bytes = 16
";

/// Returns `true` for a log line about this failure that names slot, plugin, generation and connection.
fn is_failure(line: &Line, call: &str, kind: &str, words: &str) -> bool {
    let message = if kind == "overloaded" { "plugin call refused" } else { "plugin failed" };
    line.message() == message
        && line.get("slot") == "authenticator+router"
        && line.get("plugin") == "plugin"
        && line.number("generation") == 1
        && line.number("connection") > 0
        && !line.get("digest").is_empty()
        && (line.get("call"), line.get("kind")) == (call, kind)
        && line.get("reason").contains(words)
}

#[tokio::test]
async fn a_call_past_a_limit_fails_and_the_log_names_it() {
    let gateway = Setup::plugin(&Component::fixture(""), SMALL).and("[engine]\nstack = \"64KiB\"").start().await;
    let mut anna = gateway.enter("anna").await;
    for (sentence, kind, words) in [
        ("do loop", "deadline", "it had not ended after 100ms (limits.deadline)"),
        ("do sleep", "deadline", "it had not ended after 100ms (limits.deadline)"),
        ("do bomb", "memory", "bytes of memory, the limit is 33554432 (limits.memory)"),
        ("do recurse", "limit", "it needed more bytes of stack, the limit is 65536 (engine.stack)"),
        ("do leak", "limit", "it asked for more handles, the limit is 50 (limits.handles)"),
        ("do timers", "limit", "it asked for more handles, the limit is 50 (limits.handles)"),
        (
            "do random",
            "limit",
            "it asked for 70000 random bytes at once, the limit is 65536 (a call of get-random-bytes or get-insecure-random-bytes)",
        ),
        ("do long-log", "limit", "it handed the host more bytes, the limit is 1049600 (limits.host_call_bytes)"),
        // It logs one megabyte with each call.
        ("do log-forever", "limit", "it handed the host more bytes, the limit is 1049600 (limits.host_call_bytes)"),
        ("do write-more", "trap", "it wrote more than check-write had allowed"),
        ("flood 101", "result", "it returned 101 actions, the limit is 100 (limits.max_actions)"),
        ("big 1048577", "result", "it returned more than 1048576 bytes (limits.max_output)"),
        ("big 1060000", "limit", "the limit is 1049600 (limits.host_call_bytes)"),
        ("state 11", "result", "it returned a state of 11 bytes, the limit is 10 (limits.max_state)"),
        ("join 12345678901234567890.", "result", "a group name of 21 bytes, allowed are 1 to 20 (limits.max_name)"),
        ("close bob 4900 ours", "result", "it returned close code 4900"),
    ] {
        let mark = gateway.log().mark();
        anna.send(sentence).await;
        gateway.logged_since(mark, |line| is_failure(line, "route", kind, words)).await;
    }
    for (sentence, words) in [
        ("login bob a=1 b=2 c=3", "it returned 3 attributes, the limit is 2 (limits.max_attributes)"),
        (
            "login bob a=123456789012345678901234567890",
            "it returned attributes of 31 bytes, the limit is 30 (limits.max_attribute_bytes)",
        ),
        ("state 11", "it returned a state of 11 bytes, the limit is 10 (limits.max_state)"),
    ] {
        let mut client = gateway.greeted().await;
        let mark = gateway.log().mark();
        client.send(sentence).await;
        client.expect_close(1013).await;
        gateway.logged_since(mark, |line| is_failure(line, "authenticate", "result", words)).await;
    }
    // This is not a failure of the plugin: it may pass on a name that the client has given.
    let mut client = gateway.greeted().await;
    client.send("login 12345678901234567890.").await;
    client.expect_close(4902).await;
    anna.send("say still here").await;
    anna.expect("still here").await;
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_fine() {
    let gateway = Setup::plugin(&Component::fixture(""), SMALL).and("[engine]\nstack = \"2MiB\"").start().await;
    let mut anna = gateway.enter_as("login 12345678901234567890 a=12345678901234 b=12345678901234").await;
    anna.send("join 12345678901234567890").await;
    anna.send("state 10").await;
    anna.send("big 1048576").await;
    assert_eq!(anna.text().await.len(), 1 << 20);
    anna.send("flood 100").await;
    for _ in 0..100 {
        anna.expect("flood").await;
    }
    // A large stack overflows, too, and the host's own functions still have room on it.
    anna.send("do recurse").await;
    gateway.logged(|line| is_failure(line, "route", "limit", "the limit is 2097152 (engine.stack)")).await;
    anna.send("say still here").await;
    anna.expect("still here").await;
}

#[tokio::test]
async fn calls_that_find_no_place_are_logged_with_both_limits() {
    let keys = "limits = { deadline = \"2s\", max_wait = \"50ms\", concurrency = 1 }";
    let gateway = Setup::plugin(&Component::fixture(""), keys).start().await;
    let (mut anna, mut sender) = (gateway.enter("anna").await, gateway.sender().await);
    anna.send("do sleep").await;
    hotgate_tests::eventually("a line is shed", async || sender.ask("say hello").await == "fail").await;
    let words = "it could not begin within 50ms (limits.max_wait); 1 calls may run at a time (limits.concurrency)";
    gateway.logged(|line| is_failure(line, "push", "overloaded", words)).await;
}

#[tokio::test]
async fn a_component_that_imports_nothing_cannot_grow_its_tables_past_the_limit() {
    for (limit, words) in [
        ("2000", "elements of tables, the limit is 2000 (limits.table_elements)"),
        // Less than the plugin has at its start.
        ("9", "asked for 10 elements of tables, the limit is 9 (limits.table_elements)"),
    ] {
        let keys = format!("limits = {{ table_elements = {limit} }}");
        let setup = Setup::new(&format!("[[authenticator]]\nfile = \"plugin.wasm\"\n{keys}"))
            .file("plugin.wasm", &table_grower());
        let free = ["--config", "hotgate.toml", "--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];
        let finished = setup.run(&free).await;
        assert_eq!(finished.code, Some(78), "{finished:?}");
        let says = |words| finished.stderr.contains(words);
        assert!(says(words) && says("authenticator: cannot load") && says("plugin.wasm"), "{finished:?}");
    }
}

/// A component whose start function grows its tables until the limit, and then traps:
///
/// ```wat
/// (table 10 funcref) (table 0 funcref)
/// (func $start (loop
///   (if (i32.eq (table.grow 1 (ref.null func) (i32.const 100)) (i32.const -1)) (then unreachable)) (br 0)))
/// ```
fn table_grower() -> Component {
    let start = b"\x00\x03\x40\xd0\x70\x41\xe4\x00\xfc\x0f\x01\x41\x7f\x46\x04\x40\x00\x0b\x0c\x00\x0b\x0b";
    Component::small(Some(start), &[(4, b"\x02\x70\x00\x0a\x70\x00\x00")])
}

#[tokio::test]
async fn a_component_has_only_so_many_memories_and_tables() {
    let (table, memory) = (b"\x70\0\x01", b"\0\x01");
    let memories = |count: u8| Component::small(None, &[(5, &[&[count], &memory.repeat(count.into())[..]].concat())]);
    let tables = |count: u8| Component::small(None, &[(4, &[&[count], &table.repeat(count.into())[..]].concat())]);
    let setup = Setup::new("[[authenticator]]\nfile = \"plugin.wasm\"\n[watch]\nrescan = \"1h\"");
    let gateway = setup.file("plugin.wasm", &Component::version(1)).start().await;
    // A component at the limit passes this check. It is refused later, because its functions lack the contract's types.
    for (component, words) in [
        (memories(5), "its core modules have 5 linear memories, the limit is 4"),
        (memories(4), "do not have the types of the contract"),
        (tables(9), "its core modules have 9 tables, the limit is 8"),
        (tables(8), "do not have the types of the contract"),
    ] {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&component);
        let refused = gateway.refused_since(mark).await;
        assert!(refused.get("reason").contains(words), "{refused:?}");
    }
    gateway.connect().await.expect("hello v1").await;
}

/// Short mangled names of very long names. In C++: a type of two of the type before it, many levels deep (with some
/// more levels demanglers give up). In Rust: a tuple of two of the tuple before it.
fn doubling_names() -> [String; 2] {
    let levels = ('1'..='9').chain('A'..='S');
    let cpp = levels.fold("_Z1f1a1pIS_S_E".to_owned(), |name, level| name + &format!("S0_IS{level}_S{level}_E"));
    let digits: Vec<_> = ('0'..='9').chain('a'..='z').chain('A'..='Z').collect();
    // Positions in the name, counted after the `_R`. From position 63 on, a position is written with two digits.
    let place = |at: usize| match at - 1 {
        digit @ ..62 => format!("{}_", digits[digit]),
        number => format!("{}{}_", digits[number / 62], digits[number % 62]),
    };
    let (mut rust, mut before) = ("_RIC1aTuuE".to_owned(), 4);
    for _ in 0..60 {
        let here = rust.len() - 2;
        rust += &format!("TB{0}B{0}E", place(before));
        before = here;
    }
    [cpp, rust + "E"]
}

#[tokio::test]
async fn a_trap_costs_little_whatever_the_functions_are_called() {
    let config = "[[authenticator]]\nfile = \"plugin.wasm\"\n[watch]\nrescan = \"1h\"";
    let setup = Setup::new(config).file("plugin.wasm", &Component::version(1));
    let gateway = setup.argument("--log-level=debug").start().await;
    for name in doubling_names() {
        let component = Component::trap_named(&name);
        let (mark, before) = (gateway.log().mark(), gateway.peak_bytes());
        let spent = gateway.processor_time();
        gateway.file("plugin.wasm").move_over(&component);
        let refused = gateway.refused_since(mark).await;
        assert!(refused.get("reason").contains("wasm `unreachable` instruction executed"), "{refused:?}");
        let failed = gateway.logged_since(mark, |line| line.message() == "plugin check failed").await;
        let backtrace = failed.get("backtrace");
        assert!(backtrace.starts_with("0: 0x") && backtrace.len() < 2048, "{failed:?}");
        assert!(gateway.processor_time() - spent < Duration::from_secs(1));
        assert!(gateway.peak_bytes() < before + (50 << 20), "{before} bytes, then {}", gateway.peak_bytes());

        // The same happens at a start. `hotgate plugin check` finds first that its functions lack the contract's types.
        let setup = Setup::new(config).file("plugin.wasm", &component);
        let free = ["--config", "hotgate.toml", "--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];
        let check = ["plugin", "check", "plugin.wasm"];
        for (arguments, code, words) in [(&free[..], 78, "wasm `unreachable`"), (&check, 1, "It cannot serve.")] {
            let finished = setup.run(arguments).await;
            let said = finished.stdout + &finished.stderr;
            assert_eq!(finished.code, Some(code), "{said}");
            assert!(said.contains(words) && said.len() < 10_000, "{said}");
        }
    }
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn one_call_logs_so_many_lines_of_such_a_length_and_the_rest_is_counted() {
    let gateway = Setup::plugin(&Component::fixture(""), SMALL).start().await;
    let mut anna = gateway.enter("anna").await;
    for kind in ["log-flood", "print-flood"] {
        let mark = gateway.log().mark();
        anna.send(format!("do {kind}")).await;
        anna.send("eprint 1234567890123456789").await;
        let after = gateway.logged_since(mark, |line| line.get("line").starts_with("123")).await;
        assert_eq!(after.get("line"), "1234567890123456…");
        assert!(after.number("connection") > 0, "a plugin's own line names the connection of its call: {after:?}");
        let said = gateway.log().since(mark).iter().filter(|line| line.get("line") == "flood").count();
        // A quarter of the limit is kept for warnings and errors.
        assert_eq!(said, 6, "{kind}");
        let dropped = gateway.logged_since(mark, |line| line.message() == "plugin log lines dropped").await;
        assert_eq!((dropped.get("plugin"), dropped.number("generation")), ("plugin", 1));
        assert!(dropped.says("limits.log_lines_per_call"), "{dropped:?}");
    }
}

#[tokio::test]
async fn one_plugin_logs_so_many_lines_a_second_and_the_rest_is_counted() {
    let keys = "limits = { log_lines = 10 }";
    let gateway = Setup::plugin(&Component::fixture(""), keys).start().await;
    let mut anna = gateway.enter("anna").await;
    let begun = std::time::Instant::now();
    for _ in 0..200 {
        anna.send("log flood").await;
        anna.expect("done").await;
    }
    let most = 20 + 10 * (begun.elapsed().as_secs() as usize + 1);
    let said = gateway.log().since(Default::default()).iter().filter(|line| line.get("line") == "flood").count();
    assert!((1..=most).contains(&said), "{said} lines");
    gateway.logged(|line| line.message() == "plugin log lines dropped" && line.number("dropped") > 0).await;
}

/// Two host calls reach the default limit. With a larger limit, the deadline ends the plugin, and other calls get
/// turns.
#[tokio::test]
async fn a_straight_line_of_host_calls_is_bounded_like_a_loop() {
    for (limits, kind, words) in [
        ("deadline = \"1s\"", "limit", "it handed the host more bytes, the limit is"),
        ("deadline = \"100ms\", host_call_bytes = \"2GiB\"", "deadline", "it had not ended after 100ms"),
    ] {
        let config = format!(
            "[[authenticator]]\nfile = \"plugin.wasm\"\nlimits = {{ {limits}, concurrency = 80 }}\ndeploy = {{ probation = \"0s\" }}\n\
             [[authenticator]]\nfile = \"second.wasm\"\n[router]\nfile = \"second.wasm\""
        );
        let setup = Setup::new(&config).file("plugin.wasm", &Component::fixture("greet=pass"));
        let gateway = setup.file("second.wasm", &Component::fixture("")).start().await;
        let bystanders = Bystanders::watch(&gateway, 10).await;
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::straight_line());
        gateway.swapped_since(mark).await;
        let mut crowd = Vec::new();
        for _ in 0..64 {
            crowd.push(gateway.connect().await);
        }
        for client in &mut crowd {
            client.expect_close(1013).await;
        }
        let noticed = bystanders.stop().await;
        println!("{kind}: {noticed:?}");
        assert!(noticed.slowest < LONGEST_DELAY, "{kind}: {noticed:?}");
        let failed = gateway.logged_since(mark, |line| line.message() == "plugin failed").await;
        assert_eq!((failed.get("call"), failed.get("kind")), ("greet", kind));
        assert!(failed.get("reason").contains(words), "{failed:?}");
    }
}

#[tokio::test]
async fn a_component_has_only_so_many_modules() {
    let gateway = Setup::plugin(&Component::version(1), "").start().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2).with_modules(900));
    let refused = gateway.refused_since(mark).await;
    let reason = refused.get("reason");
    assert!(reason.starts_with("it has 90") && reason.ends_with(" core modules, the limit is 200"), "{refused:?}");
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn a_function_leaves_its_code_only_so_often_in_a_straight_line() {
    let gateway = Setup::plugin(&Component::version(1), "").start().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2).with_straight_function(10_001));
    let refused = gateway.refused_since(mark).await;
    let reason = "one of its functions has 10001 calls out of its code, the limit is 10000";
    assert_eq!(refused.get("reason"), reason);
    gateway.connect().await.expect("hello v1").await;

    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(3).with_straight_function(10_000));
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v3").await;
}

#[tokio::test]
async fn a_module_takes_only_so_many_steps_before_its_first_function() {
    let gateway = Setup::plugin(&Component::version(1), "").start().await;
    for (segments, items, reason) in [
        (
            20_001,
            0,
            "one of its modules takes 20001 steps to fill its tables and memories (element segments, their items, data \
             segments), the limit is 20000",
        ),
        (1, 1001, "one of its modules has 1001 items in passive element segments, the limit is 1000"),
    ] {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(2).with_segments(segments, items));
        assert_eq!(gateway.refused_since(mark).await.get("reason"), reason);
    }
    gateway.connect().await.expect("hello v1").await;

    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(3).with_segments(19_000, 0).with_segments(1, 1000));
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v3").await;
}

#[tokio::test]
async fn what_an_instance_takes_beside_its_memory_is_bounded_wherever_it_lives() {
    // With little address space, the gateway has no pool of instances.
    for address_space in [None, Some(64)] {
        let setup = Setup::plugin(&Component::version(1), "");
        let setup = match address_space {
            None => setup,
            Some(limit) => setup.address_space(limit),
        };
        let gateway = setup.start().await;
        let pooled =
            gateway.log().since(Default::default()).iter().all(|line| !line.says("no address space for a pool"));
        assert_eq!(pooled, address_space.is_none());

        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(2).with_instances(150, 60_000));
        let refused = gateway.refused_since(mark).await;
        assert!(refused.get("reason").contains("1048576"), "{refused:?}");
        gateway.connect().await.expect("hello v1").await;

        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(3).with_instances(150, 100));
        gateway.swapped_since(mark).await;
        gateway.connect().await.expect("hello v3").await;
    }
}

#[tokio::test]
async fn the_directory_is_for_routers() {
    let config = "[[authenticator]]\nfile = \"plugin.wasm\"";
    let gateway = Setup::new(config).file("plugin.wasm", &Component::fixture("")).start().await;
    let mut client = gateway.greeted().await;
    client.send("do peek").await;
    client.expect_close(1013).await;
    let failed = gateway.logged(|line| line.message() == "plugin failed").await;
    assert_eq!((failed.get("kind"), failed.get("slot")), ("trap", "authenticator"));
    assert!(failed.get("reason").contains("only routers may use the directory"), "{failed:?}");
}
