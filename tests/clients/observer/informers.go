package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// watched fills informers' caches, one by protobuf and one by metadata alone, and waits until they show what another client writes.
func watched(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := kubernetes.NewForConfig(protobuf(config))
	if err != nil {
		return err
	}
	partial, err := metadata.NewForConfig(protobuf(config))
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	maps := factory.Core().V1().ConfigMaps()
	deployments := factory.Apps().V1().Deployments().Informer()
	pods := factory.Core().V1().Pods().Informer()
	names := metadatainformer.NewFilteredSharedInformerFactory(partial, 0, namespace, nil)
	seen := names.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps"))
	informer, shown := maps.Informer(), seen.Informer()
	factory.Start(ctx.Done())
	names.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced, deployments.HasSynced, pods.HasSynced, shown.HasSynced) {
		return errors.New("the caches did not fill")
	}
	writer, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for number := range 20 {
		made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("watched-%d", number), Labels: map[string]string{"check": "watched"}}}
		if _, err := writer.CoreV1().ConfigMaps(namespace).Create(ctx, made, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	selector := labels.SelectorFromSet(labels.Set{"check": "watched"})
	count := func() (int, int) {
		whole, _ := maps.Lister().ConfigMaps(namespace).List(selector)
		part, _ := seen.Lister().ByNamespace(namespace).List(selector)
		return len(whole), len(part)
	}
	if err := until(ctx, func() bool { whole, part := count(); return whole == 20 && part == 20 }); err != nil {
		return fmt.Errorf("the caches have not all: %w", err)
	}
	listed := metav1.ListOptions{LabelSelector: selector.String()}
	if err := writer.CoreV1().ConfigMaps(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, listed); err != nil {
		return err
	}
	return until(ctx, func() bool { whole, part := count(); return whole == 0 && part == 0 })
}

// until asks until the answer is yes, or the check's time is over.
func until(ctx context.Context, ask func() bool) error {
	for !ask() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
