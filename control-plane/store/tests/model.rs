//! Random operations against a model: a map and the list of all that ever happened. A failing sequence is shrunk, and belongs here as a test then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use skep_store::embedded::{Clock, Embedded, Options};
use skep_store::{At, Batch, Condition, Error, Event, EventKind, Op, Range, Revision, Store, Write};
use tempfile::TempDir;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, Change, Expect)>),
    Get(u8, When),
    List { from: u8, to: u8, when: When, limit: usize },
    Watch { from: u8, to: u8, after: u8 },
    Compact(u8),
    Pass(u8),
    Restart,
}

#[derive(Clone, Debug)]
enum Change {
    Put(u16),
    Mortal(u16, u8),
    Delete,
}

/// A condition, by whether it will hold.
#[derive(Clone, Debug)]
enum Expect {
    Nothing,
    Absent,
    Current,
    Stale,
}

#[derive(Clone, Debug)]
enum When {
    Latest,
    /// That many 256ths of history.
    Past(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..12;
    let when = prop_oneof![Just(When::Latest), any::<u8>().prop_map(When::Past)];
    let change = prop_oneof![
        4 => any::<u16>().prop_map(Change::Put),
        1 => (any::<u16>(), 1u8..20).prop_map(|(value, ttl)| Change::Mortal(value, ttl)),
        2 => Just(Change::Delete),
    ];
    let expect = prop_oneof![
        3 => Just(Expect::Nothing),
        1 => Just(Expect::Absent),
        2 => Just(Expect::Current),
        1 => Just(Expect::Stale),
    ];
    prop_oneof![
        12 => prop::collection::vec((key.clone(), change, expect), 1..4).prop_map(Step::Commit),
        3 => (key.clone(), when.clone()).prop_map(|(key, when)| Step::Get(key, when)),
        3 => (key.clone(), key.clone(), when, 0usize..5).prop_map(|(from, to, when, limit)| Step::List { from, to, when, limit }),
        2 => (key.clone(), key, any::<u8>()).prop_map(|(from, to, after)| Step::Watch { from, to, after }),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => (1u8..10).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

fn name(key: u8) -> Bytes {
    Bytes::from(format!("k/{key:02}"))
}

fn between(from: u8, to: u8) -> Range {
    Range { start: name(from.min(to)), end: name(from.max(to)) }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    value: Bytes,
    revision: u64,
    expires: Option<u64>,
}

type State = BTreeMap<Bytes, Value>;

#[derive(Default)]
struct Model {
    /// The state at each revision from 0 on.
    states: Vec<State>,
    events: Vec<Event>,
    compacted: u64,
    now: u64,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![State::new()], ..Self::default() }
    }

    fn current(&self) -> u64 {
        self.events.len() as u64
    }

    fn latest(&self) -> &State {
        self.states.last().expect("it begins with one")
    }

    fn at(&self, share: u8) -> u64 {
        self.current() * u64::from(share) / 256
    }

    fn write(&mut self, key: Bytes, value: Option<(Bytes, Option<u64>)>) {
        let revision = self.current() + 1;
        let mut state = self.latest().clone();
        let kind = value.as_ref().map_or(EventKind::Delete, |(value, _)| EventKind::Put(value.clone()));
        let before = match value {
            Some((value, expires)) => state.insert(key.clone(), Value { value, revision, expires }),
            None => state.remove(&key),
        };
        let previous = before.map(|before| (before.value, Revision(before.revision)));
        self.events.push(Event { revision: Revision(revision), key, kind, previous });
        self.states.push(state);
    }

    fn sweep(&mut self) {
        let expired = self.latest().iter().filter_map(|(key, value)| value.expires.map(|at| (at, key.clone())));
        let mut expired: Vec<_> = expired.filter(|(at, _)| *at <= self.now).collect();
        expired.sort();
        for (_, key) in expired {
            self.write(key, None);
        }
    }
}

struct Run {
    model: Model,
    store: Option<Arc<Embedded>>,
    options: Options,
    directory: TempDir,
}

impl Run {
    fn new(window_bytes: usize) -> Self {
        // Sweeps happen when the model says so.
        let options = Options {
            clock: Clock::manual(0),
            window_bytes,
            reserve: 0,
            sweep_interval: Duration::from_secs(3_600),
            retention: Duration::from_secs(1 << 30),
            ..Options::default()
        };
        let directory = TempDir::new().expect("a directory for the store");
        let store = Embedded::open(directory.path(), options.clone()).expect("the store opens");
        Self { model: Model::new(), store: Some(Arc::new(store)), options, directory }
    }

    fn store(&self) -> &Arc<Embedded> {
        self.store.as_ref().expect("it is open between restarts")
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit(writes) => self.commit(writes).await,
            Step::Get(key, when) => self.get(key, when).await,
            Step::List { from, to, when, limit } => self.list(&between(from, to), when, limit).await,
            Step::Watch { from, to, after } => self.watch(between(from, to), after).await,
            Step::Compact(share) => {
                let before = self.model.at(share);
                self.store().compact(Revision(before)).await.expect("compaction succeeds");
                self.model.compacted = self.model.compacted.max(before);
            }
            Step::Pass(seconds) => {
                self.options.clock.advance(Duration::from_secs(u64::from(seconds)));
                self.model.now += u64::from(seconds) * 1_000;
                self.model.sweep();
                self.store().sweep().await.expect("the sweep succeeds");
            }
            Step::Restart => {
                drop(self.store.take());
                let store = Embedded::open(self.directory.path(), self.options.clone()).expect("the store opens again");
                self.store = Some(Arc::new(store));
            }
        }
    }

    async fn commit(&mut self, writes: Vec<(u8, Change, Expect)>) {
        let mut batch = Batch::default();
        let mut refused = None;
        for (key, change, expect) in writes {
            let key = name(key);
            if batch.writes.iter().any(|write: &Write| write.key == key) {
                continue;
            }
            let current = self.model.latest().get(&key).map(|value| Revision(value.revision));
            let stale = Revision(self.model.current() + 1_000);
            let (condition, holds) = match expect {
                Expect::Nothing => (Condition::None, true),
                Expect::Absent => (Condition::Absent, current.is_none()),
                Expect::Current => (Condition::At(current.unwrap_or(stale)), current.is_some()),
                Expect::Stale => (Condition::At(stale), false),
            };
            if !holds && refused.is_none() {
                refused = Some((key.clone(), current));
            }
            let op = match change {
                Change::Put(value) => Op::Put { value: value.to_string().into(), ttl: None },
                Change::Mortal(value, ttl) => {
                    Op::Put { value: value.to_string().into(), ttl: Some(Duration::from_secs(u64::from(ttl))) }
                }
                Change::Delete => Op::Delete,
            };
            batch.writes.push(Write { key, op, condition });
        }
        let outcome = self.store().commit(batch.clone()).await;
        match (refused, outcome) {
            (None, Ok(first)) => {
                assert_eq!(first.0, self.model.current() + 1);
                for write in batch.writes {
                    let now = self.model.now;
                    let value = match write.op {
                        Op::Put { value, ttl } => Some((value, ttl.map(|ttl| now + ttl.as_secs() * 1_000))),
                        Op::Delete => None,
                    };
                    self.model.write(write.key, value);
                }
            }
            (Some(expected), Err(Error::Conflict { key, current })) => assert_eq!((key, current), expected),
            (expected, outcome) => panic!("expected a refusal: {expected:?}, outcome: {outcome:?}"),
        }
    }

    fn at(&self, when: &When) -> (At, u64) {
        match when {
            When::Latest => (At::Latest, self.model.current()),
            When::Past(share) => (At::Exactly(Revision(self.model.at(*share))), self.model.at(*share)),
        }
    }

    fn is_gone(&self, revision: u64, error: &Error) -> bool {
        let oldest = Revision(self.model.compacted);
        revision < oldest.0 && matches!(error, Error::Compacted { oldest: said } if *said == oldest)
    }

    async fn get(&self, key: u8, when: When) {
        let (at, revision) = self.at(&when);
        match self.store().get(&name(key), at).await {
            Err(error) => assert!(self.is_gone(revision, &error), "{error}"),
            Ok(found) => {
                assert!(revision >= self.model.compacted);
                let expected = self.model.states[usize::try_from(revision).expect("small")].get(&name(key));
                let expected = expected.map(|value| (value.value.clone(), Revision(value.revision)));
                assert_eq!(found.map(|entry| (entry.value, entry.revision)), expected);
            }
        }
    }

    async fn list(&self, range: &Range, when: When, limit: usize) {
        let (mut at, revision) = self.at(&when);
        let expected: Vec<_> = self.model.states[usize::try_from(revision).expect("small")]
            .iter()
            .filter(|(key, _)| range.contains(key))
            .map(|(key, value)| (key.clone(), value.value.clone(), Revision(value.revision)))
            .collect();
        let mut seen = Vec::new();
        loop {
            let after = seen.last().map(|(key, _, _): &(Bytes, Bytes, Revision)| key.clone());
            let page = match self.store().list(range, at, limit, after.as_deref()).await {
                Ok(page) => page,
                Err(error) => return assert!(self.is_gone(revision, &error), "{error}"),
            };
            assert_eq!(page.revision.0, revision);
            at = At::Exactly(page.revision);
            seen.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value, entry.revision)));
            assert_eq!(seen.len() as u64 + page.remaining, expected.len() as u64);
            if page.remaining == 0 {
                break;
            }
        }
        assert_eq!(seen, expected);
    }

    async fn watch(&self, range: Range, after: u8) {
        let after = self.model.at(after);
        let mut events = match self.store().watch(range.clone(), Revision(after)).await {
            Ok(events) => events,
            Err(error) => return assert!(self.is_gone(after, &error), "{error}"),
        };
        assert!(after >= self.model.compacted);
        let mut seen = Vec::new();
        let mut mark = Revision(after);
        while mark.0 < self.model.current() {
            let (batch, reached) = events.next().await.expect("the watch goes on");
            assert!(reached > mark);
            seen.extend(batch);
            mark = reached;
        }
        let missed = self.model.events.iter().skip(usize::try_from(after).expect("small"));
        let expected: Vec<_> = missed.filter(|event| range.contains(&event.key)).cloned().collect();
        assert_eq!(seen, expected);
    }
}

fn follow(steps: Vec<Step>, window_bytes: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut run = Run::new(window_bytes);
        for step in steps {
            run.step(step).await;
        }
        run.list(&Range::all(), When::Latest, 3).await;
        run.watch(Range::all(), 0).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model_with_history_in_memory(steps in prop::collection::vec(step(), 1..80)) {
        follow(steps, 1 << 20);
    }

    #[test]
    fn behaves_like_the_model_with_most_history_on_disk(steps in prop::collection::vec(step(), 1..80)) {
        follow(steps, 1_500);
    }
}
