//! Backup, restore, verify and stats of the embedded engine.

use std::fs;
use std::path::Path;

use skep_store::conformance::{delete, put};
use skep_store::embedded::{Embedded, Options};
use skep_store::{At, Batch, Entry, Error, Range, Revision, Store, maintenance};
use tempfile::TempDir;

fn options() -> Options {
    Options { reserve: 0, ..Options::default() }
}

async fn filled(directory: &Path) -> Embedded {
    let store = Embedded::open(directory, options()).expect("the store opens");
    for n in 0..20 {
        let writes = (0..50).map(|key| put(&format!("k/{key}"), &format!("{n}"))).collect();
        store.commit(Batch { writes }).await.expect("the commit succeeds");
    }
    store.commit(delete("k/7").into()).await.expect("the commit succeeds");
    store
}

async fn entries(store: &Embedded) -> Vec<Entry> {
    store.list(&Range::all(), At::Latest, 0, None).await.expect("the list succeeds").entries
}

#[tokio::test]
async fn a_restored_backup_has_the_values_revisions_and_goes_on() {
    let place = TempDir::new().expect("a directory");
    let store = filled(&place.path().join("store")).await;
    let file = place.path().join("backup");
    let summary = maintenance::backup(&store, &file).expect("the backup succeeds");
    assert_eq!((summary.revision, summary.keys), (Revision(1001), 49));
    assert_eq!(summary.bytes, fs::metadata(&file).expect("the file is there").len());
    assert_eq!(maintenance::check_backup(&file).expect("the backup is right"), summary);

    let restored = place.path().join("restored");
    assert_eq!(maintenance::restore(&file, &restored).expect("restoring succeeds"), summary);
    let again = Embedded::open(&restored, options()).expect("the restored store opens");
    assert_eq!(entries(&again).await, entries(&store).await);
    assert_eq!(again.commit(put("new", "1").into()).await.expect("the commit succeeds"), Revision(1002));
    let before = again.get(b"k/1", At::Exactly(Revision(900))).await;
    assert!(matches!(before, Err(Error::Compacted { oldest: Revision(1001) })), "{before:?}");
}

#[tokio::test]
async fn a_backup_damaged_anywhere_is_refused_and_makes_no_store() {
    let place = TempDir::new().expect("a directory");
    let store = filled(&place.path().join("store")).await;
    let file = place.path().join("backup");
    maintenance::backup(&store, &file).expect("the backup succeeds");
    let whole = fs::read(&file).expect("the backup can be read");
    let restored = place.path().join("restored");
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, &damaged).expect("the file can be written");
        let refused = maintenance::restore(&file, &restored);
        assert!(matches!(refused, Err(Error::Corrupt { .. } | Error::Format { .. })), "byte {at}: {refused:?}");
    }
    for len in (0..whole.len()).step_by(31) {
        fs::write(&file, &whole[..len]).expect("the file can be written");
        let refused = maintenance::restore(&file, &restored);
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "cut to {len}: {refused:?}");
    }
    assert!(!restored.exists());
}

#[tokio::test]
async fn a_backup_replaces_no_file_and_a_restore_no_directory() {
    let place = TempDir::new().expect("a directory");
    let directory = place.path().join("store");
    let store = filled(&directory).await;
    let file = place.path().join("backup");
    maintenance::backup(&store, &file).expect("the backup succeeds");
    assert!(matches!(maintenance::backup(&store, &file), Err(Error::Io { .. })));
    assert!(matches!(maintenance::restore(&file, &directory), Err(Error::Io { .. })));
}

#[tokio::test]
async fn verify_counts_what_it_read_of_a_closed_store() {
    let place = TempDir::new().expect("a directory");
    let store = filled(place.path()).await;
    assert!(matches!(maintenance::verify(place.path()), Err(Error::Locked(_))));
    store.compact(Revision(1000)).await.expect("compaction succeeds");
    store.close().await;
    drop(store);
    let verified = maintenance::verify(place.path()).expect("the store is right");
    let expected = maintenance::Verified { revision: Revision(1001), oldest: Revision(1000), keys: 49, records: 51 };
    assert_eq!(verified, expected);
    let stats = maintenance::stats(place.path()).expect("the store is right");
    assert_eq!((stats.revision, stats.oldest, stats.keys), (Revision(1001), Revision(1000), 49));
}

#[tokio::test]
async fn where_there_is_no_store_none_is_made() {
    let place = TempDir::new().expect("a directory");
    assert!(matches!(maintenance::verify(place.path()), Err(Error::Io { .. })));
    assert!(matches!(maintenance::stats(place.path()), Err(Error::Io { .. })));
    assert_eq!(fs::read_dir(place.path()).expect("the directory is there").count(), 0);
}

#[tokio::test]
async fn a_newer_format_is_refused_by_name() {
    let place = TempDir::new().expect("a directory");
    drop(filled(place.path()).await);
    fs::write(place.path().join("format"), "skep-store 2\n").expect("the header can be written");
    let refused = Embedded::open(place.path(), options()).err();
    assert!(matches!(refused, Some(Error::Format { found: 2, known: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let place = TempDir::new().expect("a directory");
    let _store = filled(place.path()).await;
    let refused = Embedded::open(place.path(), options()).err();
    assert!(matches!(refused, Some(Error::Locked(_))), "{refused:?}");
}
