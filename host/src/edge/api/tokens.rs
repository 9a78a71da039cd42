//! The tokens of the API: who sends a request, what the sender may do, and how often.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::base::bucket::Bucket;
pub(super) use crate::config::Scope;
use crate::config::{ApiTokenConfig, Credential, TokenDigest};
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::token::bearer;

/// The bucket of a token fills in this time.
const SECOND: Duration = Duration::from_secs(1);

/// All tokens that open the API.
#[derive(Debug, Default)]
pub(super) struct ApiTokens(Vec<Arc<Grant>>);

impl ApiTokens {
    /// Returns the tokens of a new configuration. A token with the same name and credential stays: requests and streams
    /// that use it follow its new rules at once. All other tokens are no longer valid.
    pub(super) fn replaced(&self, configured: Vec<ApiTokenConfig>) -> Self {
        let grant = |config: ApiTokenConfig| {
            let is_same = |old: &&Arc<Grant>| old.name == config.name && old.credential == config.credential;
            let Some(same) = self.0.iter().find(is_same) else { return Arc::new(Grant::new(config)) };
            same.rules.store(Arc::new(config));
            same.clone()
        };
        let new: Vec<_> = configured.into_iter().map(grant).collect();
        for old in self.0.iter().filter(|old| !new.iter().any(|new| Arc::ptr_eq(new, old))) {
            old.revoked.cancel();
        }
        Self(new)
    }

    /// Returns `true` if these are the tokens of this configuration.
    pub(super) fn are(&self, configured: &[ApiTokenConfig]) -> bool {
        self.0.iter().map(|grant| grant.rules.load_full()).eq(configured.iter().cloned().map(Arc::new))
    }

    /// Returns what the token in an `Authorization` header allows, or `None` if there is no such token.
    pub(super) fn find(&self, authorization: &[u8]) -> Option<Arc<Grant>> {
        let given = TokenDigest::of(bearer(authorization)?);
        // All of them are compared, so that the time does not tell which one was found.
        let has = |grant: &Grant| matches!(&grant.credential, Credential::Token(digest) if digest.matches(&given));
        self.0.iter().fold(None, |found, grant| if has(grant) { Some(grant) } else { found }).cloned()
    }

    /// Returns what a client with these names in its certificate may do, or `None` if there is no token for them.
    pub(super) fn of_certificate(&self, names: &[String]) -> Option<Arc<Grant>> {
        let has =
            |grant: &&Arc<Grant>| matches!(&grant.credential, Credential::Certificate(name) if names.contains(name));
        self.0.iter().find(has).cloned()
    }
}

/// What a token allows.
#[derive(Debug)]
pub(super) struct Grant {
    name: String,
    credential: Credential,
    /// They change when the configuration is read again.
    rules: ArcSwap<ApiTokenConfig>,
    /// Requests and items that may still come.
    bucket: Mutex<Bucket>,
    revoked: CancellationToken,
}

impl Grant {
    fn new(config: ApiTokenConfig) -> Self {
        let bucket = Mutex::new(Bucket::full(Instant::now()));
        let (name, credential, revoked) = (config.name.clone(), config.credential.clone(), CancellationToken::new());
        Self { name, credential, rules: ArcSwap::from_pointee(config), bucket, revoked }
    }

    /// The name of the token.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Checks that the token allows this, and is still valid.
    pub(super) fn permit(&self, scope: Scope) -> Result<(), Problem> {
        self.rules_for(scope).map(|_| ())
    }

    /// Returns the rules of the token, if they allow this.
    fn rules_for(&self, scope: Scope) -> Result<Arc<ApiTokenConfig>, Problem> {
        if self.revoked.is_cancelled() {
            return Err(Problem::unauthorized("the token is no longer valid"));
        }
        let rules = self.rules.load_full();
        if !rules.scopes.contains(&scope) {
            let problem = format!("the token {} does not have the scope {}", self.name(), scope.word());
            return Err(Problem::new(Reason::Scope, problem));
        }
        Ok(rules)
    }

    /// Checks that the token allows some kind of push.
    pub(super) fn permit_any_push(&self) -> Result<(), Problem> {
        let others = [Scope::PushGroup, Scope::PushEveryone].into_iter().any(|scope| self.permit(scope).is_ok());
        if others { Ok(()) } else { self.permit(Scope::PushUid) }
    }

    /// Checks that the token allows this for this uid.
    pub(super) fn permit_uid(&self, scope: Scope, uid: &str) -> Result<(), Problem> {
        if !is_listed(&self.rules_for(scope)?.uids, uid) {
            let (name, scope) = (self.name(), scope.word());
            let problem = format!("the token {name} has the scope {scope}, but not for the uid {}", shown(uid));
            return Err(Problem::new(Reason::Scope, problem));
        }
        Ok(())
    }

    /// Checks that the token allows this for this group.
    pub(super) fn permit_group(&self, scope: Scope, group: &str) -> Result<(), Problem> {
        if !is_listed(&self.rules_for(scope)?.groups, group) {
            let (name, scope) = (self.name(), scope.word());
            let problem = format!("the token {name} has the scope {scope}, but not for the group {}", shown(group));
            return Err(Problem::new(Reason::Scope, problem));
        }
        Ok(())
    }

    /// Returns `true` if the token's patterns allow this uid.
    pub(super) fn may_see(&self, uid: &str) -> bool {
        is_listed(&self.rules.load().uids, uid)
    }

    /// Returns `true` if the token's patterns allow every uid.
    pub(super) fn may_see_all(&self) -> bool {
        self.rules.load().uids.is_empty()
    }

    /// Charges a request to the token's rate.
    pub(super) fn charge(&self) -> Result<(), Problem> {
        let Some((mut bucket, now, rate)) = self.bucket() else { return Ok(()) };
        // Part of one is enough, so that a request comes before the items of streams, which wait for a whole one.
        let wait = bucket.debt(now, SECOND - Duration::from_nanos(1));
        if wait.is_zero() {
            bucket.take(now, 1, rate);
            return Ok(());
        }
        let problem = format!("the token {} may send {rate} requests and items a second (rate)", self.name());
        let retry_after = Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        Err(Problem { retry_after, ..Problem::new(Reason::Rate, problem) })
    }

    /// Charges items that came with a request, even beyond the rate: later requests wait for longer.
    pub(super) fn owe(&self, items: usize) {
        if let Some((mut bucket, now, rate)) = self.bucket() {
            bucket.take(now, items, rate);
        }
    }

    /// Charges one item of a stream to the token's rate. If it comes too fast, it is not charged: returns how long the
    /// stream must wait before it tries again. It waits for a whole item, so that requests have their turn before.
    pub(super) fn pause(&self) -> Option<Duration> {
        let (mut bucket, now, rate) = self.bucket()?;
        bucket.try_take(now, 1, rate, SECOND).err()
    }

    /// Waits until the token is no longer valid, because the configuration has changed.
    pub(super) fn revoked(&self) -> WaitForCancellationFuture<'_> {
        self.revoked.cancelled()
    }

    /// Returns the bucket, the time and the rate; `None` if the rate is unlimited.
    fn bucket(&self) -> Option<(MutexGuard<'_, Bucket>, Instant, usize)> {
        let rate = self.rules.load().rate as usize;
        (rate > 0).then(|| (self.bucket.lock(), Instant::now(), rate))
    }
}

/// Returns `true` if one of the patterns matches the text, or if there are no patterns.
fn is_listed(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text).is_some())
}

/// Returns something if the pattern matches the whole text. `*` matches any run of characters. Texts between two `*`
/// are searched one after the other: if the first place of one does not lead to a match, no later place does.
fn matches(pattern: &str, text: &str) -> Option<()> {
    let Some((start, rest)) = pattern.split_once('*') else { return (pattern == text).then_some(()) };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let mut text = text.strip_prefix(start)?.strip_suffix(end)?;
    for part in middle.split('*') {
        text = text.split_once(part)?.1;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn config(name: &str, token: &str) -> ApiTokenConfig {
        let digest = TokenDigest::of(token.as_bytes());
        let scopes = vec![Scope::PushUid, Scope::PushGroup];
        let (sha256, uids, groups) = (Some(digest), vec!["shop-*".to_owned()], vec!["*.news".to_owned()]);
        let credential = Credential::Token(digest);
        let (name, rate) = (name.to_owned(), 10);
        ApiTokenConfig { name, sha256, scopes, uids, groups, rate, credential, ..ApiTokenConfig::default() }
    }

    fn reason(result: Result<(), Problem>) -> (Reason, String) {
        let Problem { reason, error, .. } = result.unwrap_err();
        (reason, error)
    }

    #[test]
    fn a_token_is_found_by_its_digest_and_never_shown() {
        let configured = vec![config("a", TOKEN), config("b", "another"), config("c", "third")];
        let tokens = ApiTokens::default().replaced(configured);
        for (given, name) in [
            (format!("Bearer {TOKEN}"), Some("a")),
            ("bearer another".to_owned(), Some("b")),
            ("Bearer third ".to_owned(), Some("c")),
            ("Bearer fourth".to_owned(), None),
            ("Bearer ".to_owned(), None),
            ("Basic third".to_owned(), None),
            ("third".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(tokens.find(given.as_bytes()).as_ref().map(|grant| grant.name()), name, "{given}");
        }
        let shown = format!("{tokens:?}");
        assert!(!shown.contains(TOKEN) && !shown.contains(&TokenDigest::of(TOKEN.as_bytes()).to_string()), "{shown}");
    }

    #[test]
    fn scopes_and_patterns_decide() {
        let grant = Grant::new(config("billing", TOKEN));
        assert!(grant.permit(Scope::PushUid).is_ok() && grant.permit_uid(Scope::PushUid, "shop-1").is_ok());
        assert!(grant.permit_group(Scope::PushGroup, "de.news").is_ok());
        assert!(grant.may_see("shop-") && !grant.may_see("a shop-"));
        for (result, error) in [
            (grant.permit(Scope::Kick), "the token billing does not have the scope kick"),
            (grant.permit_uid(Scope::Kick, "shop-1"), "the token billing does not have the scope kick"),
            (
                grant.permit_uid(Scope::PushUid, "u\n1"),
                "the token billing has the scope push:uid, but not for the uid u?1",
            ),
            (
                grant.permit_group(Scope::PushGroup, "news"),
                "the token billing has the scope push:group, but not for the group news",
            ),
        ] {
            assert_eq!(reason(result), (Reason::Scope, error.to_owned()));
        }
        let all = Grant::new(ApiTokenConfig { uids: Vec::new(), ..config("all", TOKEN) });
        assert!(all.may_see("") && all.may_see("u1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_admits_one_second_at_once_and_may_go_into_debt() {
        let grant = Grant::new(config("a", TOKEN));
        let retry_after = |items: usize| {
            let charged = grant.charge().map(|()| grant.owe(items));
            charged.map_err(|problem| (problem.reason, problem.retry_after))
        };
        assert_eq!((0..10).filter(|_| retry_after(0).is_ok()).count(), 10);
        assert_eq!(retry_after(0), Err((Reason::Rate, Some(1))));
        advance(Duration::from_millis(100)).await;
        assert_eq!(retry_after(24), Ok(()));
        assert_eq!(retry_after(0), Err((Reason::Rate, Some(3))));
        advance(Duration::from_millis(500)).await;
        assert_eq!(retry_after(0), Err((Reason::Rate, Some(2))));
        advance(Duration::from_secs(3600)).await;
        assert_eq!((0..100).filter(|_| retry_after(0).is_ok()).count(), 10);
        let unlimited = Grant::new(ApiTokenConfig { rate: 0, ..config("a", TOKEN) });
        assert!((0..100).all(|_| unlimited.charge().is_ok() && unlimited.pause().is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_until_its_item_is_paid() {
        let grant = Grant::new(config("a", TOKEN));
        assert!((0..10).all(|_| grant.pause().is_none()));
        assert_eq!(grant.pause(), Some(Duration::from_millis(100)));
        advance(Duration::from_millis(60)).await;
        // A request has its turn while the stream waits for a whole item.
        assert!(grant.charge().is_ok());
        assert_eq!(grant.pause(), Some(Duration::from_millis(140)));
        advance(Duration::from_millis(140)).await;
        assert!(grant.pause().is_none());
    }

    #[tokio::test]
    async fn a_token_that_stays_follows_its_new_rules_and_one_that_is_gone_is_revoked() {
        let configured = vec![config("a", TOKEN), config("b", "another"), config("c", "third")];
        let old = ApiTokens::default().replaced(configured.clone());
        assert!(old.are(&configured) && !old.are(&configured[1..]));
        let find = |tokens: &ApiTokens, token: &str| tokens.find(format!("Bearer {token}").as_bytes());
        let (a, b, c) = (find(&old, TOKEN).unwrap(), find(&old, "another").unwrap(), find(&old, "third").unwrap());
        let changed = ApiTokenConfig { scopes: vec![Scope::Kick], ..config("a", TOKEN) };
        let new = old.replaced(vec![changed, config("renamed", "another")]);
        assert!(Arc::ptr_eq(&a, &find(&new, TOKEN).unwrap()));
        assert!(a.permit(Scope::Kick).is_ok() && a.permit(Scope::PushUid).is_err());
        for gone in [b, c] {
            gone.revoked().await;
            assert_eq!(reason(gone.permit(Scope::PushUid)).0, Reason::Unauthorized);
        }
        assert!(find(&new, "another").unwrap().permit(Scope::PushUid).is_ok() && find(&new, "third").is_none());
    }

    /// Tries every run of characters for every `*`.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            (['*', pattern @ ..], _) => (0..=text.len()).any(|run| naive(pattern, &text[run..])),
            ([first, pattern @ ..], [other, text @ ..]) => first == other && naive(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_like_a_naive_one(pattern in "[abä*]{0,8}", text in "[abä*]{0,12}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text).is_some(), naive(&chars(&pattern), &chars(&text)));
        }
    }
}
