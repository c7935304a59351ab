//! Network namespaces that stand for nodes, pods and the outside. Needs root.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace, removed at the end.
pub(crate) struct Netns(pub(crate) String);

impl Netns {
    /// A new one, whose name has this process's number in it.
    pub(crate) fn new(name: &str) -> Self {
        let netns = Self(format!("skep-test-{}-{name}", std::process::id()));
        ip(&["netns", "add", &netns.0]);
        netns
    }

    /// Where it can be opened.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// Runs `work` in it, on a thread of its own. Sockets that it makes stay in the namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        let run = move || {
            let file = File::open(path).expect("a namespace");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
            work()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("the work ends"))
    }

    /// `ip` in it.
    #[allow(dead_code, reason = "not every test does")]
    pub(crate) fn ip(&self, arguments: &str) {
        let all: Vec<&str> = ["-n", &self.0].into_iter().chain(arguments.split(' ')).collect();
        ip(&all);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

/// iproute2, which must succeed.
pub(crate) fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().expect("iproute2").success(), "ip {arguments:?}");
}
