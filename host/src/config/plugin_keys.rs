//! The keys of plugins, in the table of all settings: see `keys`.

use std::time::Duration;

use toml::de::DeValue;

use super::error::Wrong;
use super::kinds::{Choice, Count, Kind, SOURCE, Size, SizeOrAuto, Time};
use super::section::{Row, Section, Tables, keys};
use super::settings::SettingsTable;
use super::units::{DAY, GIB, HOUR, KIB, MIB, MS, millis, secs};
use super::{
    Isolation, LARGEST_COMPONENT, MAX_CALLS, PluginConfig, PluginDeploy, PluginLimits, PluginSource, Rollback,
    RouteFailure, RouterConfig, Settings,
};

const ROUTE_FAILURES: Choice<RouteFailure> = Choice(&[("drop", RouteFailure::Drop), ("close", RouteFailure::Close)]);

const ROLLBACKS: Choice<Rollback> = Choice(&[("auto", Rollback::Auto), ("alert", Rollback::Alert)]);

const ISOLATIONS: Choice<Isolation> = Choice(&[("per-call", Isolation::PerCall), ("pooled", Isolation::Pooled)]);

keys! {
    PluginConfig {
        source "file": SOURCE, = PluginSource::Builtin("origin-auth".to_owned()),
            "The plugin's component. A relative path starts at this file's folder. When the file changes, the \
             gateway swaps the new component in while it runs.";
        settings: SettingsTable, = Settings::default(),
            "Settings of the plugin, which it reads as environment variables. Keep a secret in a file of its own \
             that only the gateway can read.";
        isolation: ISOLATIONS, = Isolation::PerCall,
            "\"per-call\": each call runs in a fresh instance, so nothing of one user can leak into the decision about \
             the next. \"pooled\": calls reuse instances, one call at a time each, which is faster.";
        [sections: limits, deploy]
    }

    RouterConfig {
        route_failure: ROUTE_FAILURES, = RouteFailure::Drop,
            "What happens when the router fails on a packet. \"drop\": the packet is dropped. \"close\": its \
             connection is closed (1013).";
        [flat: plugin = PluginConfig::router(PluginSource::Builtin("origin-router".to_owned()))]
    }

    PluginLimits {
        deadline: Time(MS..=HOUR), = millis(200),
            "How long one call may run.";
        max_wait: Time(Duration::ZERO..=HOUR), = secs(1),
            "How long a login or a pushed line may wait for a free instance before it is refused.";
        check_timeout: Time(MS..=HOUR), = secs(5),
            "How long the check function of a new component may run before the component is refused.";
        memory: Size(64 * KIB..=4 * GIB), = 64 * MIB,
            "Linear memory of one instance.";
        table_elements: Count(1..=1_000_000), = 100_000,
            "The most elements of all tables of one instance.";
        handles: Count(1..=1_000_000), = 1000,
            "The most handles (streams, timers and other resources) that one instance may hold.";
        host_call_bytes: SizeOrAuto(KIB..=2 * GIB), = None,
            "The most bytes that one call may pass to functions of the host in total, or return; at least \
             max_output. \"auto\" is enough for max_output and max_actions.";
        concurrency: Count(1..=MAX_CALLS), = 64,
            "The most calls that run at the same time, in each role of the plugin; at most 2048 in all roles of all \
             plugins together.";
        recycle_after: Count(1..=u32::MAX), = 10_000,
            "A pooled instance is replaced after this number of calls, or up to an eighth less.";
        max_actions: Count(1..=1_000_000), = 4096,
            "The most actions that one call may return.";
        max_recipients: Count(1..=1_000_000_000), = 1_000_000,
            "The most connections that the actions of one call may concern in total, each counted once for every \
             action. A router's limit is at least limits.connections, so that it can reach every client.";
        max_output: Size(KIB..=GIB), = 8 * MIB,
            "The most bytes that one call may return in total. The default grows with the largest message or line.";
        max_name: Count(1..=256), = 256,
            "The most bytes of a uid that the plugin accepts, and of a group's name.";
        max_state: Size(0..=64 * KIB), = 4 * KIB,
            "The most bytes of the state that the plugin keeps with a prompt or a session.";
        max_attributes: Count(0..=4096), = 64,
            "The most attributes of an identity.";
        max_attribute_bytes: Size(0..=MIB), = 16 * KIB,
            "The most bytes of all attributes of an identity together, names and values.";
        max_component: Size(KIB..=LARGEST_COMPONENT), = 64 * MIB,
            "The largest size of the component's file.";
        log_lines: Count(0..=1_000_000), = 100,
            "Log lines that the plugin may write in a second, and up to twice as many at once. Further lines are \
             dropped and counted. A quarter is reserved for warnings and errors.";
        log_lines_per_call: Count(0..=1_000_000), = 64,
            "Log lines that one call may write. Further lines are dropped and counted. A quarter is reserved for \
             warnings and errors.";
        log_line_bytes: Size(16..=64 * KIB), = KIB,
            "The most bytes of one log line. The rest is cut off.";
    }

    PluginDeploy {
        shadow: Count(0..=100), = 0,
            "Percentage of first packets that a new generation also judges, in the shadow of the live generation and \
             without effect, until it is promoted. 0: the stage is skipped.";
        canary: Count(0..=100), = 0,
            "Percentage of new connections that a new generation serves until it is promoted. 0: the stage is \
             skipped.";
        probation: Time(Duration::ZERO..=DAY), = secs(30),
            "How long a new generation that serves all connections is on probation. The probation goes on until the \
             generation has been called at least min_failures times and does not fail too often. \"0s\": the stage \
             is skipped.";
        probation_calls: Count(1..=i64::MAX as u64), = 100_000,
            "After this number of calls, the probation ends before its time.";
        max_failures: Count(0..=100), = 5,
            "By how many percentage points the share of failed calls may be higher for a new generation than for the \
             one before.";
        min_failures: Count(1..=1_000_000), = 5,
            "Failures of a function that are needed before a new generation is judged. A rollback needs them from as \
             many clients (at least 2; 5 are enough), or 20 times as many failures. A client is an address and a \
             uid.";
        rollback: ROLLBACKS, = Rollback::Auto,
            "What happens when a new generation fails too often. \"auto\": the generation before it serves again. \
             \"alert\": the log and the status report it.";
    }
}

impl PluginConfig {
    /// Creates an authenticator with default settings and limits.
    pub fn authenticator(source: PluginSource) -> Self {
        Self { source, ..Self::default() }
    }

    /// Creates a router with default settings and limits. Its calls share instances, since a router decides for all
    /// users.
    pub fn router(source: PluginSource) -> Self {
        Self { source, isolation: Isolation::Pooled, ..Self::default() }
    }
}
