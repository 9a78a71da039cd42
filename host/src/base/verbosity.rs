//! How much the log says. It can be changed for a while.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The verbosity of the process's log.
pub static VERBOSITY: Verbosity = Verbosity(Mutex::new(None));

/// The directive for the lines about what operators do.
const AUDIT: &str = "hotgate::edge::admin=info";

/// Puts directives into effect, or says what is wrong with them.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// How much the log says, and for how long.
pub struct Verbosity(Mutex<Option<State>>);

struct State {
    apply: Apply,
    /// The directives of the configuration.
    usual: String,
    /// Other directives, and when they end.
    now: Option<(String, Instant)>,
}

impl Verbosity {
    /// Records how directives are put into effect, and those of the configuration, which are in effect.
    pub fn begin(&self, usual: &str, apply: impl Fn(&str) -> Result<(), String> + Send + 'static) {
        *self.0.lock() = Some(State { apply: Box::new(apply), usual: usual.to_owned(), now: None });
    }

    /// Puts directives into effect for some time.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn set(&self, directives: &str, time: Duration) -> Result<(), String> {
        let mut state = self.0.lock();
        let state = state.as_mut().ok_or("this process has no log")?;
        // What operators do is said whatever they choose.
        (state.apply)(&format!("{directives},{AUDIT}"))?;
        state.now = Some((directives.to_owned(), Instant::now() + time));
        Ok(())
    }

    /// Goes back to the directives of the configuration once the time of others is over. Returns `true` if it did.
    pub fn expire(&self) -> bool {
        let mut state = self.0.lock();
        let Some(state) = state.as_mut() else { return false };
        let is_over = state.now.as_ref().is_some_and(|(_, end)| *end <= Instant::now());
        // They were in effect before, so nothing is wrong with them.
        is_over && state.now.take().is_some() && (state.apply)(&state.usual).is_ok()
    }

    /// Returns the directives in effect, and how long they last if they are not those of the configuration.
    pub fn get(&self) -> (String, Option<Duration>) {
        match &*self.0.lock() {
            None => (String::new(), None),
            Some(State { now: Some((now, end)), .. }) => {
                (now.clone(), Some(end.saturating_duration_since(Instant::now())))
            }
            Some(State { usual, now: None, .. }) => (usual.clone(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_back_by_itself() {
        let (verbosity, applied) = (Verbosity(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        assert!(verbosity.set("debug", Duration::from_secs(1)).is_err());
        let seen = applied.clone();
        verbosity.begin("info", move |directives| {
            seen.lock().push(directives.to_owned());
            if directives.starts_with("wrong,") { Err("no".to_owned()) } else { Ok(()) }
        });
        assert_eq!(verbosity.get(), ("info".to_owned(), None));
        let minute = Duration::from_secs(60);
        verbosity.set("debug", minute).unwrap();
        assert!(verbosity.set("wrong", minute).is_err());
        assert_eq!(verbosity.get(), ("debug".to_owned(), Some(minute)));
        tokio::time::advance(minute - Duration::from_millis(1)).await;
        assert!(!verbosity.expire());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(verbosity.expire() && !verbosity.expire());
        assert_eq!(verbosity.get(), ("info".to_owned(), None));
        let audited = |directives: &str| format!("{directives},{AUDIT}");
        assert_eq!(*applied.lock(), [audited("debug"), audited("wrong"), "info".to_owned()]);
    }
}
