//go:build tools

// Package containerd requires the container runtime of a Kubernetes cluster: it has a module of its own, since its requirements and those of Kubernetes differ.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
