//go:build tools

// Package sampleapiserver requires the extension API server that the suite registers, at the version of its image: it has a module of its own, since its requirements and those of Kubernetes differ.
package sampleapiserver

import (
	_ "k8s.io/sample-apiserver"
)
