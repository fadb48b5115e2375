package authn

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxSources bounds what an attacker with many addresses can make the limiter remember.
const maxSources = 8192

// limiter holds one token bucket an address.
type limiter struct {
	rate  rate.Limit
	burst int
	now   func() time.Time

	mu      sync.Mutex
	sources map[string]*rate.Limiter
}

func newLimiter(perSecond float64, burst int, now func() time.Time) *limiter {
	return &limiter{rate: rate.Limit(perSecond), burst: burst, now: now, sources: map[string]*rate.Limiter{}}
}

// take counts one unknown token against source; positive is how long to wait instead.
func (l *limiter) take(source string) time.Duration {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.sources[source]
	if !ok {
		if len(l.sources) >= maxSources {
			for s, b := range l.sources {
				if b.TokensAt(now) >= float64(l.burst) { // full again: forgetting it changes nothing
					delete(l.sources, s)
				}
			}
			if len(l.sources) >= maxSources {
				return time.Second
			}
		}
		b = rate.NewLimiter(l.rate, l.burst)
		l.sources[source] = b
	}
	r := b.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return wait
	}
	return 0
}
