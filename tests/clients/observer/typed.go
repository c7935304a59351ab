package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// typed writes and reads by typed clients that take nothing but protobuf.
func typed(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := kubernetes.NewForConfig(protobuf(config))
	if err != nil {
		return err
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	events, err := maps.Watch(ctx, metav1.ListOptions{LabelSelector: "check=typed"})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer events.Stop()

	made := &corev1.ConfigMap{Data: map[string]string{"a": "1"}, BinaryData: map[string][]byte{"b": {0, 255}}}
	made.Name, made.Labels = "typed", map[string]string{"check": "typed"}
	made, err = maps.Create(ctx, made, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if made.UID == "" || made.CreationTimestamp.IsZero() || string(made.BinaryData["b"]) != "\x00\xff" {
		return fmt.Errorf("create answered %+v", made)
	}
	if _, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "typed"}}, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("a second one of that name: %v", err)
	}
	stale := made.DeepCopy()
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := maps.Get(ctx, "typed", metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Data["a"] = "2"
		_, err = maps.Update(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if _, err = maps.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		return fmt.Errorf("an update of an old revision: %v", err)
	}
	patch := []byte(`{"data":{"a":null,"c":"3"}}`)
	patched, err := maps.Patch(ctx, "typed", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil || len(patched.Data) != 1 || patched.Data["c"] != "3" {
		return fmt.Errorf("patch: %v %v", patched.Data, err)
	}
	applied := applycorev1.ConfigMap("typed", namespace).WithData(map[string]string{"d": "4"})
	result, err := maps.Apply(ctx, applied, metav1.ApplyOptions{FieldManager: "one"})
	if err != nil || len(result.Data) != 2 {
		return fmt.Errorf("apply: %+v %w", result, err)
	}
	other := applycorev1.ConfigMap("typed", namespace).WithData(map[string]string{"d": "5"})
	if _, err = maps.Apply(ctx, other, metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) {
		return fmt.Errorf("an apply to another's field: %v", err)
	}
	list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "check=typed", Limit: 1})
	if err != nil || len(list.Items) != 1 || list.Items[0].Data["d"] != "4" {
		return fmt.Errorf("list: %+v %w", list, err)
	}
	if err = maps.Delete(ctx, "typed", metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if _, err = maps.Get(ctx, "typed", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return fmt.Errorf("what was deleted: %v", err)
	}
	// Each change was told, in order.
	for _, wanted := range []watch.EventType{watch.Added, watch.Modified, watch.Modified, watch.Modified, watch.Deleted} {
		select {
		case event, open := <-events.ResultChan():
			if !open || event.Type != wanted {
				return fmt.Errorf("the watch told %v in place of %v", event, wanted)
			}
		case <-ctx.Done():
			return errors.New("the watch told too little")
		}
	}
	return nil
}
