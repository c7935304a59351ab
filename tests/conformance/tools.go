//go:build tools

// Package conformance requires what is built of Kubernetes' own modules: its end-to-end suite with all that the suite runs,
// the servers of a cluster to compare with, and the scheduler's benchmark. `xtask/src/upstream/programs.rs` says what is built of it.
package conformance

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
	_ "k8s.io/kubernetes/test/conformance/testdata"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
	_ "k8s.io/kubernetes/test/images/nonewprivs"
	_ "k8s.io/kubernetes/test/images/resource-consumer"
	_ "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu"
	_ "k8s.io/kubernetes/test/integration/scheduler_perf"
	_ "k8s.io/kubernetes/test/integration/scheduler_perf/affinity"
	_ "k8s.io/kubernetes/test/integration/scheduler_perf/default_preemption"
	_ "k8s.io/kubernetes/test/integration/scheduler_perf/misc"
	_ "k8s.io/kubernetes/test/integration/scheduler_perf/topology_spreading"
)
