//go:build tools

// Package etcd requires the store of a Kubernetes cluster: it has a module of its own, since its requirements and those of Kubernetes differ.
package etcd

import (
	_ "go.etcd.io/etcd/server/v3"
)
