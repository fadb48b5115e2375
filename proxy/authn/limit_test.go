package authn

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(2, 3, func() time.Time { return now })
	for i := range 3 {
		if wait := l.take("a"); wait != 0 {
			t.Fatalf("token %d of the burst waits %v", i, wait)
		}
	}
	if wait := l.take("a"); wait <= 0 || wait > time.Second {
		t.Errorf("past the burst the wait is %v", wait)
	}
	if wait := l.take("b"); wait != 0 {
		t.Errorf("another address waits %v", wait)
	}
	now = now.Add(500 * time.Millisecond)
	if wait := l.take("a"); wait != 0 {
		t.Errorf("half a second later, at two a second, the wait is %v", wait)
	}
}

// What an attacker with many addresses can make the limiter hold is bounded, and it recovers.
func TestLimiterForgets(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(1, 1, func() time.Time { return now })
	for i := range maxSources + 100 {
		l.take(fmt.Sprint(i))
	}
	if n := len(l.sources); n > maxSources {
		t.Errorf("%d addresses are held", n)
	}
	if wait := l.take("late"); wait == 0 {
		t.Error("a full limiter lets an unknown address pass")
	}
	now = now.Add(2 * time.Second)
	if wait := l.take("late"); wait != 0 {
		t.Errorf("two seconds later the wait is still %v", wait)
	}
}
