//! The seccomp profile `RuntimeDefault`: which system calls a container may make.
//!
//! Invariant: pure; a call that is not listed fails with `EPERM`. A call that gives power over the node is listed only
//! together with the capability that the kernel asks for it. Same extent as containerd's default profile, which
//! Kubernetes documents as the meaning of `RuntimeDefault`; runc passes over names that its library doesn't know.

use serde_json::{Value, json};

/// Allowed to everyone, by what they are about. Forms of 32-bit machines are among them, since such programs run too.
#[rustfmt::skip]
const ALLOWED: &[&[&str]] = &[
    // Files: opening, reading, writing.
    &[
        "access", "cachestat", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3", "faccessat",
        "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fcntl", "fcntl64", "fdatasync", "flock", "fsync",
        "ftruncate", "ftruncate64", "ioctl", "_llseek", "lseek", "open", "openat", "openat2", "pipe", "pipe2", "pread64",
        "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile", "sendfile64",
        "splice", "sync", "sync_file_range", "syncfs", "tee", "truncate", "truncate64", "vmsplice", "write", "writev",
    ],
    // Files: names, attributes, folders.
    &[
        "chdir", "chmod", "chown", "chown32", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32",
        "fchownat", "fgetxattr", "file_getattr", "file_setattr", "flistxattr", "fremovexattr", "fsetxattr", "fstat",
        "fstat64", "fstatat64", "fstatfs", "fstatfs64", "futimesat", "getcwd", "getdents", "getdents64", "getxattr",
        "getxattrat", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listmount", "listxattr", "listxattrat",
        "llistxattr", "lremovexattr", "lsetxattr", "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat",
        "name_to_handle_at", "newfstatat", "readlink", "readlinkat", "removexattr", "removexattrat", "rename",
        "renameat", "renameat2", "rmdir", "setxattr", "setxattrat", "stat", "stat64", "statfs", "statfs64", "statmount",
        "statx", "symlink", "symlinkat", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64",
        "utimes",
    ],
    // Watching files, and waiting for what becomes ready.
    &[
        "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
        "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark", "inotify_add_watch", "inotify_init", "inotify_init1",
        "inotify_rm_watch", "_newselect", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select",
    ],
    // Asynchronous files.
    &[
        "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
        "ioprio_get", "ioprio_set",
    ],
    // Memory.
    &[
        "brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock", "mlock2",
        "mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap",
        "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages",
    ],
    // Processes and threads.
    &[
        "alarm", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "get_robust_list",
        "get_thread_area", "getcpu", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrlimit", "getrusage",
        "getsid", "gettid", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "pause",
        "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "restart_syscall", "rseq", "seccomp",
        "set_robust_list", "set_thread_area", "set_tid_address", "setpgid", "setpriority", "setrlimit", "setsid",
        "sysinfo", "tgkill", "times", "tkill", "ugetrlimit", "uname", "uretprobe", "vfork", "wait4", "waitid",
        "waitpid",
    ],
    // Who a process is.
    &[
        "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getresgid",
        "getresgid32", "getresuid", "getresuid32", "getuid", "getuid32", "lsm_get_self_attr", "lsm_list_modules",
        "lsm_set_self_attr", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups",
        "setgroups32", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
        "setreuid32", "setuid", "setuid32",
    ],
    // Scheduling.
    &[
        "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
        "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity",
        "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield",
    ],
    // Locks.
    &[
        "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake",
    ],
    // Signals.
    &[
        "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
        "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4",
        "sigprocmask", "sigreturn",
    ],
    // Clocks and timers; setting the clock needs a capability, asking how it is adjusted doesn't.
    &[
        "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
        "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
        "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
        "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
        "timerfd_settime", "timerfd_settime64",
    ],
    // System V and POSIX interprocess communication: the pod has a namespace of its own.
    &[
        "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
        "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop",
        "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    ],
    // Sockets; making one is below.
    &[
        "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv",
        "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt",
        "shutdown", "socketcall", "socketpair",
    ],
    // Others.
    &["getrandom"],
    // Tracing of own processes: since Linux 4.8 the kernel applies seccomp after it.
    &["process_vm_readv", "process_vm_writev", "ptrace"],
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE_CALLS: &[&str] = &["arch_prctl", "modify_ldt"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE_CALLS: &[&str] =
    &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE_CALLS: &[&str] = &[];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
/// None: the machine's own.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: &[&str] = &[];

/// Allowed to those who have a capability that the kernel asks for the call.
#[rustfmt::skip]
const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    ("CAP_SYS_ADMIN", &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount",
        "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname",
        "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module", "query_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// `CLONE_NEW*` of `linux/sched.h`: cgroup, mount, UTS, IPC, user, process and network namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the question for the present one (`linux/personality.h`).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `AF_VSOCK`: it leads to the hypervisor whatever the network namespace is.
const VSOCK: u64 = 40;
const ENOSYS: u32 = 38;

/// The profile, as the OCI specification's `linux.seccomp`, of a container with these capabilities.
pub fn runtime_default(capabilities: &[String]) -> Value {
    let has = |capability: &str| capabilities.iter().any(|own| own == capability);
    let all = ALLOWED.iter().copied().chain([ARCHITECTURE_CALLS]).flatten();
    let mut rules = vec![json!({"names": all.collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"})];
    let when = |name: &str, op: &str, value: u64| {
        let argument = json!({"index": 0, "value": value, "op": op});
        json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]})
    };
    rules.extend(PERSONALITIES.map(|personality| when("personality", "SCMP_CMP_EQ", personality)));
    rules.push(when("socket", "SCMP_CMP_NE", VSOCK));
    let granted = WITH_CAPABILITY.iter().filter(|(capability, _)| has(capability));
    rules.extend(granted.map(|(_, names)| json!({"names": names, "action": "SCMP_ACT_ALLOW"})));
    if !has("CAP_SYS_ADMIN") {
        let flags = json!({"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"});
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [flags]}));
        // Its flags are in memory, where no filter sees them: the C library falls back to clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ARCHITECTURES, "syscalls": rules})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(profile: &Value, call: &str) -> bool {
        let mut rules = profile["syscalls"].as_array().unwrap().iter();
        let named = |rule: &Value| rule["names"].as_array().unwrap().iter().any(|name| name == call);
        rules.any(|rule| rule["args"].is_null() && rule["action"] == "SCMP_ACT_ALLOW" && named(rule))
    }

    #[test]
    fn what_gives_power_over_the_node_needs_its_capability() {
        let plain = runtime_default(&[]);
        for (capability, calls) in WITH_CAPABILITY {
            let granted = runtime_default(&[(*capability).to_owned()]);
            for call in *calls {
                assert!(!allows(&plain, call), "{call}");
                assert!(allows(&granted, call), "{call}");
            }
        }
    }

    #[test]
    fn calls_that_reach_out_of_any_container_are_never_allowed() {
        let all: Vec<String> = WITH_CAPABILITY.iter().map(|(capability, _)| (*capability).to_owned()).collect();
        let profile = runtime_default(&all);
        for call in
            ["add_key", "keyctl", "request_key", "kexec_load", "swapon", "userfaultfd", "io_uring_setup", "pivot_root"]
        {
            assert!(!allows(&profile, call), "{call}");
        }
    }

    #[test]
    fn every_call_is_listed_once() {
        let mut all: Vec<&str> = ALLOWED.iter().copied().chain([ARCHITECTURE_CALLS]).flatten().copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
