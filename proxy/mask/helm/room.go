package helm

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/semaphore"
)

// ErrBusy is what Mask returns when too many others are looked into for too long.
var ErrBusy = errors.New("too many releases are looked into at once")

// room is for the text of all releases that are looked into at once, in this process. Whoever wrote a release may have made
// it so that masking takes some 40 times its text in memory, and many may be read at once; so there is room for one of the
// largest, or for many of those that charts are made of. They come in turn, whatever their size.
var room = semaphore.NewWeighted(maxInflated)

// patience is how long a release waits for room. Then it is masked whole: a caller that waits longer is gone.
var patience = 30 * time.Second

// enter waits for room for a text. leave gives it back.
func enter(size int) (leave func(), err error) {
	n := int64(max(size, 1))
	if !room.TryAcquire(n) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if room.Acquire(ctx, n) != nil {
			return nil, ErrBusy
		}
	}
	return func() { room.Release(n) }, nil
}
