package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/session"
	"sallyport/shared/access"
	"sallyport/shared/broker"
)

// For some seconds after a change the broker may obey another policy than the proxy. A session of another tier than the
// proxy decided for is none, and asking the broker again at once would only be asked again.
func TestTierDisagreement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{life: time.Hour, slow: 20 * time.Millisecond}
		f.twist = func(b *broker.Token) { b.Session.Tier = "operate" }
		m := session.New(session.Config{Broker: f})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := m.Get(ctx, who("a"), dev); access.KindOf(err) != access.Unavailable {
			t.Errorf("got %v", err)
		}
		if n := f.calls.Load(); n != 1 {
			t.Errorf("the broker was asked %d times", n)
		}
		synctest.Wait()
		time.Sleep(time.Second)
	})
}
