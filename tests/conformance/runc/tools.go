//go:build tools

// Package runc requires what starts containerd's containers: it has a module of its own, since its requirements and those of Kubernetes differ.
package runc

import (
	_ "github.com/opencontainers/runc"
)
