//! Clients and the server each on a processor of its own, where there are two: else the scheduler's mood is measured.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Moves the calling thread to the first processor that this process may use.
pub(crate) fn to_first() {
    to(|allowed| (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)));
}

/// Moves the calling thread to the last one.
pub(crate) fn to_last() {
    to(|allowed| (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)));
}

/// A thread that can't be moved stays where it is: it measures as well, less evenly.
fn to(choose: impl FnOnce(&CpuSet) -> Option<usize>) {
    if let Some(cpu) = sched_getaffinity(None).ok().and_then(|allowed| choose(&allowed)) {
        let mut one = CpuSet::new();
        one.set(cpu);
        let _ = sched_setaffinity(None, &one);
    }
}
