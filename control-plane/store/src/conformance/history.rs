//! Reads at old revisions, and compaction.

use super::*;
use crate::Error;

/// Overwritten, deleted and later keys, each as it was.
pub async fn an_old_revision_shows_what_was_there(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [put("changed", "old"), put("deleted", "old"), put("same", "old")]).await;
    let then = commit(&store, [put("mark", "x")]).await;
    commit(&store, [put("changed", "new"), delete("deleted"), put("later", "new")]).await;
    commit(&store, [put("changed", "newer"), put("deleted", "again"), delete("later")]).await;
    let expected = [("changed", "old"), ("deleted", "old"), ("mark", "x"), ("same", "old")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(listed(&store, &Range::all(), At::Exactly(then)).await, expected);
    assert_eq!(value(&store, "deleted", At::Exactly(then)).await.as_deref(), Some("old"));
    assert_eq!(value(&store, "later", At::Exactly(then)).await, None);
    assert_eq!(listed(&store, &Range::all(), At::Exactly(Revision(0))).await, []);
}

/// With the revision that the value had then.
pub async fn a_key_can_be_read_at_each_of_its_revisions(subject: &mut impl Subject) {
    let store = subject.store();
    let mut written = Vec::new();
    for n in 0..10 {
        written.push((commit(&store, [put("a", &n.to_string())]).await, n));
        commit(&store, [put("b", "x")]).await;
    }
    for (revision, n) in written {
        for at in [revision, Revision(revision.0 + 1)] {
            let entry = store.get(b"a", At::Exactly(at)).await.expect("the read succeeds").expect("the key is there");
            assert_eq!((entry.revision, text(&entry.value)), (revision, n.to_string()));
        }
    }
}

/// [`Error::Compacted`] says where reads are still possible.
pub async fn compaction_ends_reads_before_it_and_keeps_those_from_it_on(subject: &mut impl Subject) {
    let store = subject.store();
    let first = commit(&store, [put("a", "1")]).await;
    let second = commit(&store, [put("a", "2")]).await;
    let third = commit(&store, [put("a", "3")]).await;
    store.compact(second).await.expect("compaction succeeds");
    let read = store.get(b"a", At::Exactly(first)).await;
    assert!(matches!(read, Err(Error::Compacted { oldest }) if oldest == second), "{read:?}");
    let read = store.list(&Range::all(), At::Exactly(first), 0, None).await;
    assert!(matches!(read, Err(Error::Compacted { oldest }) if oldest == second), "{read:?}");
    assert_eq!(value(&store, "a", At::Exactly(second)).await.as_deref(), Some("2"));
    assert_eq!(value(&store, "a", At::Exactly(third)).await.as_deref(), Some("3"));
    assert_eq!(value(&store, "a", At::NotBefore(first)).await.as_deref(), Some("3"));
}

/// Even of keys that were never written again.
pub async fn compaction_keeps_every_latest_value(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [put("old", "1"), put("a", "1"), put("gone", "1")]).await;
    commit(&store, [delete("gone")]).await;
    let last = commit(&store, [put("a", "2")]).await;
    store.compact(last).await.expect("compaction succeeds");
    let expected = [("a", "2"), ("old", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(listed(&store, &Range::all(), At::Latest).await, expected);
    drop(store);
    subject.restart().await;
    assert_eq!(listed(&subject.store(), &Range::all(), At::Latest).await, expected);
    assert_eq!(commit(&subject.store(), [put("b", "1")]).await, Revision(last.0 + 1));
}

/// And changes nothing.
pub async fn compacting_the_future_is_refused(subject: &mut impl Subject) {
    let store = subject.store();
    let now = commit(&store, [put("a", "1")]).await;
    let refused = store.compact(Revision(now.0 + 1)).await;
    assert!(matches!(refused, Err(Error::Future { current, .. }) if current == now), "{refused:?}");
    assert_eq!(value(&store, "a", At::Exactly(now)).await.as_deref(), Some("1"));
}
