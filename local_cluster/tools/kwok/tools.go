//go:build tools

// Package tools pins the KWOK command: one module for this upstream alone.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
