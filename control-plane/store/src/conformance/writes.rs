//! Commits and their conditions.

use super::*;
use crate::Error;

/// A get after a commit gives the value and the revision that the commit returned.
pub async fn a_value_is_read_back_with_the_revision_of_its_write(subject: &mut impl Subject) {
    let store = subject.store();
    let revision = commit(&store, [put("a", "1")]).await;
    let entry = store.get(b"a", At::Latest).await.expect("the read succeeds").expect("the key is there");
    assert_eq!((entry.revision, text(&entry.key), text(&entry.value)), (revision, "a".to_owned(), "1".to_owned()));
    assert_eq!(value(&store, "b", At::Latest).await, None);
}

/// An empty value differs from none.
pub async fn an_empty_value_is_a_value(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [put("a", "")]).await;
    assert_eq!(value(&store, "a", At::Latest).await.as_deref(), Some(""));
    drop(store);
    subject.restart().await;
    assert_eq!(value(&subject.store(), "a", At::Latest).await.as_deref(), Some(""));
}

/// Keys are bytes, with zeros and high bits too, and sort as bytes.
pub async fn a_key_may_hold_any_bytes(subject: &mut impl Subject) {
    let store = subject.store();
    let keys: [&[u8]; 4] = [&[0], &[0, 0], &[0x7f], &[0xff, 0xff]];
    for key in keys {
        commit(&store, [Write { key: Bytes::from_static(key), ..put("", "x") }]).await;
    }
    let page = store.list(&Range::all(), At::Latest, 0, None).await.expect("the list succeeds");
    assert_eq!(page.entries.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), keys);
    let page = store.list(&Range::prefix(&[0xff_u8][..]), At::Latest, 0, None).await.expect("the list succeeds");
    assert_eq!(page.entries.len(), 1);
}

/// The i-th write has revision `first + i`, and the next batch goes on from there.
pub async fn the_writes_of_a_batch_take_consecutive_revisions(subject: &mut impl Subject) {
    let store = subject.store();
    let first = commit(&store, [put("c", "1"), put("a", "2"), delete("b")]).await;
    let second = commit(&store, [put("d", "3")]).await;
    assert_eq!(second, Revision(first.0 + 3));
    for (at, key) in ["c", "a"].into_iter().enumerate() {
        let entry = store.get(key.as_bytes(), At::Latest).await.expect("the read succeeds").expect("the key is there");
        assert_eq!(entry.revision, Revision(first.0 + at as u64));
    }
}

/// All or nothing.
pub async fn a_batch_with_a_failing_condition_writes_nothing(subject: &mut impl Subject) {
    let store = subject.store();
    let revision = commit(&store, [put("b", "1")]).await;
    let batch = Batch { writes: vec![put("a", "2"), only_if(Condition::Absent, put("b", "2")), put("c", "2")] };
    assert!(matches!(store.commit(batch).await, Err(Error::Conflict { .. })));
    assert_eq!(listed(&store, &Range::all(), At::Latest).await, [("b".to_owned(), "1".to_owned())]);
    assert_eq!(store.current(&Range::all()).await.expect("the store is there"), revision);
}

/// It succeeds, and takes no revision.
pub async fn an_empty_batch_changes_nothing(subject: &mut impl Subject) {
    let store = subject.store();
    let revision = commit(&store, [put("a", "1")]).await;
    assert_eq!(commit(&store, []).await, revision);
    assert_eq!(store.current(&Range::all()).await.expect("the store is there"), revision);
}

/// [`Condition::Absent`].
pub async fn creating_a_key_that_exists_is_a_conflict_that_names_its_revision(subject: &mut impl Subject) {
    let store = subject.store();
    let revision = commit(&store, [only_if(Condition::Absent, put("a", "1"))]).await;
    let refused = store.commit(only_if(Condition::Absent, put("a", "2")).into()).await;
    let Err(Error::Conflict { key, current }) = refused else { panic!("{refused:?}") };
    assert_eq!((text(&key), current), ("a".to_owned(), Some(revision)));
    assert_eq!(value(&store, "a", At::Latest).await.as_deref(), Some("1"));
}

/// [`Condition::At`].
pub async fn updating_at_an_old_revision_is_a_conflict_that_names_the_new_one(subject: &mut impl Subject) {
    let store = subject.store();
    let old = commit(&store, [put("a", "1")]).await;
    let new = commit(&store, [only_if(Condition::At(old), put("a", "2"))]).await;
    for write in [put("a", "3"), delete("a")] {
        let refused = store.commit(only_if(Condition::At(old), write).into()).await;
        assert!(matches!(refused, Err(Error::Conflict { current, .. }) if current == Some(new)), "{refused:?}");
    }
    assert_eq!(value(&store, "a", At::Latest).await.as_deref(), Some("2"));
}

/// [`Condition::At`] of a deleted key.
pub async fn updating_a_key_that_is_gone_is_a_conflict_without_a_revision(subject: &mut impl Subject) {
    let store = subject.store();
    let revision = commit(&store, [put("a", "1")]).await;
    commit(&store, [only_if(Condition::At(revision), delete("a"))]).await;
    let refused = store.commit(only_if(Condition::At(revision), put("a", "2")).into()).await;
    assert!(matches!(refused, Err(Error::Conflict { current: None, .. })), "{refused:?}");
}

/// [`Condition::Absent`] holds again after a delete.
pub async fn a_deleted_key_can_be_created_again(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [put("a", "1")]).await;
    commit(&store, [delete("a")]).await;
    assert_eq!(value(&store, "a", At::Latest).await, None);
    commit(&store, [only_if(Condition::Absent, put("a", "2"))]).await;
    assert_eq!(value(&store, "a", At::Latest).await.as_deref(), Some("2"));
}

/// As [`Op::Delete`] says.
pub async fn deleting_a_missing_key_takes_a_revision(subject: &mut impl Subject) {
    let store = subject.store();
    let before = commit(&store, [put("a", "1")]).await;
    let revision = commit(&store, [delete("b")]).await;
    assert_eq!(revision, Revision(before.0 + 1));
    let mut events = store.watch(Range::all(), before).await.expect("the watch starts");
    assert_eq!(told(&until(&mut events, revision).await.expect("the watch goes on")), [format!("{revision}: b gone")]);
}

/// Which of them would win is not said, so neither does.
pub async fn a_batch_that_names_a_key_twice_is_refused(subject: &mut impl Subject) {
    let store = subject.store();
    let batch = Batch { writes: vec![put("a", "1"), put("b", "1"), put("a", "2")] };
    assert!(store.commit(batch).await.is_err());
    assert!(listed(&store, &Range::all(), At::Latest).await.is_empty());
}

/// 4 KiB.
pub async fn a_key_over_the_limit_is_refused(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [put(&"k".repeat(4096), "1")]).await;
    let refused = store.commit(put(&"k".repeat(4097), "1").into()).await;
    assert!(matches!(refused, Err(Error::TooLarge { what: "key", size: 4097, limit: 4096 })), "{refused:?}");
}

/// Read, add one, write at the revision that was read; again on a conflict.
pub async fn concurrent_increments_are_never_lost(subject: &mut impl Subject) {
    const TASKS: usize = 8;
    const INCREMENTS: usize = 25;
    let store = subject.store();
    commit(&store, [put("n", "0")]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..INCREMENTS {
                loop {
                    let entry =
                        store.get(b"n", At::Latest).await.expect("the read succeeds").expect("the key is there");
                    let number: usize = text(&entry.value).parse().expect("a number was written");
                    let write = only_if(Condition::At(entry.revision), put("n", &(number + 1).to_string()));
                    match store.commit(write.into()).await {
                        Ok(_) => break,
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no increment fails");
    }
    assert_eq!(value(&store, "n", At::Latest).await, Some((TASKS * INCREMENTS).to_string()));
}

/// [`Store::current`].
pub async fn the_current_revision_covers_every_acknowledged_commit(subject: &mut impl Subject) {
    let store = subject.store();
    for n in 0..20 {
        let revision = commit(&store, [put("a", &n.to_string()), put("b", "x")]).await;
        let current = store.current(&Range::prefix("a")).await.expect("the store is there");
        assert_eq!(current, Revision(revision.0 + 1));
    }
}
