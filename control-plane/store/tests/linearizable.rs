//! Concurrent histories of registers are linearizable: there is one order of all operations that keeps their times and explains every answer.
//!
//! The checker is Wing and Gong's search with Lowe's memoisation (as porcupine does it): take, of the operations that may come next, one whose answer fits
//! the state; come back when stuck; never look at the same set of done operations and state twice. Keys are independent, so each is checked alone.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use skep_store::conformance::{delete, only_if, put};
use skep_store::embedded::{Embedded, Options};
use skep_store::{At, Condition, Error, Revision, Store};
use tempfile::TempDir;

/// A register holds a number under a revision, or nothing.
type Register = Option<(u64, u64)>;

#[derive(Clone, Debug)]
enum Operation {
    Read(Register),
    /// The number, the condition, and the revision that it got; `None` when the condition did not hold, with what was there.
    Write {
        value: Option<u64>,
        condition: Condition,
        outcome: Outcome,
    },
}

#[derive(Clone, Debug)]
enum Outcome {
    Done(u64),
    Conflict(Option<u64>),
    /// Nobody knows: it may have happened at any time after its call, or never.
    Unknown,
}

#[derive(Clone, Debug)]
struct Call {
    begun: u64,
    /// After every other call, when the outcome is not known.
    ended: u64,
    operation: Operation,
}

/// The state after an operation, if its answer fits the state before. An unknown write takes a revision that no answer named.
fn apply(operation: &Operation, state: Register) -> Option<Register> {
    match operation {
        Operation::Read(seen) => (*seen == state).then_some(state),
        Operation::Write { value, condition, outcome } => {
            let current = state.map(|(_, revision)| revision);
            let holds = match condition {
                Condition::None => true,
                Condition::Absent => current.is_none(),
                Condition::At(revision) => current == Some(revision.0),
            };
            match outcome {
                Outcome::Done(revision) => holds.then_some(value.map(|value| (value, *revision))),
                Outcome::Conflict(seen) => (!holds && *seen == current).then_some(state),
                Outcome::Unknown => Some(if holds { value.map(|value| (value, u64::MAX)) } else { state }),
            }
        }
    }
}

/// Whether one order explains the history. Unknown writes need not be in it.
fn is_linearizable(history: &[Call]) -> bool {
    let mut seen = HashSet::new();
    let done = vec![0_u64; history.len().div_ceil(64)];
    search(history, done, None, &mut seen)
}

fn search(history: &[Call], done: Vec<u64>, state: Register, seen: &mut HashSet<(Vec<u64>, Register)>) -> bool {
    // An explicit stack: histories are longer than a thread's.
    let mut stack = vec![(done, state)];
    while let Some((done, state)) = stack.pop() {
        let open = |at: usize| done[at / 64] & (1 << (at % 64)) == 0;
        let left = (0..history.len()).filter(|at| open(*at));
        let answered = |call: &Call| !matches!(call.operation, Operation::Write { outcome: Outcome::Unknown, .. });
        if left.clone().all(|at| !answered(&history[at])) {
            return true;
        }
        if !seen.insert((done.clone(), state)) {
            continue;
        }
        // Nothing may come before what had ended when it began.
        let first_end = left.clone().map(|at| history[at].ended).min().unwrap_or(u64::MAX);
        for at in left.filter(|at| history[*at].begun < first_end) {
            if let Some(next) = apply(&history[at].operation, state) {
                let mut done = done.clone();
                done[at / 64] |= 1 << (at % 64);
                stack.push((done, next));
            }
        }
    }
    false
}

async fn record(store: Arc<Embedded>, time: Arc<AtomicU64>, key: String, seed: u64, calls: usize) -> Vec<Call> {
    let mut random = seed;
    let mut known: Register = None;
    let mut history = Vec::new();
    for n in 0..calls {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = seed * 1_000 + n as u64;
        let condition = match (random >> 40) % 4 {
            0 => Condition::None,
            1 => Condition::Absent,
            _ => known.map_or(Condition::Absent, |(_, revision)| Condition::At(Revision(revision))),
        };
        let begun = time.fetch_add(1, Ordering::SeqCst);
        let operation = match (random >> 33) % 8 {
            0..=3 => {
                let at = if (random >> 50).is_multiple_of(2) { At::Latest } else { At::NotBefore(Revision(0)) };
                let entry = store.get(key.as_bytes(), at).await.expect("the read succeeds");
                known = entry.map(|entry| {
                    let text = std::str::from_utf8(&entry.value).expect("a number was written");
                    (text.parse().expect("a number was written"), entry.revision.0)
                });
                Operation::Read(known)
            }
            kind => {
                let (value, write) =
                    if kind == 4 { (None, delete(&key)) } else { (Some(value), put(&key, &value.to_string())) };
                let outcome = match store.commit(only_if(condition, write).into()).await {
                    Ok(revision) => Outcome::Done(revision.0),
                    Err(Error::Conflict { current, .. }) => Outcome::Conflict(current.map(|revision| revision.0)),
                    Err(error) => panic!("{error}"),
                };
                Operation::Write { value, condition, outcome }
            }
        };
        history.push(Call { begun, ended: time.fetch_add(1, Ordering::SeqCst), operation });
    }
    history
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_reads_and_writes_of_a_register_are_linearizable() {
    const CLIENTS: u64 = 6;
    let directory = TempDir::new().expect("a directory for the store");
    let store =
        Embedded::open(directory.path(), Options { reserve: 0, ..Options::default() }).expect("the store opens");
    let store = Arc::new(store);
    for register in 0..20 {
        let time = Arc::new(AtomicU64::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let seed = register * CLIENTS + client + 1;
            clients.spawn(record(store.clone(), time.clone(), format!("register/{register}"), seed, 40));
        }
        let history: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
        assert!(is_linearizable(&history), "{history:#?}");
    }
}

fn read(begun: u64, ended: u64, seen: Register) -> Call {
    Call { begun, ended, operation: Operation::Read(seen) }
}

fn write(begun: u64, ended: u64, value: u64, outcome: Outcome) -> Call {
    Call { begun, ended, operation: Operation::Write { value: Some(value), condition: Condition::None, outcome } }
}

#[test]
fn the_checker_takes_overlapping_operations_in_either_order() {
    let history = [write(0, 10, 1, Outcome::Done(1)), read(2, 3, None), read(4, 5, Some((1, 1)))];
    assert!(is_linearizable(&history));
}

#[test]
fn the_checker_refuses_a_stale_read() {
    let history = [write(0, 1, 1, Outcome::Done(1)), read(2, 3, None)];
    assert!(!is_linearizable(&history));
}

#[test]
fn the_checker_refuses_a_value_that_is_seen_and_then_not() {
    let history = [write(0, 10, 1, Outcome::Done(1)), read(2, 3, Some((1, 1))), read(4, 5, None)];
    assert!(!is_linearizable(&history));
}

#[test]
fn the_checker_refuses_two_creations_of_one_key() {
    let create = |begun, ended, revision| Call {
        begun,
        ended,
        operation: Operation::Write { value: Some(1), condition: Condition::Absent, outcome: Outcome::Done(revision) },
    };
    assert!(!is_linearizable(&[create(0, 3, 1), create(1, 2, 2)]));
}

#[test]
fn the_checker_lets_an_unknown_write_happen_late_or_never() {
    let unknown = write(0, u64::MAX, 1, Outcome::Unknown);
    assert!(is_linearizable(&[unknown.clone(), read(2, 3, None), read(4, 5, Some((1, u64::MAX)))]));
    assert!(is_linearizable(&[unknown.clone(), read(2, 3, None)]));
    assert!(!is_linearizable(&[unknown, read(2, 3, Some((1, u64::MAX))), read(4, 5, None)]));
}
