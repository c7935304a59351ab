//! Lists, pages, and reads that wait.

use super::*;
use crate::Error;

async fn letters(store: &Arc<dyn Store>, count: u8) -> Revision {
    let writes = (0..count).rev().map(|n| put(&format!("k/{}", char::from(b'a' + n)), "1"));
    let first = commit(store, writes).await;
    Revision(first.0 + u64::from(count) - 1)
}

/// Start is in, end is not.
pub async fn a_list_is_in_key_order_and_within_its_range(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, ["b/2", "a", "b/1", "b0", "b", "c"].map(|key| put(key, "x"))).await;
    let keys = |listed: Vec<(String, String)>| listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(listed(&store, &Range::prefix("b/"), At::Latest).await), ["b/1", "b/2"]);
    let range = Range { start: "b".into(), end: "b0".into() };
    assert_eq!(keys(listed(&store, &range, At::Latest).await), ["b", "b/1", "b/2"]);
    assert_eq!(keys(listed(&store, &Range::all(), At::Latest).await), ["a", "b", "b/1", "b/2", "b0", "c"]);
    assert_eq!(keys(listed(&store, &Range::prefix("x"), At::Latest).await), [""; 0]);
}

/// [`crate::Page::remaining`].
pub async fn pages_count_what_remains(subject: &mut impl Subject) {
    let store = subject.store();
    let revision = letters(&store, 7).await;
    commit(&store, [put("j", "before"), put("l", "after")]).await;
    let range = Range::prefix("k/");
    let mut after: Option<Bytes> = None;
    let mut seen = Vec::new();
    for remaining in [4, 1, 0] {
        let page = store.list(&range, At::NotBefore(revision), 3, after.as_deref()).await.expect("the list succeeds");
        assert_eq!(page.remaining, remaining);
        after = page.entries.last().map(|entry| entry.key.clone());
        seen.extend(page.entries.iter().map(|entry| text(&entry.key)));
    }
    assert_eq!(seen, ["k/a", "k/b", "k/c", "k/d", "k/e", "k/f", "k/g"]);
    let exact = store.list(&range, At::Latest, 7, None).await.expect("the list succeeds");
    assert_eq!((exact.entries.len(), exact.remaining), (7, 0));
}

/// Changes between two pages show in neither.
pub async fn pages_at_one_revision_are_one_snapshot(subject: &mut impl Subject) {
    let store = subject.store();
    letters(&store, 6).await;
    let range = Range::prefix("k/");
    let first = store.list(&range, At::Latest, 2, None).await.expect("the list succeeds");
    commit(&store, [put("k/a", "2"), delete("k/c"), put("k/d", "2"), put("k/cc", "new"), delete("k/f")]).await;
    let mut entries = first.entries;
    let mut remaining = first.remaining;
    while remaining > 0 {
        let after = entries.last().map(|entry| entry.key.clone());
        let page =
            store.list(&range, At::Exactly(first.revision), 2, after.as_deref()).await.expect("the list succeeds");
        assert_eq!(page.revision, first.revision);
        remaining = page.remaining;
        entries.extend(page.entries);
    }
    let seen: Vec<_> = entries.iter().map(|entry| (text(&entry.key), text(&entry.value))).collect();
    assert_eq!(seen, ["a", "b", "c", "d", "e", "f"].map(|key| (format!("k/{key}"), "1".to_owned())));
}

/// The key after which a page begins need not be there.
pub async fn a_page_after_a_key_that_is_gone_goes_on_behind_it(subject: &mut impl Subject) {
    let store = subject.store();
    letters(&store, 4).await;
    commit(&store, [delete("k/b")]).await;
    let page = store.list(&Range::prefix("k/"), At::Latest, 1, Some(b"k/b")).await.expect("the list succeeds");
    assert_eq!((text(&page.entries[0].key), page.remaining), ("k/c".to_owned(), 1));
}

/// [`At::NotBefore`] and [`At::Exactly`].
pub async fn a_read_at_a_future_revision_waits_for_it(subject: &mut impl Subject) {
    let store = subject.store();
    let now = commit(&store, [put("a", "1")]).await;
    let next = Revision(now.0 + 1);
    let waiting: Vec<_> = [At::NotBefore(next), At::Exactly(next)]
        .into_iter()
        .map(|at| {
            let store = store.clone();
            tokio::spawn(async move { value(&store, "a", at).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(commit(&store, [put("a", "2")]).await, next);
    for read in waiting {
        assert_eq!(read.await.expect("the read ends").as_deref(), Some("2"));
    }
}

/// The wait has an end.
pub async fn a_revision_that_does_not_come_is_in_the_future(subject: &mut impl Subject) {
    let store = subject.store();
    let now = commit(&store, [put("a", "1")]).await;
    let far = Revision(now.0 + 100);
    let read = store.get(b"a", At::NotBefore(far)).await;
    assert!(
        matches!(read, Err(Error::Future { requested, current }) if (requested, current) == (far, now)),
        "{read:?}"
    );
    let read = store.list(&Range::all(), At::Exactly(far), 0, None).await;
    assert!(matches!(read, Err(Error::Future { requested, .. }) if requested == far), "{read:?}");
}
