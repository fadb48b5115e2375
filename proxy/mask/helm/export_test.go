package helm

import "time"

// SetPatience changes how long a release waits for room, until back is called.
func SetPatience(d time.Duration) (back func()) {
	was := patience
	patience = d
	return func() { patience = was }
}
