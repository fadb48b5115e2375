package helm_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/mask/helm"
)

// sized is a release whose text is about so long.
func sized(n int) []byte {
	return pack(`{"name":"web","info":{},"config":"`+strings.Repeat("x", n)+`"}`, 2)
}

// The memory that releases take does not grow with how many are read at once: two large ones are not open together, and small
// ones do not wait for one another.
func TestRoom(t *testing.T) {
	defer helm.SetPatience(time.Hour)()
	read := func(readers int, payload []byte, plain func([]byte) string) {
		var done sync.WaitGroup
		for range readers {
			done.Go(func() {
				if out, ok, err := helm.Mask(payload, helm.SecretLayers, helm.Options{Plain: plain}); len(out) == 0 || !ok || err != nil {
					t.Errorf("release %v, %v", ok, err)
				}
			})
		}
		done.Wait()
	}
	var open, most atomic.Int64
	read(3, sized(8<<20+1), func([]byte) string {
		if n := open.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(20 * time.Millisecond)
		open.Add(-1)
		return "[masked]"
	})
	if most.Load() != 1 {
		t.Errorf("%d large releases were open at once", most.Load())
	}
	var all sync.WaitGroup
	all.Add(8)
	read(8, sized(1<<20), func([]byte) string {
		all.Done()
		all.Wait() // until all are here, or never
		return "[masked]"
	})
}

// Who waits too long for room is told so, and gives up no room that it does not have.
func TestNoRoom(t *testing.T) {
	defer helm.SetPatience(10 * time.Millisecond)()
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		_, _, err := helm.Mask(sized(15<<20), helm.SecretLayers, helm.Options{Plain: func([]byte) string {
			close(entered)
			<-leave
			return "[masked]"
		}})
		if err != nil {
			t.Error(err)
		}
	}()
	<-entered
	for range 2 {
		if out, ok, err := helm.Mask(sized(2<<20), helm.SecretLayers, helm.Options{}); out != nil || !ok || !errors.Is(err, helm.ErrBusy) {
			t.Errorf("%d bytes, release %v, %v", len(out), ok, err)
		}
	}
	if _, ok, err := helm.Mask(sized(1<<10), helm.SecretLayers, helm.Options{}); !ok || err != nil {
		t.Errorf("a small one: release %v, %v", ok, err)
	}
	close(leave)
	<-left
	// All of it was given back, by whatever was refused too.
	for range 2 {
		_, _, _ = helm.Mask(pack(`{"name":"web","info":{},"config":{"a":`+strings.Repeat("[", 250)+strings.Repeat("]", 250)+`}}`, 2), helm.SecretLayers, helm.Options{})
	}
	if _, ok, err := helm.Mask(sized(16<<20-100), helm.SecretLayers, helm.Options{}); !ok || err != nil {
		t.Errorf("release %v, %v", ok, err)
	}
}
