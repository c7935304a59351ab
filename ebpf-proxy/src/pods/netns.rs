//! Work in another network namespace: a thread of its own enters it, runs the work with a netlink socket there, and ends.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rtnetlink::Handle;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::PodError;

/// Runs `work` in the namespace at `path`.
pub(crate) async fn within<T, W>(path: &Path, work: W) -> Result<T, PodError>
where
    T: Send + 'static,
    W: AsyncFnOnce(Handle) -> Result<T, PodError> + Send + 'static,
{
    let path = path.to_owned();
    let (tell, told) = tokio::sync::oneshot::channel();
    let failed = |what: &str| {
        let what = format!("{what} {}", path.display());
        move |source| PodError::Io { what, source }
    };
    let (enter, start) = (failed("can't enter the network namespace"), failed("can't work in the network namespace"));
    let spawn = failed("can't start a thread for");
    let thread = path.clone();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            let run = || {
                let opened = File::open(&thread)
                    .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
                opened.map_err(enter)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => return Err(start(error)),
                };
                runtime.block_on(async {
                    let (connection, handle, _) = rtnetlink::new_connection().map_err(start)?;
                    tokio::spawn(connection);
                    work(handle).await
                })
            };
            // Nobody listens when the caller was given up.
            let _ = tell.send(run());
        })
        .map_err(spawn)?;
    let lost =
        || PodError::Io { what: "the namespace's thread ended".to_owned(), source: std::io::ErrorKind::Other.into() };
    told.await.unwrap_or_else(|_| Err(lost()))
}
