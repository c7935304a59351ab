//! Which occurrence is a new event, which repeats one, and which is dropped. Pure: time comes in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{EventType, Occurrence};

/// The most events that are remembered; the oldest are forgotten first, and would be written anew.
const REMEMBERED: usize = 4096;
/// Upstream: an object may have 25 events at once…
const BURST: f64 = 25.0;
/// …and then one in five minutes.
const REFILL: Duration = Duration::from_secs(300);
/// Upstream: more than 10 that differ only in their note within 10 minutes become one.
const SIMILAR: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);

/// What makes two occurrences the same event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    regarding: (String, String, String, String),
    related: Option<String>,
    r#type: EventType,
    reason: String,
    action: String,
    /// `None` for the event that stands for many similar ones.
    note: Option<String>,
}

/// What to do with an occurrence.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Create an event, and say [`Correlator::written`] with its name.
    First { key: Key, occurrence: Box<Occurrence> },
    /// Set the count of the series of the event `name`.
    Repeat { key: Key, name: String, count: i32 },
    /// Write nothing.
    Drop,
}

#[derive(Default)]
pub(super) struct Correlator {
    written: HashMap<Key, Written>,
    similar: HashMap<Key, Similar>,
    buckets: HashMap<(String, String, String, String), Bucket>,
}

struct Written {
    name: String,
    count: i32,
    seen: Instant,
}

struct Similar {
    notes: Vec<String>,
    since: Instant,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Correlator {
    pub(super) fn observe(&mut self, mut occurrence: Occurrence, at: Instant) -> Verdict {
        self.bound();
        let regarding = &occurrence.regarding;
        let object = (
            regarding.kind.clone().unwrap_or_default(),
            regarding.namespace.clone().unwrap_or_default(),
            regarding.name.clone().unwrap_or_default(),
            regarding.uid.clone().unwrap_or_default(),
        );
        let mut key = Key {
            regarding: object.clone(),
            related: occurrence.related.as_ref().and_then(|related| related.name.clone()),
            r#type: occurrence.r#type,
            reason: occurrence.reason.clone(),
            action: occurrence.action.clone(),
            note: None,
        };
        if !self.is_one_of_many(&key, &occurrence.note, at) {
            key.note = Some(occurrence.note.clone());
        } else {
            occurrence.note = format!("(combined from similar events): {}", occurrence.note);
            super::cut_note(&mut occurrence.note);
        }
        if !self.take_token(object, at) {
            return Verdict::Drop;
        }
        match self.written.get_mut(&key) {
            Some(written) => {
                written.count = written.count.saturating_add(1);
                written.seen = at;
                Verdict::Repeat { name: written.name.clone(), count: written.count, key }
            }
            None => Verdict::First { key, occurrence: Box::new(occurrence) },
        }
    }

    /// The event was created under that name.
    pub(super) fn written(&mut self, key: Key, name: String) {
        self.written.insert(key, Written { name, count: 1, seen: Instant::now() });
    }

    /// The event is gone (it expired): the next occurrence is a first one.
    pub(super) fn forget(&mut self, key: &Key) {
        self.written.remove(key);
    }

    fn is_one_of_many(&mut self, key: &Key, note: &str, at: Instant) -> bool {
        let similar = self.similar.entry(key.clone()).or_insert_with(|| Similar { notes: Vec::new(), since: at });
        if at.saturating_duration_since(similar.since) > SIMILAR_WITHIN {
            similar.notes.clear();
        }
        similar.since = at;
        if similar.notes.iter().any(|seen| seen == note) {
            return false;
        }
        if similar.notes.len() < SIMILAR {
            similar.notes.push(note.to_owned());
            return false;
        }
        true
    }

    fn take_token(&mut self, object: (String, String, String, String), at: Instant) -> bool {
        let bucket = self.buckets.entry(object).or_insert(Bucket { tokens: BURST, at });
        let gained = at.saturating_duration_since(bucket.at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.at = at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Forgets the older half of whatever map is full.
    fn bound(&mut self) {
        fn halve<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, time: impl Fn(&V) -> Instant) {
            if map.len() < REMEMBERED {
                return;
            }
            let mut times: Vec<Instant> = map.values().map(&time).collect();
            let (_, middle, _) = times.select_nth_unstable(REMEMBERED / 2);
            let middle = *middle;
            map.retain(|_, value| time(value) > middle);
        }
        halve(&mut self.written, |written| written.seen);
        halve(&mut self.similar, |similar| similar.since);
        halve(&mut self.buckets, |bucket| bucket.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn occurrence(object: &str, note: &str) -> Occurrence {
        Occurrence {
            regarding: ObjectReference { name: Some(object.to_owned()), ..ObjectReference::default() },
            related: None,
            r#type: EventType::Normal,
            reason: "SuccessfulCreate".to_owned(),
            action: "Create".to_owned(),
            note: note.to_owned(),
        }
    }

    fn write(correlator: &mut Correlator, verdict: Verdict) -> String {
        match verdict {
            Verdict::First { key, occurrence } => {
                correlator.written(key, "name".to_owned());
                occurrence.note
            }
            Verdict::Repeat { .. } | Verdict::Drop => panic!("expected a first event, not {verdict:?}"),
        }
    }

    #[test]
    fn a_repeated_event_counts_up() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let first = correlator.observe(occurrence("a", "x"), now);
        write(&mut correlator, first);
        assert!(matches!(correlator.observe(occurrence("a", "x"), now), Verdict::Repeat { count: 2, .. }));
        assert!(matches!(correlator.observe(occurrence("a", "x"), now), Verdict::Repeat { count: 3, .. }));
    }

    #[test]
    fn the_eleventh_similar_event_stands_for_all_that_follow() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        for number in 0..10 {
            let verdict = correlator.observe(occurrence("a", &format!("pod {number}")), now);
            assert_eq!(write(&mut correlator, verdict), format!("pod {number}"));
        }
        let verdict = correlator.observe(occurrence("a", "pod 10"), now);
        assert_eq!(write(&mut correlator, verdict), "(combined from similar events): pod 10");
        assert!(matches!(correlator.observe(occurrence("a", "pod 11"), now), Verdict::Repeat { count: 2, .. }));
    }

    #[test]
    fn an_object_with_25_events_waits_five_minutes_for_the_next() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let first = correlator.observe(occurrence("a", "x"), now);
        write(&mut correlator, first);
        for _ in 1..25 {
            assert!(matches!(correlator.observe(occurrence("a", "x"), now), Verdict::Repeat { .. }));
        }
        assert_eq!(correlator.observe(occurrence("a", "x"), now), Verdict::Drop);
        assert!(matches!(correlator.observe(occurrence("b", "x"), now), Verdict::First { .. }));
        assert!(matches!(correlator.observe(occurrence("a", "x"), now + REFILL), Verdict::Repeat { .. }));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        for number in 0..3 * REMEMBERED {
            let at = now + Duration::from_millis(u64::try_from(number).expect("small"));
            let _ = correlator.observe(occurrence(&format!("object-{number}"), "x"), at);
        }
        assert!(correlator.buckets.len() <= REMEMBERED && correlator.similar.len() <= REMEMBERED);
    }
}
