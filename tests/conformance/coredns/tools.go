//go:build tools

// Package coredns requires the DNS server of a Kubernetes cluster, which the suite's images hold as well: it has a module of its own, since its requirements and those of Kubernetes differ.
package coredns

import (
	_ "github.com/coredns/coredns"
)
