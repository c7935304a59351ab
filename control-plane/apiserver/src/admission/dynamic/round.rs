//! What goes on over the rounds of mutation, and what a request collects on its way.

use std::collections::HashSet;

use serde_json::Value;

/// What the client or the audit log hears besides the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// `Warning` headers.
    pub(crate) warnings: Vec<String>,
    /// Annotations of the request's audit event.
    pub(crate) annotations: Vec<(String, String)>,
}

impl Notes {
    pub(crate) fn annotate(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.push((key.into(), value.into()));
    }
}

/// Who is asked again, as of `webhookReinvokeContext` and `reinvocationContext`: one of these for each kind of mutation by configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    again: bool,
    asked: HashSet<String>,
    to_ask: HashSet<String>,
    last_output: Option<Value>,
    /// Whether something was changed, so that there is to be another round.
    pub(crate) is_another_due: bool,
}

impl Round {
    /// The first or the second round begins with this object.
    pub(crate) fn begin(&mut self, again: bool, object: &Value) {
        self.again = again;
        // Changed in between by others: then all that may be asked again are.
        if again && self.last_output.as_ref().is_some_and(|last| last != object) {
            self.require();
        }
    }

    /// Whether somebody is to be asked in this round: in the first all are, in the second those that were asked and what they saw has changed.
    pub(crate) fn asks(&self, who: &str) -> bool {
        !self.again || self.to_ask.contains(who)
    }

    /// Whether this is the second round.
    pub(crate) fn is_again(&self) -> bool {
        self.again
    }

    /// Somebody was asked.
    pub(crate) fn done(&mut self, who: &str, changed: bool, may_be_asked_again: bool) {
        if changed {
            self.require();
            self.is_another_due = true;
        }
        if may_be_asked_again {
            self.asked.insert(who.to_owned());
        }
    }

    /// The round is over.
    pub(crate) fn end(&mut self, object: &Value) {
        self.last_output = Some(object.clone());
    }

    fn require(&mut self) {
        self.to_ask.extend(self.asked.drain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_saw_the_object_before_it_changed_is_asked_again() {
        let mut round = Round::default();
        round.begin(false, &json!(0));
        round.done("first", false, true);
        round.done("never again", false, false);
        round.done("changes", true, true);
        round.end(&json!(1));
        assert!(round.is_another_due);
        round.begin(true, &json!(1));
        assert!(round.asks("first") && !round.asks("never again") && !round.asks("changes"));
    }

    #[test]
    fn a_change_by_others_in_between_asks_all_that_may_be() {
        let mut round = Round::default();
        round.begin(false, &json!(0));
        round.done("first", false, true);
        round.end(&json!(0));
        round.begin(true, &json!(1));
        assert!(round.asks("first"));
    }
}
