//! Which kernel parameters belong to a pod's namespaces, and where they are below `/proc/sys`.
//!
//! Invariant: pure; a parameter of the node is never written.

use super::namespaces::{Kind, Sysctl};

/// What a pod may bind and ping without privileges by default, as containerd sets it from 2.0 on
/// (`enable_unprivileged_ports`, `enable_unprivileged_icmp`).
const DEFAULTS: [(&str, &str); 2] =
    [("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 2147483647")];

/// The parameters to write in a pod's new namespaces: the defaults, then what the pod asks for.
///
/// # Errors
/// The name of one that is not in a namespace of the pod's own.
pub(super) fn sysctls(asked: &[(String, String)], own: &[Kind]) -> Result<Vec<Sysctl>, String> {
    let defaults = DEFAULTS.iter().filter(|_| own.contains(&Kind::Network));
    let defaults =
        defaults.map(|(path, value)| Sysctl { path: (*path).to_owned(), value: (*value).to_owned(), optional: true });
    let asked = asked.iter().map(|(name, value)| {
        let path = path_of(name).ok_or_else(|| name.clone())?;
        let ours = kind_of(&path).is_some_and(|kind| own.contains(&kind));
        if !ours {
            return Err(name.clone());
        }
        Ok(Sysctl { path, value: value.clone(), optional: false })
    });
    defaults.map(Ok).chain(asked).collect()
}

/// `net.ipv4.ip_forward` and `net/ipv4/ip_forward` are the same; in the first form a `/` stands for a dot of a name
/// (sysctl.d(5): the first separator decides).
fn path_of(name: &str) -> Option<String> {
    let dots_first = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('.'));
    let swap = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dots_first { name.chars().map(swap).collect() } else { name.to_owned() };
    let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    plain.then_some(path)
}

/// Upstream: `pkg/kubelet/sysctl/namespace.go`.
fn kind_of(path: &str) -> Option<Kind> {
    let ipc = ["kernel/shm", "kernel/msg", "fs/mqueue/"];
    if path == "kernel/sem" || ipc.iter().any(|prefix| path.starts_with(prefix)) {
        return Some(Kind::Ipc);
    }
    path.starts_with("net/").then_some(Kind::Network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, own: &[Kind]) -> Result<String, String> {
        let all = sysctls(&[(name.to_owned(), "1".to_owned())], own)?;
        Ok(all.last().map(|sysctl| sysctl.path.clone()).unwrap_or_default())
    }

    #[test]
    fn both_forms_of_a_name_are_the_same_file() {
        assert_eq!(asked("net.ipv4.conf.eth0/1.forwarding", &Kind::ALL).unwrap(), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(asked("net/ipv4/conf/eth0.1/forwarding", &Kind::ALL).unwrap(), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn a_parameter_of_the_node_is_refused() {
        for name in ["vm.swappiness", "kernel.core_pattern", "net/../vm/swappiness", "net", ""] {
            assert_eq!(asked(name, &Kind::ALL), Err(name.to_owned()));
        }
    }

    #[test]
    fn a_parameter_of_a_namespace_shared_with_the_node_is_refused() {
        assert!(asked("net.core.somaxconn", &[Kind::Ipc]).is_err());
        assert!(asked("kernel.shmmax", &[Kind::Network]).is_err());
        assert!(asked("kernel.shmmax", &[Kind::Ipc]).is_ok());
    }

    #[test]
    fn a_pod_may_ping_and_bind_low_ports() {
        let paths: Vec<String> = sysctls(&[], &Kind::ALL).unwrap().into_iter().map(|sysctl| sysctl.path).collect();
        assert_eq!(paths, ["net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range"]);
    }
}
