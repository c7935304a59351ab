//! Network namespaces without names: the kernel takes one away, links and rules included, when the last descriptor of it is closed,
//! so that a bench which is killed leaves none. Needs root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::unshare;

/// A network namespace.
pub struct Netns(File);

impl Netns {
    /// A new one; its loopback is up.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        let make = || -> io::Result<File> {
            unshare::network()?;
            File::open("/proc/thread-self/ns/net")
        };
        let file = std::thread::scope(|scope| scope.spawn(make).join()).map_err(|_| io::Error::other("panicked"))?;
        let netns = Self(file.context("can't make a network namespace (this needs root)")?);
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// A path by which other programs find it while this process runs.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` in it, on a thread of its own. Sockets that it makes and programs that it starts stay in the namespace.
    ///
    /// # Panics
    /// When `work` does, or the kernel refuses a namespace that it gave.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let run = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).expect("it was made by root");
            work()
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Runs a program in it to its end, with `input` for it to read.
    ///
    /// # Errors
    /// When the program can't be started or fails; with what it said.
    pub fn run(&self, program: &str, arguments: &[&str], input: File) -> Result<()> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(input));
        let output = self.within(|| command.output()).with_context(|| format!("can't start {program}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {} failed: {}", arguments.join(" "), said.trim());
        Ok(())
    }

    /// `ip` in it, with arguments that spaces part.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        self.run("ip", &arguments.split(' ').collect::<Vec<_>>(), File::open("/dev/null")?)
    }
}
