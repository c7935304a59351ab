//! What every engine must do: one function a behaviour, each on a fresh store. [`conformance_suite!`](crate::conformance_suite) makes them the tests
//! of an engine.
//!
//! Invariant: only the contract is used, never an engine's own methods; what the contract leaves to the engine (restarting it, letting time pass) is
//! [`Subject`]'s.

mod history;
mod lifetime;
mod reads;
mod watches;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::history::*;
pub use self::lifetime::*;
pub use self::reads::*;
pub use self::watches::*;
pub use self::writes::*;
use crate::{At, Batch, Condition, Entry, Event, Events, Op, Range, Result, Revision, Store, Write};

/// An engine under test, on a store of its own that begins empty.
#[async_trait]
pub trait Subject: Send {
    /// The running store.
    fn store(&self) -> Arc<dyn Store>;

    /// Stops the store and starts it again on the same data. The caller has dropped what it got from [`Subject::store`].
    async fn restart(&mut self);

    /// Lets time pass for times to live, and has what expired by then deleted.
    async fn pass(&mut self, time: Duration);
}

/// Makes a test of every behaviour. The expression is evaluated once a test and gives a [`Subject`].
#[macro_export]
macro_rules! conformance_suite {
    ($subject:expr) => {
        $crate::conformance_suite!(@ $subject =>
            a_value_is_read_back_with_the_revision_of_its_write
            an_empty_value_is_a_value
            a_key_may_hold_any_bytes
            the_writes_of_a_batch_take_consecutive_revisions
            a_batch_with_a_failing_condition_writes_nothing
            an_empty_batch_changes_nothing
            creating_a_key_that_exists_is_a_conflict_that_names_its_revision
            updating_at_an_old_revision_is_a_conflict_that_names_the_new_one
            updating_a_key_that_is_gone_is_a_conflict_without_a_revision
            a_deleted_key_can_be_created_again
            deleting_a_missing_key_takes_a_revision
            a_batch_that_names_a_key_twice_is_refused
            a_key_over_the_limit_is_refused
            concurrent_increments_are_never_lost
            the_current_revision_covers_every_acknowledged_commit
            a_list_is_in_key_order_and_within_its_range
            pages_count_what_remains
            pages_at_one_revision_are_one_snapshot
            a_page_after_a_key_that_is_gone_goes_on_behind_it
            a_read_at_a_future_revision_waits_for_it
            a_revision_that_does_not_come_is_in_the_future
            an_old_revision_shows_what_was_there
            a_key_can_be_read_at_each_of_its_revisions
            compaction_ends_reads_before_it_and_keeps_those_from_it_on
            compaction_keeps_every_latest_value
            compacting_the_future_is_refused
            a_watch_sees_every_change_once_in_order_with_the_value_before
            a_watch_from_the_past_begins_with_what_it_missed
            a_watch_sees_only_its_range
            a_watch_from_a_future_revision_begins_after_it
            a_quiet_watch_hears_how_far_the_store_is
            a_watch_from_before_the_compaction_is_refused
            a_cancelled_wait_loses_no_change
            watches_of_one_range_do_not_take_from_each_other
            a_key_with_a_time_to_live_goes_away_as_a_delete
            writing_a_key_again_renews_its_time_to_live
            a_restart_keeps_values_and_revisions
            a_restart_keeps_history
            a_watch_goes_on_where_it_was_before_a_restart
            a_restart_keeps_the_compacted_revision
            a_restart_keeps_times_to_live
        );
    };
    (@ $subject:expr => $($behaviour:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let mut subject = $subject;
                $crate::conformance::$behaviour(&mut subject).await;
            }
        )*
    };
}

/// Sets a key, whatever it holds.
#[must_use]
pub fn put(key: &str, value: &str) -> Write {
    let op = Op::Put { value: Bytes::copy_from_slice(value.as_bytes()), ttl: None };
    Write { key: Bytes::copy_from_slice(key.as_bytes()), op, condition: Condition::None }
}

/// Removes a key, whatever it holds.
#[must_use]
pub fn delete(key: &str) -> Write {
    Write { op: Op::Delete, ..put(key, "") }
}

/// The same write under a condition.
#[must_use]
pub fn only_if(condition: Condition, write: Write) -> Write {
    Write { condition, ..write }
}

async fn commit(store: &Arc<dyn Store>, writes: impl IntoIterator<Item = Write>) -> Revision {
    store.commit(Batch { writes: writes.into_iter().collect() }).await.expect("the commit succeeds")
}

async fn value(store: &Arc<dyn Store>, key: &str, at: At) -> Option<String> {
    store.get(key.as_bytes(), at).await.expect("the read succeeds").map(|entry| text(&entry.value))
}

async fn listed(store: &Arc<dyn Store>, range: &Range, at: At) -> Vec<(String, String)> {
    let page = store.list(range, at, 0, None).await.expect("the list succeeds");
    page.entries.iter().map(|entry: &Entry| (text(&entry.key), text(&entry.value))).collect()
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything that a watch delivers up to and with a revision.
async fn until(events: &mut Box<dyn Events>, revision: Revision) -> Result<Vec<Event>> {
    let mut seen = Vec::new();
    loop {
        let (batch, mark) = events.next().await?;
        seen.extend(batch);
        if mark >= revision {
            return Ok(seen);
        }
    }
}

/// `key=value` or `key gone`, with the value before in brackets.
fn told(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| {
        let now = match &event.kind {
            crate::EventKind::Put(value) => format!("{}={}", text(&event.key), text(value)),
            crate::EventKind::Delete => format!("{} gone", text(&event.key)),
        };
        match &event.previous {
            Some((value, revision)) => format!("{}: {now} (was {} of {revision})", event.revision, text(value)),
            None => format!("{}: {now}", event.revision),
        }
    };
    events.iter().map(one).collect()
}
