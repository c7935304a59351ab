//! The embedded engine keeps the contract; with all history in memory, and with all of it read from disk.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skep_store::Store;
use skep_store::conformance::Subject;
use skep_store::embedded::{Clock, Embedded, Options};
use tempfile::TempDir;

struct Engine {
    directory: TempDir,
    options: Options,
    store: Option<Arc<Embedded>>,
}

impl Engine {
    fn open(window_bytes: usize) -> Self {
        let directory = TempDir::new().expect("a directory for the store");
        let options = Options {
            clock: Clock::manual(1_000),
            read_wait: Duration::from_millis(300),
            reserve: 0,
            window_bytes,
            ..Options::default()
        };
        let store = Arc::new(Embedded::open(directory.path(), options.clone()).expect("the store opens"));
        Self { directory, options, store: Some(store) }
    }
}

#[async_trait]
impl Subject for Engine {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("it is open between restarts")
    }

    async fn restart(&mut self) {
        let store = self.store.take().expect("it is open between restarts");
        store.close().await;
        // A task of the test that has just ended may be about to drop its store.
        let mut last = store;
        loop {
            match Arc::try_unwrap(last) {
                Ok(store) => break drop(store),
                Err(shared) => last = shared,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let store = Embedded::open(self.directory.path(), self.options.clone()).expect("the store opens again");
        self.store = Some(Arc::new(store));
    }

    async fn pass(&mut self, time: Duration) {
        self.options.clock.advance(time);
        self.store.as_ref().expect("it is open between restarts").sweep().await.expect("the sweep succeeds");
    }
}

mod with_history_in_memory {
    skep_store::conformance_suite!(super::Engine::open(64 << 20));
}

mod with_history_on_disk {
    skep_store::conformance_suite!(super::Engine::open(0));
}
