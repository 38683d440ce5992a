// Command http serves a net/http handler on a tunnel, without a port of its own:
//
//	ADIT_RELAY=https://relay.example ADIT_KEY=… go run ./examples/http
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	adit "github.com/adit-relay/adit/clients/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	listener, err := adit.Listen(ctx, adit.Options{Name: "hello-go"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.URL())

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s\n", r.Header.Get("X-Forwarded-For"))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // finishes what runs, and takes nothing more
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-listener.Done() // the tunnel is deleted by now
}
