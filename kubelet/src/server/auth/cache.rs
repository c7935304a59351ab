//! Verdicts that hold for a while. Time comes in as an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use parking_lot::Mutex;

/// A map whose entries expire, of at most a number of entries.
pub(super) struct Cache<K, V> {
    limit: usize,
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// An empty one for `limit` entries.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::new(HashMap::new()) }
    }

    /// What is known and still holds.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock();
        entries.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
    }

    /// Keeps `value` until `until`. In a full cache the entry nearest to its end makes room; the expired ones are the nearest of all.
    pub(super) fn put(&self, key: K, value: V, until: Instant) {
        let mut entries = self.entries.lock();
        if entries.len() >= self.limit && !entries.contains_key(&key) {
            let first = entries.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            if let Some(first) = first {
                entries.remove(&first);
            }
        }
        entries.insert(key, (value, until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_holds_until_its_time() {
        let (cache, now) = (Cache::new(2), Instant::now());
        cache.put("a", 1, now + Duration::from_secs(1));
        assert_eq!(cache.get(&"a", now), Some(1));
        assert_eq!(cache.get(&"a", now + Duration::from_secs(1)), None);
    }

    #[test]
    fn a_full_cache_forgets_what_expires_first() {
        let (cache, now) = (Cache::new(2), Instant::now());
        for (key, seconds) in [("a", 2), ("b", 1), ("c", 3)] {
            cache.put(key, seconds, now + Duration::from_secs(seconds));
        }
        assert_eq!((cache.get(&"a", now), cache.get(&"b", now), cache.get(&"c", now)), (Some(2), None, Some(3)));
    }
}
