//! Times to live, and restarts.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn mortal(key: &str, value: &str, ttl: Duration) -> Write {
    let op = Op::Put { value: Bytes::copy_from_slice(value.as_bytes()), ttl: Some(ttl) };
    Write { op, ..put(key, value) }
}

/// Which watchers see.
pub async fn a_key_with_a_time_to_live_goes_away_as_a_delete(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [mortal("event", "1", MINUTE), put("pod", "1")]).await;
    subject.pass(MINUTE / 2).await;
    assert_eq!(value(&store, "event", At::Latest).await.as_deref(), Some("1"));
    subject.pass(MINUTE).await;
    assert_eq!(value(&store, "event", At::Latest).await, None);
    assert_eq!(value(&store, "pod", At::Latest).await.as_deref(), Some("1"));
    let mut events = store.watch(Range::all(), Revision(2)).await.expect("the watch starts");
    assert_eq!(
        told(&until(&mut events, Revision(3)).await.expect("the watch goes on")),
        ["3: event gone (was 1 of 1)"]
    );
}

/// A put without one ends it.
pub async fn writing_a_key_again_renews_its_time_to_live(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [mortal("renewed", "1", MINUTE), mortal("kept", "1", MINUTE)]).await;
    subject.pass(MINUTE / 2).await;
    commit(&store, [mortal("renewed", "2", MINUTE), put("kept", "2")]).await;
    subject.pass(MINUTE * 3 / 4).await;
    assert_eq!(value(&store, "renewed", At::Latest).await.as_deref(), Some("2"));
    subject.pass(MINUTE).await;
    assert_eq!(value(&store, "renewed", At::Latest).await, None);
    assert_eq!(value(&store, "kept", At::Latest).await.as_deref(), Some("2"));
}

/// And revisions go on.
pub async fn a_restart_keeps_values_and_revisions(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, (0..100).map(|n| put(&format!("k/{n:03}"), &n.to_string()))).await;
    commit(&store, (0..100).step_by(3).map(|n| delete(&format!("k/{n:03}")))).await;
    let last = commit(&store, [put("k/001", "new")]).await;
    let before = store.list(&Range::all(), At::Latest, 0, None).await.expect("the list succeeds");
    drop(store);
    subject.restart().await;
    let store = subject.store();
    let after = store.list(&Range::all(), At::Latest, 0, None).await.expect("the list succeeds");
    assert_eq!((after.entries, after.revision), (before.entries, before.revision));
    assert_eq!(commit(&store, [put("z", "1")]).await, Revision(last.0 + 1));
}

/// Reads at revisions before it.
pub async fn a_restart_keeps_history(subject: &mut impl Subject) {
    let store = subject.store();
    let first = commit(&store, [put("a", "1"), put("b", "1")]).await;
    commit(&store, [put("a", "2"), delete("b")]).await;
    drop(store);
    subject.restart().await;
    let store = subject.store();
    commit(&store, [put("a", "3")]).await;
    let then = At::Exactly(Revision(first.0 + 1));
    let expected = [("a", "1"), ("b", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(listed(&store, &Range::all(), then).await, expected);
    assert_eq!(value(&store, "a", then).await.as_deref(), Some("1"));
}

/// With the values before, which may be from before the restart too.
pub async fn a_watch_goes_on_where_it_was_before_a_restart(subject: &mut impl Subject) {
    let store = subject.store();
    let from = commit(&store, [put("a", "1")]).await;
    commit(&store, [put("a", "2"), put("b", "1")]).await;
    drop(store);
    subject.restart().await;
    let store = subject.store();
    let mut events = store.watch(Range::all(), from).await.expect("the watch starts");
    let last = commit(&store, [delete("a")]).await;
    let seen = until(&mut events, last).await.expect("the watch goes on");
    assert_eq!(told(&seen), ["2: a=2 (was 1 of 1)", "3: b=1", "4: a gone (was 2 of 2)"]);
}

/// What was forgotten stays forgotten.
pub async fn a_restart_keeps_the_compacted_revision(subject: &mut impl Subject) {
    let store = subject.store();
    for n in 1..=5 {
        commit(&store, [put("a", &n.to_string())]).await;
    }
    store.compact(Revision(4)).await.expect("compaction succeeds");
    commit(&store, [put("b", "1")]).await;
    drop(store);
    subject.restart().await;
    let store = subject.store();
    let refused = store.get(b"a", At::Exactly(Revision(3))).await;
    assert!(matches!(refused, Err(crate::Error::Compacted { oldest: Revision(4) })), "{refused:?}");
    assert_eq!(value(&store, "a", At::Exactly(Revision(4))).await.as_deref(), Some("4"));
}

/// Counted from the commit, not from the restart.
pub async fn a_restart_keeps_times_to_live(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [mortal("event", "1", MINUTE)]).await;
    subject.pass(MINUTE / 2).await;
    drop(store);
    subject.restart().await;
    subject.pass(MINUTE * 3 / 4).await;
    assert_eq!(value(&subject.store(), "event", At::Latest).await, None);
}
