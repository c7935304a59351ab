// A client as users write them with client-go: typed clients that speak protobuf, server-side apply, informers, the dynamic client,
// discovery, streams into containers and leader election. Each check is a command; it fails with why.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience bounds a whole check; it measures nothing.
const patience = 2 * time.Minute

// A check uses a cluster in a namespace of its own.
type check func(ctx context.Context, config *rest.Config, namespace string) error

var checks = map[string]check{
	"typed":     typed,
	"informers": watched,
	"dynamic":   dynamically,
	"streams":   streams,
	"election":  election,
}

func main() {
	if len(os.Args) != 3 || checks[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: observer typed|informers|dynamic|streams|election NAMESPACE")
		os.Exit(2)
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = checks[os.Args[1]](ctx, config, os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// protobuf is a configuration of typed clients as Kubernetes' own components have it.
func protobuf(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf"
	return config
}
