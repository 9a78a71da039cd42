//! Tests of the configuration.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const EXAMPLE: &str = include_str!("../../hotgate.toml");

/// A folder with a configuration file and a plugin file, `plugin.wasm`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.file(), text).unwrap();
        fs::write(folder.plugin(), "").unwrap();
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("hotgate.toml")
    }

    fn plugin(&self) -> PathBuf {
        self.0.path().join("plugin.wasm")
    }

    fn load(&self, overrides: &[(&'static str, &str)]) -> Result<Config, String> {
        let mut all = Overrides::default();
        for (key, value) in overrides {
            all.set(key, "--flag", value.split(',').map(str::to_owned));
        }
        let folder = format!("{}/", self.0.path().display());
        Config::load(Some(&self.file()), &all).map_err(|error| error.to_string().replace(&folder, ""))
    }
}

fn load(text: &str) -> Result<Config, String> {
    Folder::new(text).load(&[])
}

fn error(text: &str) -> String {
    load(text).expect_err(text)
}

#[test]
fn the_example_is_the_defaults_with_every_key() {
    assert_eq!(load(EXAMPLE).unwrap(), Config::default());
    // The text is equal, too. `hotgate config print > host/hotgate.toml` updates it.
    assert_eq!(EXAMPLE, Config::default().to_toml());
    for row in settings_table().lines().skip(2) {
        let key = row.split('`').nth(1).unwrap().rsplit('.').next().unwrap();
        let shown = |start: &str| EXAMPLE.contains(&format!("\n{start}{key} = "));
        assert!(key == "*" || shown("") || shown("# "), "{key}");
    }
}

#[test]
fn the_page_of_settings_has_all_of_them() {
    let table = settings_table();
    assert!(include_str!("../../SETTINGS.md").contains(&table), "paste this table into SETTINGS.md:\n{table}");
}

#[test]
fn without_a_file_there_are_the_defaults() {
    assert_eq!(Config::load(None, &Overrides::default()), Ok(Config::default()));
    assert_eq!(load(""), Ok(Config::default()));
}

#[test]
fn what_is_printed_loads_to_an_equal_configuration() {
    for text in [
        "shutdown_grace = 0\nlog.level = \"warn,hotgate=trace\"\nlog.format = \"json\"",
        "websocket.listen = \"[::1]:0\"\nwebsocket.max_message = 1001\nwebsocket.close_timeout = \"1500ms\"",
        "[websocket]\nallowed_origins = [\"https://Example.com\", \"null\"]\npass_headers = [\"Cookie\", \"X-Team\"]\n\
         trusted_proxies = [\"10.1.2.3/8\", \"::1\"]\nsubprotocols = [\"Chat.v1\", \"a'b\"]",
        "websocket.allowed_origins = []",
        "[text]\nlisten = \"0.0.0.0:5678\"\nallow_from = [\"192.168.0.0/16\"]\nmax_line = \"1536KiB\"",
        "[heartbeat]\ntimeout = \"90s\"\ncheck_interval = \"90s\"\nping_interval = 20",
        "sessions.duplicate_login = \"close-older\"\noutbox.max_bytes = 1024\noutbox.total_bytes = 1024",
        "[router]\nfile = \"plugin.wasm\"\nroute_failure = \"close\"\nisolation = \"per-call\"\nlimits.max_wait = 0",
        "engine.stack = \"1MiB\"\n[router]\nlimits = { host_call_bytes = \"8MiB\", max_state = 0, log_lines = 0 }",
        "[[authenticator]]\nfile = \"./plugin.wasm\"\n[authenticator.limits]\nrecycle_after = 4294967295\n\
         [[authenticator]]\nfile = \"builtin:origin-router\"\nisolation = \"pooled\"\n[authenticator.settings]\n\
         \"odd \\\" ' \\n name\" = \"\"\nTEXT = \"\"\"\n\n'''\n\\\"\"\" \\r\\n\\t \\u007F ä 🦀 \\\\ {} # \"\"\"",
    ] {
        let folder = Folder::new(text);
        let config = folder.load(&[]).unwrap();
        let printed = config.to_toml();
        assert_eq!(Folder::new(&printed).load(&[]), Ok(config), "{printed}");
    }
}

#[test]
fn peers_are_named_as_they_are_known() {
    let config = load(
        "text.listen = \"localhost:0\"\ntext.allow_from = [\"::ffff:127.0.0.1\"]\n\
         websocket.trusted_proxies = [\"::ffff:10.0.0.0/104\"]",
    )
    .unwrap();
    assert_eq!(config.text.listener.listen, [SocketAddr::from(([127, 0, 0, 1], 0)).into()]);
    assert_eq!(config.text.allow_from, ["127.0.0.1/32".parse().unwrap()]);
    assert_eq!(config.websocket.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    // The same address in another notation is a duplicate.
    let twice = error("text.allow_from = [\"127.0.0.1\", \"::ffff:127.0.0.1\"]");
    assert!(twice.contains("text.allow_from[1] = \"::ffff:127.0.0.1\": is in the list twice"), "{twice}");
}

#[test]
fn sizes_durations_and_counts_are_read_in_either_form() {
    let config = load(
        "[websocket]\nmax_message = \"64KiB\"\nhandshake_timeout = 7\n[text]\nmax_line = 0x1_0000\n\
         [limits]\nconnections = 1_000\n[heartbeat]\ntimeout = \"2m\"\nping_interval = \"500ms\"",
    )
    .unwrap();
    assert_eq!((config.websocket.max_message, config.text.max_line), (65_536, 65_536));
    assert_eq!(config.websocket.handshake_timeout, Duration::from_secs(7));
    assert_eq!(config.heartbeat.timeout, Duration::from_secs(120));
    assert_eq!(config.heartbeat.ping_interval, Some(Duration::from_millis(500)));
    assert_eq!(config.limits.connections, 1000);
}

/// Each configuration is refused with an error that contains this text.
#[test]
fn what_cannot_be_is_refused_with_place_key_value_and_what_is_allowed() {
    let rules = [
        (
            "\n[websocket]\nmax_mesage = 1",
            "hotgate.toml:3: websocket.max_mesage: unknown key; allowed here: listen, mode, group, max_message,",
        ),
        (
            "[web]\n",
            "hotgate.toml:1: web: unknown key; allowed here: shutdown_grace, state_folder, [log], [websocket],",
        ),
        ("\"a b\" = 1", "hotgate.toml:1: \"a b\": unknown key"),
        ("[websocket\n", "hotgate.toml:1: unclosed table"),
        ("a = 1\na = 2", "hotgate.toml:2: duplicate key"),
        ("websocket = 1", "hotgate.toml:1: websocket: must be a table"),
        (
            "websocket.max_message = \"0B\"",
            "websocket.max_message = \"0B\": must be a size from 1B to 1GiB: bytes, or like \"64KiB\"",
        ),
        ("websocket.max_message = \"1Mb\"", "websocket.max_message = \"1Mb\": must be a size"),
        ("websocket.max_message = -1", "websocket.max_message = -1: must be a size"),
        ("websocket.max_message = 1.5", "websocket.max_message = 1.5: must be a size"),
        (
            "heartbeat.timeout = 0",
            "heartbeat.timeout = 0: must be a duration from 1ms to 24h: seconds, or like \"500ms\"",
        ),
        (
            "heartbeat.timeout = \"500ms\"",
            "hotgate.toml:1: heartbeat.check_interval = \"1s\": must be at most heartbeat.timeout, which is \"500ms\"",
        ),
        ("heartbeat.ping_interval = 30", "heartbeat.ping_interval = \"30s\": must be less than heartbeat.timeout"),
        ("limits.connections = 0", "limits.connections = 0: must be a whole number from 1 to 10000000"),
        ("limits.connections = \"many\"", "limits.connections = \"many\": must be a whole number"),
        ("limits.connections = 99999999999999999999", "limits.connections = 99999999999999999999: must be"),
        ("log.format = \"xml\"", "log.format = \"xml\": must be \"text\" or \"json\""),
        ("log.level = \"inof\"", "log.level = \"inof\": must be off, error, warn"),
        ("log.access = true", "log.access = true: must be \"off\" or \"ended\""),
        ("log.decisions = 101", "log.decisions = 101: must be a whole number from 0 to 100"),
        ("log.decisions = -1", "log.decisions = -1: must be a whole number from 0 to 100"),
        (
            "websocket.listen = \"example.com:1234\"",
            "websocket.listen = \"example.com:1234\": must be an IP address and port",
        ),
        ("websocket.listen = 1234", "websocket.listen = 1234: must be an IP address and port"),
        (
            "text.listen = \"127.0.0.1:9\"\nwebsocket.listen = \"127.0.0.1:9\"",
            "hotgate.toml:1: text.listen = \"127.0.0.1:9\": must not be the same",
        ),
        (
            "admin.listen = \"127.0.0.1:5678\"",
            "hotgate.toml:1: admin.listen = \"127.0.0.1:5678\": must not be the same as text.listen",
        ),
        ("text.listen = \"0.0.0.0:5678\"", "set text.allow_from to the addresses that may connect"),
        ("websocket.listen = \"localhost\"", "websocket.listen = \"localhost\": must be an IP address and port"),
        ("websocket.listen = \"localhost:x\"", "websocket.listen = \"localhost:x\": must be an IP address and port"),
        (
            "text.allow_from = [\"0.0.0.0\"]",
            "text.allow_from[0] = \"0.0.0.0\": must be an IP address or a network that",
        ),
        (
            "text.listen = \"127.0.0.1:5678\"\ntext.allow_from = [\"::1\"]",
            "hotgate.toml:2: text.allow_from: none of these can reach text.listen, which is \"127.0.0.1:5678\"",
        ),
        (
            "websocket.listen = \"[::1]:1234\"\nwebsocket.trusted_proxies = [\"10.0.0.0/8\"]",
            "hotgate.toml:2: websocket.trusted_proxies: none of these can reach websocket.listen",
        ),
        (
            "websocket.allowed_origins = [\"wss://a.b\"]",
            "websocket.allowed_origins[0] = \"wss://a.b\": must be an origin",
        ),
        ("text.allow_from = [\"10.0.0.0/8\", \"x\"]", "text.allow_from[1] = \"x\": must be an IP address or a network"),
        ("outbox.max_bytes = 1023", "outbox.max_bytes = 1023: must be a size from 1KiB"),
        (
            "inbox.total_bytes = \"512KiB\"",
            "inbox.total_bytes = \"512KiB\": must be at least websocket.max_message, which is \"1MiB\"",
        ),
        ("limits.unauthenticated_share = 0", "limits.unauthenticated_share = 0: must be a whole number from 1 to 100"),
        (
            "outbox.total_bytes = \"1MiB\"",
            "outbox.total_bytes = \"1MiB\": must be at least outbox.max_bytes, which is \"4MiB\"",
        ),
        (
            "websocket.allowed_origins = [\"*\", \"https://a.b\"]",
            "websocket.allowed_origins[0] = \"*\": must be an origin",
        ),
        ("websocket.allowed_origins = \"*\"", "websocket.allowed_origins = \"*\": must be [\"*\"] alone, or a list"),
        ("websocket.pass_headers = [\"Cookie\"]", "cross-site WebSocket hijacking"),
        ("websocket.pass_headers = [\"a\", \"A\"]", "websocket.pass_headers[1] = \"A\": is in the list twice"),
        ("websocket.pass_headers = [\"a b\"]", "websocket.pass_headers[0] = \"a b\": must be the name of a header"),
        ("websocket.subprotocols = [\"\"]", "websocket.subprotocols[0] = \"\": must be a token"),
        ("authenticator = []", "authenticator: must be one or more tables, each headed [[authenticator]]"),
        ("[authenticator]", "authenticator: must be one or more tables, each headed [[authenticator]]"),
        ("\n[[authenticator]]\n", "hotgate.toml:2: authenticator[0].file: must be set"),
        (
            "[router]\nfile = \"builtin:x\"",
            "must be the path of a component, or builtin:NAME, where NAME is echo-router, hmac-auth, jwt-auth, origin-auth, \
             origin-router or rooms-router",
        ),
        ("[router]\nfile = \"\"", "router.file = \"\": must be the path"),
        (
            "[router]\nfile = \"none.wasm\"",
            "hotgate.toml:2: router.file = \"none.wasm\": must be a file that can be read: No such file",
        ),
        ("[router]\nfile = \".\"", "must be a file that can be read: it is not a regular file"),
        ("watch.settle = \"2m\"", "watch.settle = \"2m\": must be a duration from 1ms to 1m"),
        (
            "engine.memory = \"255MiB\"",
            "hotgate.toml:1: engine.memory = \"255MiB\": must be at least twice the sum of limits.memory of every \
             [[authenticator]] and [router], which is \"256MiB\", or \"auto\"",
        ),
        ("[router.limits]\nconcurrency = 2049", "concurrency = 2049: must be a whole number from 1 to 2048"),
        (
            "[router.limits]\nconcurrency = 2048",
            "hotgate.toml:2: limits.concurrency of all plugins together is 2112: it must be at most 2048",
        ),
        ("engine.stack = 1", "engine.stack = 1: must be a size from 64KiB to 64MiB"),
        (
            "[router.limits]\nhost_call_bytes = 1",
            "host_call_bytes = 1: must be a size from 1KiB to 2GiB: bytes, or like \"64KiB\"; or \"auto\"",
        ),
        (
            "[router.limits]\nmax_output = \"2MiB\"\nhost_call_bytes = \"1MiB\"",
            "hotgate.toml:3: router.limits.host_call_bytes = \"1MiB\": must be at least router.limits.max_output, which is \"2MiB\"",
        ),
        (
            "limits.connections = 2_000_000",
            "hotgate.toml:1: router.limits.max_recipients = 1000000: must be at least limits.connections, which is 2000000",
        ),
        ("[router.limits]\nmax_name = 257", "router.limits.max_name = 257: must be a whole number from 1 to 256"),
        (
            "[router.limits]\nmax_state = \"65KiB\"",
            "router.limits.max_state = \"65KiB\": must be a size from 0B to 64KiB",
        ),
        ("[router.limits]\nlog_lines = -1", "router.limits.log_lines = -1: must be a whole number from 0 to"),
        ("[router.limits]\ndeadline = 0", "router.limits.deadline = 0: must be a duration from 1ms"),
        (
            "[[authenticator]]\nfile = \"plugin.wasm\"\n[[authenticator]]\nfile = \"plugin.wasm\"\nlimits.memry = 1",
            "hotgate.toml:5: authenticator[1].limits.memry: unknown key; allowed here: deadline",
        ),
        (
            "[[authenticator]]\nfile = \"plugin.wasm\"\nroute_failure = \"drop\"",
            "authenticator[0].route_failure: unknown key; allowed here: file, settings, isolation, [limits], [deploy]",
        ),
        (
            "[router.settings]\nPORT = 5678",
            "hotgate.toml:1: router.settings.PORT: must be a string: write it in quotes, or { file = \"path\" }",
        ),
        (
            "[router.settings]\nKEY = { fil = \"secret\" }",
            "hotgate.toml:1: router.settings.KEY: must be a string, or { file = \"path\" } and nothing else",
        ),
        ("[router.settings]\nKEY = { file = \"a\", b = 1 }", "router.settings.KEY: must be a string, or { file"),
        ("[router.settings]\nKEY = { file = \"\" }", "router.settings.KEY: file must not be empty"),
        ("[router.settings]\nKEY = { file = 1 }", "router.settings.KEY: must be a string: write it in quotes"),
        (
            "\n[router]\nsettings.KEY = { file = \"none\" }",
            "hotgate.toml:3: router.settings.KEY: cannot use the file none: No such file",
        ),
        (
            "[[authenticator]]\nfile = \"plugin.wasm\"\nsettings = { A = \"a\", KEY = { file = \"plugin.wasm\" } }",
            "hotgate.toml:3: authenticator[0].settings.KEY: cannot use the file plugin.wasm: it is empty",
        ),
        ("[router.settings]\n\"a=b\" = \"\"", "router.settings: the name of a setting must not"),
        ("[router.settings]\n\"\" = \"\"", "router.settings: the name of a setting must not"),
        ("[router.settings]\nA = \"\\u0000\"", "router.settings.A: must not contain NUL"),
    ];
    for (text, part) in rules {
        let error = error(text);
        assert!(error.starts_with("hotgate.toml"), "{error}");
        assert!(error.contains(part), "{text}\n gives: {error}\n not: {part}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn an_error_never_shows_the_value_of_a_plugins_setting() {
    for text in [
        "[router.settings]\nKEY = \"hunter2\\u0000\"",
        "[router.settings]\nKEY = [\"hunter2\"]",
        "[router.settings]\nKEY = hunter2",
        "[router.settings]\nKEY = \"hunter2",
        "[router]\nsettings = \"hunter2\"",
        "[router]\nsettings = { KEY = \"hunter2\", OTHER = 1 }",
        "[router]\nsettings = { KEY = { fil = \"hunter2\" } }",
        "[router]\nsettings = { KEY = { file = [\"hunter2\"] } }",
        "[router]\nseting = { KEY = \"hunter2\" }",
        "router = [{ settings = { KEY = \"hunter2\" } }]",
        "authenticator = { settings = { KEY = \"hunter2\" } }",
        "[[authenticator]]\nfile = { KEY = \"hunter2\" }",
    ] {
        let error = error(text);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let error = Config::load(Some(Path::new("/nowhere/hotgate.toml")), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/hotgate.toml: cannot read this file, named by --config"));
}

#[test]
fn a_plugins_path_starts_at_the_files_folder() {
    let folder = Folder::new("[[authenticator]]\nfile = \"plugin.wasm\"");
    assert_eq!(folder.load(&[]).unwrap().authenticators[0].source, PluginSource::File(folder.plugin()));
}

#[test]
fn the_path_of_a_settings_file_starts_there_too() {
    let text = "[[authenticator]]\nfile = \"plugin.wasm\"\nsettings = { KEY = { file = \"key\" }, NAME = \"n\" }\n\
                [router]\nfile = \"plugin.wasm\"\nsettings.KEY.file = \"./key\"";
    let folder = Folder::new(text);
    let key = folder.0.path().join("key");
    fs::write(&key, "hunter2\n").unwrap();
    let config = folder.load(&[]).unwrap();
    for plugin in [&config.authenticators[0], &config.router.plugin] {
        assert_eq!(plugin.settings.files().collect::<Vec<_>>(), [key.as_path()]);
        assert_eq!(plugin.settings.read().unwrap()["KEY"], "hunter2");
    }
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(Folder::new(&printed).load(&[]), Ok(config), "{printed}");
}

#[test]
fn overrides_count_more_than_the_file_and_errors_name_them() {
    let folder = Folder::new("websocket.listen = \"127.0.0.1:1\"\nlog.level = \"warn\"");
    let config = folder.load(&[("websocket.listen", "127.0.0.1:2"), ("log.format", "json")]).unwrap();
    assert_eq!(config.websocket.listener.listen, [SocketAddr::from(([127, 0, 0, 1], 2)).into()]);
    assert_eq!((config.log.level.as_str(), config.log.format), ("warn", LogFormat::Json));

    for (key, value, message) in [
        ("text.listen", "x", "--flag: text.listen = \"x\": must be an IP address and port"),
        ("text.listen", "0.0.0.0:1", "--flag: text.listen = \"0.0.0.0:1\": everybody who reaches this address"),
        ("log.format", "xml", "--flag: log.format = \"xml\": must be \"text\" or \"json\""),
        ("router", "builtin:x", "--flag: router.file = \"builtin:x\": must be the path"),
        ("authenticator", "builtin:origin-auth,", "--flag: authenticator[1].file = \"\": must be the path"),
        ("authenticator", "/nowhere.wasm", "--flag: authenticator[0].file = \"/nowhere.wasm\": must be a file"),
    ] {
        let error = folder.load(&[(key, value)]).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn overriding_plugins_replaces_them_but_known_ones_keep_their_settings() {
    let folder = Folder::new(
        "[[authenticator]]\nfile = \"gone.wasm\"\n[[authenticator]]\nfile = \"plugin.wasm\"\nsettings.KEY = \"k\"\n\
         [router]\nfile = \"plugin.wasm\"\nroute_failure = \"close\"\nsettings.KEY = \"r\"",
    );
    let plugin = folder.plugin().display().to_string();
    let chain = format!("builtin:origin-router,{plugin}");
    let config = folder.load(&[("authenticator", &chain), ("router", &plugin)]).unwrap();
    let builtin = PluginSource::Builtin("origin-router".to_owned());
    assert_eq!(config.authenticators.len(), 2);
    assert_eq!(config.authenticators[0], PluginConfig::authenticator(builtin));
    assert_eq!(config.authenticators[1].settings.read().unwrap()["KEY"], "k");
    assert_eq!(config.router.plugin.settings.read().unwrap()["KEY"], "r");

    let other = folder.load(&[("authenticator", &plugin), ("router", "builtin:origin-router")]).unwrap();
    assert!(other.router.plugin.settings.is_empty());
    assert_eq!(other.router.route_failure, RouteFailure::Close);
}
