package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
)

// streams runs a pod, reads its log and executes commands in it over both protocols.
func streams(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := kubernetes.NewForConfig(protobuf(config))
	if err != nil {
		return err
	}
	pods := client.CoreV1().Pods(namespace)
	none := int64(0)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "streams"}, Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: &none,
		Containers: []corev1.Container{{
			Name: "main", Image: "localhost/skep/busybox:latest", ImagePullPolicy: corev1.PullIfNotPresent,
			Command: []string{"sh", "-c", "echo a line; sleep 1000000"},
		}},
	}}
	if _, err = pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	running := func() bool {
		pod, err := pods.Get(ctx, "streams", metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning
	}
	if err := until(ctx, running); err != nil {
		return fmt.Errorf("the pod does not run: %w", err)
	}
	logged := func() bool {
		log, err := pods.GetLogs("streams", &corev1.PodLogOptions{}).DoRaw(ctx)
		return err == nil && string(log) == "a line\n"
	}
	if err := until(ctx, logged); err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	options := &corev1.PodExecOptions{Command: []string{"sh", "-c", "cat; echo err >&2; exit 3"}, Stdin: true, Stdout: true, Stderr: true}
	request := client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name("streams").SubResource("exec")
	url := request.VersionedParams(options, scheme.ParameterCodec).URL()
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", url)
	if err != nil {
		return err
	}
	socket, err := remotecommand.NewWebSocketExecutor(config, "GET", url.String())
	if err != nil {
		return err
	}
	for name, executor := range map[string]remotecommand.Executor{"SPDY": spdy, "WebSocket": socket} {
		var out, errOut bytes.Buffer
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errOut})
		var exit exec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "in" || errOut.String() != "err\n" {
			return fmt.Errorf("%s: %q %q %w", name, out.String(), errOut.String(), err)
		}
	}
	return pods.Delete(ctx, "streams", metav1.DeleteOptions{})
}
