// Package mask_test looks for secrets in everything an agent can get out of a running stack: planted ones, in every carrier
// that threats.md knows, by every read and encoding that a client can ask for.
package mask_test

import (
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

const within = 30 * time.Second
