//! Starting, finding and ending the cluster's processes. What runs is read from /proc each time; nothing is remembered, so that nothing can be wrong.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::layout::Layout;
use super::parts::{Part, Trees, is_shim};

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(20);
/// How long a process may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process as the kernel shows it.
#[derive(Debug)]
struct Running {
    pid: Pid,
    executable: PathBuf,
    arguments: Vec<String>,
}

/// The part's pid, where it runs.
pub(crate) fn find(layout: &Layout, part: &Part) -> Option<Pid> {
    running().into_iter().find(|one| part.is(layout, &one.executable, &one.arguments)).map(|one| one.pid)
}

/// Starts a part, with its output in its log. The caller waits until it is ready.
///
/// # Errors
/// When its program is not there, or its log can't be written.
pub(crate) fn start(layout: &Layout, part: &Part, trees: &Trees) -> Result<Child> {
    let words: Vec<OsString> = part.command(layout, trees);
    let (program, arguments) = words.split_first().context("a command has a program")?;
    spawn(Command::new(program).args(arguments), &layout.log(&part.name()))
}

/// Starts a program that outlives this one, with its output in a log.
///
/// # Errors
/// When it is not there, or its log can't be written.
pub(crate) fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("can't write {}", log.display()))?;
    let program = command.get_program().to_owned();
    command
        .current_dir("/")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: a Ctrl-C of the one who deploys is not for the cluster.
        .process_group(0)
        .spawn()
        .with_context(|| format!("can't start {}", program.to_string_lossy()))
}

/// Waits until a part that was just started is ready.
///
/// # Errors
/// When it ends, or patience does; both with the end of its log.
pub(crate) fn wait_until_ready(
    layout: &Layout,
    part: &Part,
    child: &mut Child,
    ready: impl FnMut() -> bool,
) -> Result<()> {
    let name = part.name();
    wait_for_child(&name, &layout.log(&name), child, ready)
}

/// Waits until a program that was just started is ready.
///
/// # Errors
/// When it ends, or patience does; both with the end of its log.
pub(crate) fn wait_for_child(name: &str, log: &Path, child: &mut Child, mut ready: impl FnMut() -> bool) -> Result<()> {
    wait_for(PATIENCE, || {
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended with {status}; {}", end_of(log));
        }
        Ok(ready())
    })?
    .then_some(())
    .with_context(|| format!("{name} is not ready after {} s; {}", PATIENCE.as_secs(), end_of(log)))
}

/// Ends a part: asks first, and insists when it does not hear. What does not run is ended already.
///
/// # Errors
/// When a signal can't be sent.
pub(crate) fn stop(layout: &Layout, part: &Part) -> Result<()> {
    end(&part.name(), &|one| part.is(layout, &one.executable, &one.arguments))
}

/// Kills every process whose executable and arguments match.
///
/// # Errors
/// When a signal can't be sent, or one does not die.
pub(crate) fn kill_matching(name: &str, matches: impl Fn(&Path, &[String]) -> bool) -> Result<()> {
    kill_all(name, || Ok(pids(&|one| matches(&one.executable, &one.arguments))))
}

/// Whether a process runs whose executable and arguments match.
pub(crate) fn is_running(matches: impl Fn(&Path, &[String]) -> bool) -> bool {
    running().iter().any(|one| matches(&one.executable, &one.arguments))
}

/// Kills the containers' shims; what they would tidy up goes with the cluster's folders.
///
/// # Errors
/// When one can't be killed.
pub(crate) fn kill_shims(layout: &Layout) -> Result<()> {
    kill_all("a container's shim", || Ok(pids(&|one| is_shim(layout, &one.arguments))))
}

/// Ends every process of the cluster's own binaries: the control plane, log drivers, and commands that hang.
///
/// # Errors
/// When a signal can't be sent.
pub(crate) fn stop_own_binaries(layout: &Layout) -> Result<()> {
    let folder = layout.bin_dir();
    end("a process of the cluster", &|one| one.executable.starts_with(&folder))
}

/// Kills processes by pid until the kernel shows none of them.
///
/// # Errors
/// When a signal can't be sent, or one does not die.
pub(crate) fn kill_all(what: &str, mut list: impl FnMut() -> Result<Vec<i32>>) -> Result<()> {
    let gone = wait_for(GRACE, || {
        let pids = list()?;
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            signal(pid, Signal::KILL)?;
        }
        Ok(pids.is_empty())
    })?;
    if !gone {
        bail!("{what} can't be killed");
    }
    Ok(())
}

/// The last lines of a part's log, for an error.
pub(crate) fn log_end(layout: &Layout, part: &Part) -> String {
    end_of(&layout.log(&part.name()))
}

fn end_of(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
    format!("its log {} ends with\n  {last}", log.display())
}

/// Asks until the answer is yes, and says whether it was before the time was over.
///
/// # Errors
/// When asking fails.
pub(crate) fn wait_for(patience: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<bool> {
    let begun = Instant::now();
    loop {
        if ask()? {
            return Ok(true);
        }
        if begun.elapsed() > patience {
            return Ok(false);
        }
        #[allow(clippy::disallowed_methods, reason = "a command line tool has no executor to block")]
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn end(name: &str, is_it: &dyn Fn(&Running) -> bool) -> Result<()> {
    for pid in pids(is_it).into_iter().filter_map(Pid::from_raw) {
        signal(pid, Signal::TERM)?;
    }
    if wait_for(GRACE, || Ok(pids(is_it).is_empty()))? {
        return Ok(());
    }
    kill_all(name, || Ok(pids(is_it)))
}

fn pids(is_it: &dyn Fn(&Running) -> bool) -> Vec<i32> {
    running().into_iter().filter(|one| is_it(one)).map(|one| one.pid.as_raw_nonzero().get()).collect()
}

fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill_process(pid, signal) {
        // It ended meanwhile.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("can't signal process {}", pid.as_raw_nonzero())),
    }
}

/// Every process that is one: those that wait to be reaped have no executable.
fn running() -> Vec<Running> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            read(pid, &entry.path())
        })
        .collect()
}

fn read(pid: Pid, folder: &Path) -> Option<Running> {
    let executable = fs::read_link(folder.join("exe")).ok()?;
    let line = fs::read(folder.join("cmdline")).ok()?;
    let arguments =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>();
    Some(Running { pid, executable, arguments })
}
