package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// dynamically finds a kind by discovery, and uses it without knowing its type. The kind is the operator's.
func dynamically(ctx context.Context, config *rest.Config, namespace string) error {
	finder, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	groups, resources, err := finder.ServerGroupsAndResources()
	if err != nil || len(groups) < 10 || len(resources) < 10 {
		return fmt.Errorf("discovery told %d groups and %d versions: %w", len(groups), len(resources), err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(finder))
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "clients.skep.dev", Kind: "Greeting"})
	if err != nil {
		return fmt.Errorf("the custom kind: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	greetings := client.Resource(mapping.Resource).Namespace(namespace)
	greeting := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "clients.skep.dev/v1", "kind": "Greeting",
		"metadata": map[string]any{"name": "dynamic"},
		"spec":     map[string]any{"text": "Good day", "unknown": "pruned"},
	}}
	made, err := greetings.Create(ctx, greeting, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, found, _ := unstructured.NestedString(made.Object, "spec", "unknown"); found {
		return errors.New("a field that the schema has not was kept")
	}
	patch := fmt.Appendf(nil, `{"spec":{"text":%q}}`, strings.Repeat("long ", 60))
	_, err = greetings.Patch(ctx, "dynamic", types.MergePatchType, patch, metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) {
		return fmt.Errorf("a text that is longer than the schema lets it: %v", err)
	}
	list, err := greetings.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=dynamic"})
	if err != nil || len(list.Items) != 1 {
		return fmt.Errorf("list: %v %w", list, err)
	}
	if err := greetings.Delete(ctx, "dynamic", metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return until(ctx, func() bool {
		_, err := greetings.Get(ctx, "dynamic", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
