// Package gate_test drives the gate of a running stack: as agents with kubectl and client-go, as attackers byte by byte,
// and as the auditor who reads the cluster's audit log and the gate's record afterwards.
package gate_test

import (
	"testing"

	"sallyport/e2e/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.Refusing) }
