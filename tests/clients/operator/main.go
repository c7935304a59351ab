// An operator as users write them with controller-runtime: a manager with its cache, a reconciler that owns other objects and writes
// a status, webhooks that default and validate, and leader election.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const finalizer = "clients.skep.dev/greeting"

func main() {
	namespace := flag.String("namespace", "default", "where the Lease of the leader is")
	port := flag.Int("webhook-port", 0, "where webhooks are served")
	certificates := flag.String("webhook-certificates", "", "the folder with tls.crt and tls.key")
	probes := flag.String("probe-address", "127.0.0.1:0", "where /readyz is served")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*namespace, *port, *certificates, *probes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(namespace string, port int, certificates, probes string) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), addKnownTypes(scheme)); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:        probes,
		LeaderElection:                true,
		LeaderElectionID:              "greetings.clients.skep.dev",
		LeaderElectionNamespace:       namespace,
		LeaderElectionReleaseOnCancel: true,
		WebhookServer:                 webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: certificates}),
	})
	if err != nil {
		return err
	}
	hooks := &hooks{}
	err = errors.Join(
		manager.AddReadyzCheck("webhook", manager.GetWebhookServer().StartedChecker()),
		manager.AddHealthzCheck("ping", healthz.Ping),
		ctrl.NewControllerManagedBy(manager).For(&Greeting{}).Owns(&corev1.ConfigMap{}).Complete(&reconciler{manager.GetClient()}),
		ctrl.NewWebhookManagedBy(manager, &Greeting{}).WithDefaulter(hooks).WithValidator(hooks).Complete(),
	)
	if err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

type reconciler struct{ client.Client }

// Reconcile brings a Greeting's ConfigMap to what the Greeting says, and the status to what is there.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var greeting Greeting
	if err := r.Get(ctx, request.NamespacedName, &greeting); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !greeting.DeletionTimestamp.IsZero() {
		controllerutil.RemoveFinalizer(&greeting, finalizer)
		return ctrl.Result{}, client.IgnoreNotFound(r.Update(ctx, &greeting))
	}
	if controllerutil.AddFinalizer(&greeting, finalizer) {
		if err := r.Update(ctx, &greeting); err != nil {
			return ctrl.Result{}, err
		}
	}
	config := &corev1.ConfigMap{}
	config.Name, config.Namespace = greeting.Name+"-text", greeting.Namespace
	outcome, err := controllerutil.CreateOrUpdate(ctx, r.Client, config, func() error {
		config.Data = map[string]string{"text": greeting.Spec.Text}
		return controllerutil.SetControllerReference(&greeting, config, r.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	before := greeting.DeepCopyObject().(*Greeting)
	greeting.Status.ConfigMap, greeting.Status.ObservedGeneration = config.Name, greeting.Generation
	greeting.ready("Written", "the ConfigMap was "+string(outcome))
	return ctrl.Result{}, r.Status().Patch(ctx, &greeting, client.MergeFrom(before))
}

type hooks struct{}

// Default gives a Greeting without a text one.
func (*hooks) Default(_ context.Context, greeting *Greeting) error {
	if greeting.Spec.Text == "" {
		greeting.Spec.Text = "Hello"
	}
	return nil
}

// ValidateCreate refuses a Greeting that shouts.
func (*hooks) ValidateCreate(_ context.Context, greeting *Greeting) (warnings admission.Warnings, err error) {
	if strings.ToUpper(greeting.Spec.Text) == greeting.Spec.Text {
		return nil, errors.New("spec.text: don't shout")
	}
	if len(greeting.Spec.Text) > 64 {
		warnings = append(warnings, "spec.text is long")
	}
	return warnings, nil
}

// ValidateUpdate is as for a new one.
func (h *hooks) ValidateUpdate(ctx context.Context, _, greeting *Greeting) (admission.Warnings, error) {
	return h.ValidateCreate(ctx, greeting)
}

// ValidateDelete lets go.
func (*hooks) ValidateDelete(context.Context, *Greeting) (admission.Warnings, error) { return nil, nil }
