// A TLS client as a partner's Go program has it: the standard library, with the files of the partner kit in the current directory.
// It asks twice, over two connections that may resume, and prints of each the status, the TLS version, the key exchange group and
// whether the session was resumed.
//
//	clients NAME ADDRESS [1.2]
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2], len(os.Args) > 3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name, address string, old bool) error {
	certificate, err := tls.LoadX509KeyPair("chain.pem", "key.pem")
	if err != nil {
		return err
	}
	root, err := os.ReadFile("root.pem")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	config := &tls.Config{
		RootCAs:            roots,
		Certificates:       []tls.Certificate{certificate},
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
	if old {
		config.MaxVersion = tls.VersionTLS12
	}
	for range 2 {
		transport := &http.Transport{
			TLSClientConfig:   config,
			ForceAttemptHTTP2: true,
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, network, net.JoinHostPort(address, "443"))
			},
		}
		client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
		response, err := client.Get("https://" + name + "/echo")
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		response.Body.Close()
		state := response.TLS
		fmt.Println(response.StatusCode, tls.VersionName(state.Version), state.CurveID, state.DidResume)
	}
	return nil
}
