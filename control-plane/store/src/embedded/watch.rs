//! A running watch: first what is only on disk, then the queue that the hub fills.

use std::sync::Arc;

use async_trait::async_trait;

use super::hub::Watcher;
use super::{Shared, blocking, history};
use crate::{Error, Event, Events, Range, Result, Revision};

/// Records read from disk at a time, so that a watch from far back holds little memory.
const CHUNK: usize = 2_000;
const CHUNK_BYTES: usize = 8 << 20;

/// The engine's [`Events`].
pub(crate) struct Watch {
    shared: Arc<Shared>,
    range: Range,
    stage: Stage,
}

enum Stage {
    /// Everything up to this revision was handed over; what follows is read from disk.
    CatchingUp(u64),
    Live(Arc<Watcher>),
}

impl Watch {
    /// # Errors
    /// [`Error::Compacted`], [`Error::Closed`].
    pub(crate) fn start(shared: Arc<Shared>, range: Range, from: u64) -> Result<Self> {
        shared.check_retained(from)?;
        let stage = match shared.hub.register(&range, from)? {
            Some(watcher) => Stage::Live(watcher),
            None => Stage::CatchingUp(from),
        };
        Ok(Self { shared, range, stage })
    }
}

#[async_trait]
impl Events for Watch {
    async fn next(&mut self) -> Result<(Vec<Event>, Revision)> {
        if let Stage::CatchingUp(reached) = self.stage
            && let Some(watcher) = self.shared.hub.register(&self.range, reached)?
        {
            self.stage = Stage::Live(watcher);
        }
        match &mut self.stage {
            Stage::Live(watcher) => watcher.next().await,
            Stage::CatchingUp(reached) => {
                let (from, range) = (*reached, self.range.clone());
                let until = self.shared.view.load().revision;
                let read = blocking(&self.shared, move |shared| {
                    history::changes(shared, from, until, &range, CHUNK, CHUNK_BYTES)
                })
                .await;
                let (mark, changes) = read.map_err(|error| match error {
                    Error::Compacted { .. } => Error::Lagging,
                    other => other,
                })?;
                *reached = mark;
                Ok((changes.iter().map(|change| change.event()).collect(), Revision(mark)))
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Stage::Live(watcher) = &self.stage {
            self.shared.hub.unregister(&self.range, watcher);
        }
    }
}
