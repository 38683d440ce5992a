package adit_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	adit "github.com/adit-relay/adit/clients/go"
)

func ExampleListen() {
	listener, err := adit.Listen(context.Background(), adit.Options{Relay: "https://relay.example", Key: "nbk_…", Name: "web"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.URL())
	log.Fatal(http.Serve(listener, http.FileServer(http.Dir("."))))
}

func ExampleForward() {
	tunnel, err := adit.Forward(context.Background(), "3000", adit.Options{Relay: "https://relay.example", Key: "nbk_…"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tunnel.URL())
	<-tunnel.Done()
	log.Fatal(tunnel.Err())
}
