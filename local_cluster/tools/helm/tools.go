//go:build tools

// Package tools pins the Helm command: one module for this upstream alone.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
