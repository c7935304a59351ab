//! Which programs are built of which Go module, and how. Pure: the modules themselves are below `tests/conformance`.

use std::path::{Path, PathBuf};

use super::Set;

/// The version of Kubernetes that Skep is compatible with, and that is built here; it is that of `tests/conformance/go.mod`.
pub(crate) const KUBERNETES: &str = "v1.37.2";

/// A Go module of ours that requires one of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Module {
    /// Everything that is released with Kubernetes.
    Kubernetes,
    Containerd,
    CoreDns,
    Etcd,
    Runc,
    /// At an older version than the rest of Kubernetes: the one of the suite's image.
    SampleApiserver,
    /// Clients of a cluster: Helm, and programs of ours with client-go and controller-runtime.
    Clients,
}

impl Module {
    pub(crate) const ALL: [Self; 7] = [
        Self::Kubernetes,
        Self::Containerd,
        Self::CoreDns,
        Self::Etcd,
        Self::Runc,
        Self::SampleApiserver,
        Self::Clients,
    ];

    /// Its folder, relative to the repository's root.
    pub(crate) fn folder(self) -> PathBuf {
        let modules = Path::new("tests/conformance");
        match self {
            Self::Kubernetes => modules.to_owned(),
            Self::Containerd => modules.join("containerd"),
            Self::CoreDns => modules.join("coredns"),
            Self::Etcd => modules.join("etcd"),
            Self::Runc => modules.join("runc"),
            Self::SampleApiserver => modules.join("sample-apiserver"),
            Self::Clients => Path::new("tests/clients").to_owned(),
        }
    }
}

/// A program to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    /// What its file is called.
    pub(crate) name: &'static str,
    /// Where it is from.
    pub(crate) module: Module,
    /// Its package.
    pub(crate) package: &'static str,
    /// What the Go command makes of the package.
    pub(crate) kind: Kind,
}

/// What the Go command makes of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A static program.
    Static,
    /// A static program that says its version: Kubernetes' tests and clients refuse to talk to one that doesn't.
    Versioned,
    /// A program of Go and C, linked with libseccomp.
    Seccomp,
    /// A package's tests as a program.
    Tests,
}

impl Kind {
    /// The words for the Go command, before `-o`.
    pub(crate) fn words(self) -> Vec<String> {
        // Without symbols for debuggers, as Kubernetes releases its own. No other flag: each that changes how packages
        // are compiled has them compiled once more.
        let stripped = "-s -w";
        let (verb, flags) = match self {
            Self::Static => (vec!["build"], stripped.to_owned()),
            Self::Seccomp => (vec!["build", "-tags", "seccomp"], stripped.to_owned()),
            Self::Versioned => (vec!["build"], format!("{stripped} {}", version_flags())),
            Self::Tests => (vec!["test", "-c"], format!("{stripped} {}", version_flags())),
        };
        verb.into_iter().map(str::to_owned).chain(["-ldflags".to_owned(), flags]).collect()
    }
}

/// What Kubernetes' own build writes into its binaries (`hack/lib/version.sh`).
fn version_flags() -> String {
    let mut numbers = KUBERNETES.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let package = "k8s.io/component-base/version";
    format!("-X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}")
}

impl Set {
    /// What belongs to it.
    pub(crate) fn programs(self) -> Vec<Program> {
        let kubernetes = |name, package, kind| Program { name, module: Module::Kubernetes, package, kind };
        match self {
            Self::Suite => vec![
                kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", Kind::Versioned),
                kubernetes("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo", Kind::Static),
                kubernetes("e2e.test", "k8s.io/kubernetes/test/e2e", Kind::Tests),
            ],
            Self::Images => vec![
                kubernetes("agnhost", "k8s.io/kubernetes/test/images/agnhost", Kind::Static),
                kubernetes("nonewprivs", "k8s.io/kubernetes/test/images/nonewprivs", Kind::Static),
                kubernetes("resource-consumer", "k8s.io/kubernetes/test/images/resource-consumer", Kind::Static),
                kubernetes("consume-cpu", "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu", Kind::Static),
                program("sample-apiserver", Module::SampleApiserver, "k8s.io/sample-apiserver"),
                ETCD,
                COREDNS,
            ],
            Self::Servers => {
                let server = |name, package| kubernetes(name, package, Kind::Versioned);
                vec![
                    server("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
                    server("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
                    server("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
                    server("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
                    server("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
                    server("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
                    ETCD,
                    COREDNS,
                    program("containerd", Module::Containerd, "github.com/containerd/containerd/v2/cmd/containerd"),
                    program(
                        "containerd-shim-runc-v2",
                        Module::Containerd,
                        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                    ),
                    program("ctr", Module::Containerd, "github.com/containerd/containerd/v2/cmd/ctr"),
                    Program {
                        name: "runc",
                        module: Module::Runc,
                        package: "github.com/opencontainers/runc",
                        kind: Kind::Seccomp,
                    },
                ]
            }
            Self::Clients => vec![
                program("helm", Module::Clients, "helm.sh/helm/v3/cmd/helm"),
                program("operator", Module::Clients, "./operator"),
                program("observer", Module::Clients, "./observer"),
            ],
            Self::SchedulerBenchmark => {
                let tests = |name, package| kubernetes(name, package, Kind::Tests);
                vec![
                    tests("scheduler-misc.test", "k8s.io/kubernetes/test/integration/scheduler_perf/misc"),
                    tests("scheduler-affinity.test", "k8s.io/kubernetes/test/integration/scheduler_perf/affinity"),
                    tests(
                        "scheduler-topology-spreading.test",
                        "k8s.io/kubernetes/test/integration/scheduler_perf/topology_spreading",
                    ),
                    tests(
                        "scheduler-preemption.test",
                        "k8s.io/kubernetes/test/integration/scheduler_perf/default_preemption",
                    ),
                    ETCD,
                ]
            }
        }
    }
}

const ETCD: Program = program("etcd", Module::Etcd, "go.etcd.io/etcd/server/v3");
const COREDNS: Program = program("coredns", Module::CoreDns, "github.com/coredns/coredns");

const fn program(name: &'static str, module: Module, package: &'static str) -> Program {
    Program { name, module, package, kind: Kind::Static }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    #[test]
    fn a_name_means_one_program_whichever_sets_it_is_in() {
        let all: Vec<Program> = Set::ALL.into_iter().flat_map(Set::programs).collect();
        for one in &all {
            assert!(all.iter().filter(|other| other.name == one.name).all(|other| other == one), "{}", one.name);
        }
    }

    #[test]
    fn each_package_is_named_by_the_tools_file_of_its_module() {
        let theirs = |program: &Program| !program.package.starts_with('.');
        for program in Set::ALL.into_iter().flat_map(Set::programs).filter(theirs) {
            let file = shell::root().join(program.module.folder()).join("tools.go");
            let text = std::fs::read_to_string(&file).expect("the tools file");
            assert!(text.contains(&format!("\"{}\"", program.package)), "{} in {}", program.package, file.display());
        }
    }

    #[test]
    fn the_version_is_the_one_that_the_module_requires() {
        let module = std::fs::read_to_string(shell::root().join("tests/conformance/go.mod")).expect("the module");
        assert!(module.contains(&format!("k8s.io/kubernetes {KUBERNETES}\n")));
        assert!(version_flags().ends_with("gitMinor=37"), "{}", version_flags());
    }
}
