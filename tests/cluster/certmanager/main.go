// The CertificateRequest controllers of cert-manager, and what they need: the approver, the issuers' own controller, and the
// signer of CA issuers. No webhook, no Certificate controllers: Liaison makes CertificateRequests and nothing else of
// cert-manager's.
//
//	certmanager --kubeconfig FILE --namespace NAME    runs until told to stop
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of the API server")
	namespace := flag.String("namespace", "", "the one namespace to work in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig: *kubeconfig, Namespace: *namespace, KubernetesAPIQPS: 50, KubernetesAPIBurst: 50,
	})
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	for _, name := range []string{approver.ControllerName, ca.CRControllerName, issuers.ControllerName} {
		made, err := controller.Known()[name](factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		running.Add(1)
		go func() {
			defer running.Done()
			if err := made.Run(1, ctx); err != nil {
				fmt.Fprintln(os.Stderr, name, err)
				stop()
			}
		}()
	}
	started, err := factory.Build()
	if err != nil {
		return err
	}
	started.SharedInformerFactory.Start(ctx.Done())
	started.KubeSharedInformerFactory.Start(ctx.Done())
	running.Wait()
	return nil
}
