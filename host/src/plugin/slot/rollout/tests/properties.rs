//! Properties of the state machine that hold whatever happens.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Offer,
    Promote,
    Rollback,
    Withdraw,
    Pass(u64),
    Call { live: bool, calls: u64, failures: u64 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let call = (any::<bool>(), 0..200_u64, 0..20_u64);
    let act = prop_oneof![
        Just(Act::Offer),
        Just(Act::Promote),
        Just(Act::Rollback),
        Just(Act::Withdraw),
        (0..40_u64).prop_map(Act::Pass),
        call.prop_map(|(live, calls, failures)| Act::Call { live, calls, failures: failures.min(calls) }),
    ];
    proptest::collection::vec(act, 0..60)
}

proptest! {
    #[test]
    fn whatever_happens_somebody_serves_and_nobody_who_failed_comes_back(
        acts in acts(),
        shadow in prop_oneof![Just(0_u8), Just(10)],
        canary in prop_oneof![Just(0_u8), Just(10)],
        auto in any::<bool>(),
        probation in prop_oneof![Just(0_u64), Just(30)],
    ) {
        let rollback = if auto { Rollback::Auto } else { Rollback::Alert };
        let probation = Duration::from_secs(probation);
        let mut story = Story::new(PluginDeploy { shadow, canary, rollback, probation, ..deploy() });
        let (mut offered, mut proven, mut refused) = (1, HashSet::from([1]), HashSet::new());
        for act in acts {
            let live_before = story.live();
            let failed = |place: &Staged<Fake>| place.since_begun().iter().any(|count| count.failures >= 5);
            let blameless = !failed(&story.rollout.live) && !story.rollout.candidate.as_ref().is_some_and(failed);
            let passes = matches!(act, Act::Pass(_));
            let steps = match act {
                Act::Offer => {
                    offered += 1;
                    story.offer(offered)
                }
                Act::Promote => story.promote(),
                Act::Rollback => story.rollback().unwrap_or_default(),
                Act::Withdraw => whats(&story.rollout.withdraw()),
                Act::Pass(seconds) => story.after(seconds),
                Act::Call { live, calls, failures } => {
                    let place = if live { None } else { story.rollout.candidate.as_ref() };
                    let place = place.unwrap_or(&story.rollout.live);
                    place.generation.called(Function::Route, calls, failures);
                    Vec::new()
                }
            };
            for (what, number) in steps {
                match what {
                    EventKind::Live => prop_assert!(proven.insert(number), "{number} live twice"),
                    EventKind::RolledBack => {
                        prop_assert!(refused.insert(number));
                        if passes {
                            prop_assert!(auto && !blameless, "{number} rolled back without a reason");
                            prop_assert!(live_before != (number, Stage::Live), "{number} was live for good");
                        }
                    }
                    _ => {}
                }
            }
            let Rollout { live, candidate, previous, .. } = &story.rollout;
            prop_assert!(matches!(live.stage, Stage::Live | Stage::Probation));
            prop_assert_eq!(live.stage == Stage::Live, proven.contains(&live.generation.number));
            prop_assert!(candidate.as_ref().is_none_or(|it| matches!(it.stage, Stage::Shadow | Stage::Canary)));
            prop_assert!(previous.as_ref().is_none_or(|it| proven.contains(&it.generation.number)));
            prop_assert!(live.stage == Stage::Live || previous.is_some(), "nothing to go back to");
            let seen: u64 = live.since_begun().iter().map(|count| count.calls).sum();
            let over = seen >= 5 && story.now.duration_since(live.since) >= probation;
            prop_assert!(!passes || !over || failed(live) || live.stage == Stage::Live);
            let places = [Some(live), candidate.as_ref(), previous.as_ref()];
            let numbers: Vec<_> = places.into_iter().flatten().map(|it| it.generation.number).collect();
            prop_assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len(), "one in two places");
            prop_assert!(numbers.iter().all(|number| !refused.contains(number)), "one that was rolled back");
            prop_assert_eq!(story.rollout.newest().number, candidate.as_ref().unwrap_or(live).generation.number);
        }
    }
}
