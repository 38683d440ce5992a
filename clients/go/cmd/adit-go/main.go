// Command adit-go exposes a port of this machine: it prints the tunnel's URL on stdout, and everything else on stderr.
//
//	adit-go --relay https://relay.example --key KEY --port 3000 [--name web]
//
// ADIT_RELAY, ADIT_KEY and ADIT_TARGET stand in for what is not given. It ends with 0 after SIGINT or SIGTERM, 1 when it
// failed or the tunnel is over, 2 for wrong usage, 69 where the relay cannot be reached and 77 where the key is refused.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	adit "github.com/adit-relay/adit/clients/go"
)

const (
	failed      = 1
	usage       = 2
	unreachable = 69
	refused     = 77
)

func main() {
	os.Exit(run())
}

func run() int {
	opts := adit.Options{}
	flag.StringVar(&opts.Relay, "relay", os.Getenv("ADIT_RELAY"), "URL of the relay")
	flag.StringVar(&opts.Key, "key", os.Getenv("ADIT_KEY"), "key of the relay; better in ADIT_KEY, as others see command lines")
	flag.StringVar(&opts.Name, "name", "", "wanted name in the URL")
	port := flag.Int("port", 0, "port of this machine to expose; else ADIT_TARGET")
	flag.Parse()
	target := os.Getenv("ADIT_TARGET")
	if *port != 0 {
		target = strconv.Itoa(*port)
		opts.Create = map[string]any{"local_port": *port}
	}
	if target == "" || opts.Relay == "" || opts.Key == "" || flag.NArg() > 0 {
		flag.Usage()
		return usage
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	tunnel, err := adit.Forward(ctx, target, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return code(err)
	}
	fmt.Println(tunnel.URL())
	fmt.Fprintf(os.Stderr, "online: %s -> %s\n", tunnel.URL(), target)
	select {
	case <-tunnel.Done():
		fmt.Fprintln(os.Stderr, tunnel.Err())
		return code(tunnel.Err())
	case <-ctx.Done():
		stop() // a second signal ends it at once
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = tunnel.Shutdown(ctx)
		return 0
	}
}

func code(err error) int {
	var told *adit.Error
	switch {
	case errors.As(err, &told) && (told.Status == http.StatusUnauthorized || told.Status == http.StatusForbidden):
		return refused
	case errors.Is(err, adit.ErrUnreachable):
		return unreachable
	}
	return failed
}
