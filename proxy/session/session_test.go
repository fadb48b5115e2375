package session_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/session"
	"sallyport/shared/access"
	"sallyport/shared/broker"
)

var dev = access.Cluster{Name: "dev", Region: "eu-west-1"}

// ca is some certificate: what it certifies does not matter here.
var ca = func() []byte {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}()

// fake is a broker that issues credentials which live for life.
type fake struct {
	life  time.Duration
	slow  time.Duration
	calls atomic.Int32
	err   atomic.Pointer[access.Error]
	twist func(*broker.Token)
}

func (f *fake) Exchange(ctx context.Context, token, cluster string) (broker.Token, error) {
	n := f.calls.Add(1)
	select {
	case <-time.After(f.slow):
	case <-ctx.Done():
		return broker.Token{}, access.Errorf(access.Unavailable, "timed out")
	}
	if err := f.err.Load(); err != nil {
		return broker.Token{}, err
	}
	now := time.Now()
	t := broker.Token{
		Session:     access.Session{ID: "s1", Cluster: cluster, Tier: "observe", Principal: access.Principal{Issuer: "i", Subject: token}, Started: now, Ends: now.Add(8 * time.Hour)},
		Credentials: broker.Credentials{AccessKeyID: fmt.Sprint("ASIA", n), SecretAccessKey: "s", SessionToken: "t", Expiration: now.Add(f.life)},
		Cluster:     broker.Cluster{Name: cluster, Region: "eu-west-1", Endpoint: "https://127.0.0.1:1", CA: ca},
	}
	if f.twist != nil {
		f.twist(&t)
	}
	return t, nil
}

func who(subject string) session.Who {
	return session.Who{Principal: access.Principal{Issuer: "i", Subject: subject}, Bearer: subject, Tier: "observe"}
}

func TestTwoHundredRequestsAreOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{life: time.Hour, slow: time.Second}
		m := session.New(session.Config{Broker: f})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if _, err := m.Get(context.Background(), who("a"), dev); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
		if _, err := m.Get(context.Background(), who("b"), dev); err != nil {
			t.Error(err)
		}
		if n := f.calls.Load(); n != 2 {
			t.Errorf("%d exchanges for two agents, want 2", n)
		}
	})
}

// The first caller goes away; the others get their session from the exchange it began.
func TestACallerThatLeavesDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{life: time.Hour, slow: time.Second}
		m := session.New(session.Config{Broker: f})
		first, leave := context.WithCancel(context.Background())
		go func() { time.Sleep(100 * time.Millisecond); leave() }()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := m.Get(first, who("a"), dev); access.KindOf(err) != access.Unavailable {
				t.Errorf("the caller that left got %v", err)
			}
		})
		wg.Go(func() {
			time.Sleep(50 * time.Millisecond)
			if _, err := m.Get(context.Background(), who("a"), dev); err != nil {
				t.Errorf("the caller that stayed got %v", err)
			}
		})
		wg.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
	})
}

// Credentials are renewed ahead of their end, behind the requests' back, and no request ever waits or fails.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{life: time.Minute, slow: time.Second}
		m := session.New(session.Config{Broker: f})
		tokens := map[string]bool{}
		if _, err := m.Get(context.Background(), who("a"), dev); err != nil {
			t.Fatal(err)
		}
		for range 600 {
			before := time.Now()
			live, err := m.Get(context.Background(), who("a"), dev)
			if err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(before); waited > 0 {
				t.Fatalf("a request waited %v for a renewal", waited)
			}
			token, err := live.Token(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			tokens[token] = true
			time.Sleep(time.Second)
		}
		if n := f.calls.Load(); n < 10 || n > 16 {
			t.Errorf("%d exchanges in ten minutes of one-minute credentials", n)
		}
		if len(tokens) < 10 {
			t.Errorf("%d tokens in ten minutes of one-minute credentials", len(tokens))
		}
	})
}

// While the broker is away the session is kept until its credential ends; after that the answer is unavailable, and
// the broker is asked once a second, not once a request.
func TestBrokerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{life: time.Minute}
		m := session.New(session.Config{Broker: f})
		if _, err := m.Get(context.Background(), who("a"), dev); err != nil {
			t.Fatal(err)
		}
		f.err.Store(access.Errorf(access.Unavailable, "away").After(2 * time.Second))
		for range 57 {
			if _, err := m.Get(context.Background(), who("a"), dev); err != nil {
				t.Fatalf("the session was not kept: %v", err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Second)
		calls := f.calls.Load()
		for range 100 {
			_, err := m.Get(context.Background(), who("a"), dev)
			if access.KindOf(err) != access.Unavailable {
				t.Fatalf("got %v, want unavailable", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := f.calls.Load() - calls; n > 2 {
			t.Errorf("%d exchanges in one second of failing", n)
		}
		f.err.Store(nil)
		time.Sleep(2 * time.Second)
		if _, err := m.Get(context.Background(), who("a"), dev); err != nil {
			t.Errorf("the broker is back, and: %v", err)
		}
	})
}

// A principal whose tier the policy changed is not served with the old tier's credential.
func TestAnotherTierIsAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{life: time.Hour}
		m := session.New(session.Config{Broker: f})
		if _, err := m.Get(context.Background(), who("a"), dev); err != nil {
			t.Fatal(err)
		}
		f.twist = func(b *broker.Token) { b.Session.Tier, b.Session.ID = "operate", "s2" }
		w := who("a")
		w.Tier = "operate"
		live, err := m.Get(context.Background(), w, dev)
		if err != nil || live.Session.ID != "s2" {
			t.Errorf("got %+v, %v, want the session of tier operate", live, err)
		}
	})
}

// What the broker answers is held against what was asked.
func TestAnAnswerForSomebodyElse(t *testing.T) {
	for name, twist := range map[string]func(*broker.Token){
		"another cluster's session": func(b *broker.Token) { b.Session.Cluster = "prod" },
		"another cluster":           func(b *broker.Token) { b.Cluster.Name = "prod" },
		"another principal":         func(b *broker.Token) { b.Session.Principal.Subject = "eve" },
		"plain http":                func(b *broker.Token) { b.Cluster.Endpoint = "http://127.0.0.1:1" },
		"no certificate":            func(b *broker.Token) { b.Cluster.CA = []byte("none") },
	} {
		m := session.New(session.Config{Broker: &fake{life: time.Hour, twist: twist}})
		if live, err := m.Get(context.Background(), who("a"), dev); access.KindOf(err) != access.Internal {
			t.Errorf("%s: got %v, %v, want it refused", name, live, err)
		}
	}
}

func TestRejectedAsksAnew(t *testing.T) {
	f := &fake{life: time.Hour}
	m := session.New(session.Config{Broker: f})
	live, err := m.Get(context.Background(), who("a"), dev)
	if err != nil {
		t.Fatal(err)
	}
	m.Rejected(who("a"), dev, live)
	again, err := m.Get(context.Background(), who("a"), dev)
	if err != nil || again == live || f.calls.Load() != 2 {
		t.Errorf("got the rejected session again (%v, %d exchanges)", err, f.calls.Load())
	}
	m.Rejected(who("a"), dev, live) // late news of the old one changes nothing
	if third, _ := m.Get(context.Background(), who("a"), dev); third != again {
		t.Error("a session that was not rejected was dropped")
	}
}

func TestSweepForgetsTheUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := session.New(session.Config{Broker: &fake{life: 24 * time.Hour}})
		for _, s := range []string{"a", "b"} {
			if _, err := m.Get(context.Background(), who(s), dev); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		if _, err := m.Get(context.Background(), who("b"), dev); err != nil {
			t.Fatal(err)
		}
		m.Sweep(30 * time.Minute)
		if n := m.Len(); n != 1 {
			t.Errorf("%d sessions are held, want 1", n)
		}
	})
}

// EKS takes a token for 15 minutes from when it was made; one is never used that long.
func TestTokenIsMintedAnewInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := session.New(session.Config{Broker: &fake{life: time.Hour}})
		live, err := m.Get(context.Background(), who("a"), dev)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := live.Token(context.Background())
		time.Sleep(10 * time.Minute)
		if same, _ := live.Token(context.Background()); same != first {
			t.Error("a token was minted anew after ten minutes")
		}
		time.Sleep(2 * time.Minute)
		if other, _ := live.Token(context.Background()); other == first || !strings.HasPrefix(other, "k8s-aws-v1.") {
			t.Error("a token is used for more than twelve minutes")
		}
	})
}

func TestErrorsKeepTheirKind(t *testing.T) {
	f := &fake{}
	f.err.Store(access.Errorf(access.Denied, "no tier").Because(errors.New("because")))
	m := session.New(session.Config{Broker: f})
	for range 3 {
		if _, err := m.Get(context.Background(), who("a"), dev); access.KindOf(err) != access.Denied {
			t.Errorf("got %v, want denied", err)
		}
	}
}
