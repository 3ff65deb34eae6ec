// Command pause holds a pod's namespaces open until it is told to stop.
package main

import (
	"context"
	"os/signal"
	"syscall"
)

func main() {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	<-stopped.Done()
}
