package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// election has two candidates for a Lease: one leads, and the other when the first steps down.
func election(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := kubernetes.NewForConfig(protobuf(config))
	if err != nil {
		return err
	}
	led := make(chan string, 2)
	candidate := func(name string) (stop context.CancelFunc, done chan struct{}) {
		own, cancel := context.WithCancel(ctx)
		done = make(chan struct{})
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "election", Namespace: namespace},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		}
		go func() {
			defer close(done)
			leaderelection.RunOrDie(own, leaderelection.LeaderElectionConfig{
				Lock: lock, ReleaseOnCancel: true,
				LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 200 * time.Millisecond,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(context.Context) { led <- name },
					OnStoppedLeading: func() {},
				},
			})
		}()
		return cancel, done
	}
	await := func(wanted string) error {
		select {
		case name := <-led:
			if name != wanted {
				return fmt.Errorf("%s leads in place of %s", name, wanted)
			}
			return nil
		case <-ctx.Done():
			return errors.New("nobody leads")
		}
	}
	stopFirst, first := candidate("one")
	if err := await("one"); err != nil {
		return err
	}
	stopSecond, second := candidate("two")
	defer func() { stopSecond(); <-second }()
	stopFirst()
	<-first
	if err := await("two"); err != nil {
		return err
	}
	lease, err := client.CoordinationV1().Leases(namespace).Get(ctx, "election", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != "two" || *lease.Spec.LeaseTransitions < 1 {
		return fmt.Errorf("the Lease says %+v: %w", lease.Spec, err)
	}
	return nil
}
