//! What a fault says to people.

use super::*;

#[test]
fn a_fault_says_how_many_calls_may_fail() {
    for (calls, failures, words) in [
        (20, 5, "5 of 20 calls of route failed (25.0 %); at most 4 of these calls may fail"),
        (20, 10, "at most 4 of these calls may fail"),
        (5, 5, "at most 4 of these calls may fail"),
        (200, 30, "at most 10 of these calls may fail"),
    ] {
        let (count, spread) = (CallCount { calls, failures }, Spread { clients: failures, most: 1 });
        let fault = Fault::of(Function::Route, count, 0.0, spread, Stage::Probation, &deploy()).unwrap();
        assert!(fault.reason.contains(words), "{}", fault.reason);
        // One failure less is no fault, if the sentence is right.
        let allowed = words.split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let count = CallCount { calls, failures: allowed };
        assert!(Fault::of(Function::Route, count, 0.0, spread, Stage::Probation, &deploy()).is_none());
    }
}

#[test]
fn a_fault_says_why_nothing_is_rolled_back_yet() {
    let of = |stage, clients, most, rollback| {
        let (count, spread) = (CallCount { calls: 200, failures: 50 }, Spread { clients, most });
        let fault = Fault::of(Function::Route, count, 0.0, spread, stage, &PluginDeploy { rollback, ..deploy() });
        fault.unwrap().reason
    };
    for (stage, clients, most, words) in [
        (Stage::Probation, 1, 50, "; only 1 client is affected, and a rollback at once needs 5"),
        (Stage::Canary, 4, 20, "; only 4 clients are affected, and a rollback at once needs 5"),
        (Stage::Probation, 5, 46, "; no rollback yet: without the client that fails most, the share is acceptable"),
        (Stage::Canary, 5, 10, "(0.0 % before, plus 5 % by deploy.max_failures)"),
        (Stage::Shadow, 1, 50, "(0.0 % before, plus 5 % by deploy.max_failures)"),
        (Stage::Live, 1, 50, "(deploy.max_failures)"),
    ] {
        let reason = of(stage, clients, most, Rollback::Auto);
        assert!(reason.ends_with(words), "{reason}");
    }
    let reason = of(Stage::Probation, 1, 50, Rollback::Alert);
    assert!(reason.ends_with("deploy.max_failures)"), "{reason}");
}
