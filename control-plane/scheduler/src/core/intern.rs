//! Numbers for strings and other values that many nodes share, so that columns hold integers.
//!
//! Invariant: a value's number never changes and numbers are dense from 0. Values are never given back: their count is that
//! of distinct values ever seen, which the cluster's nodes bound.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// A table of distinct values.
#[derive(Clone, Debug)]
pub(crate) struct Interner<T> {
    ids: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// The number of a value, given now if it is new.
    pub(crate) fn intern<Q>(&mut self, value: &Q) -> u32
    where
        T: Borrow<Q> + for<'a> From<&'a Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(id) = self.ids.get(value) {
            return *id;
        }
        // 2^32 distinct labels don't fit into the memory of one process.
        let id = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let owned = T::from(value);
        self.values.push(owned.clone());
        self.ids.insert(owned, id);
        id
    }

    /// The number of a value that was seen.
    pub(crate) fn get<Q>(&self, value: &Q) -> Option<u32>
    where
        T: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.ids.get(value).copied()
    }

    /// The value of a number.
    pub(crate) fn value(&self, id: u32) -> Option<&T> {
        self.values.get(id as usize)
    }

    /// All values in the order of their numbers.
    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }
}
