//go:build tools

// Package clients lists what is built from others' modules to use a cluster with; the programs of ours are in the folders beside it.
package clients

import _ "helm.sh/helm/v3/cmd/helm"
