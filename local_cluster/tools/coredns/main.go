// Command coredns is CoreDNS with the plugins the local cluster's Corefile uses. The stock
// command links every cloud provider's SDK.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/template"
)

// The order in which plugins handle a query; what is not named here is not accepted.
var directives = []string{
	"reload", "bind", "health", "ready", "errors", "cache", "kubernetes", "template", "loop", "forward",
}

func main() {
	dnsserver.Directives = directives
	coremain.Run()
}
