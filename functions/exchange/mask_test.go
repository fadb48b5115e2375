package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"sallyport/shared/access"
)

// The key is one session's, the same each time, and nobody gets a session without it.
func TestMaskKeys(t *testing.T) {
	f := newFixture(t)
	key := func(who string) []byte {
		t.Helper()
		a := f.ask(t, who, "dev")
		if a.Error != nil || len(a.Token.MaskKey) != 32 {
			t.Fatalf("%+v", a)
		}
		return a.Token.MaskKey
	}
	one := key("good:bot")
	if !bytes.Equal(one, key("good:bot")) {
		t.Error("one session has two keys")
	}
	if bytes.Equal(one, key("good:other")) {
		t.Error("two sessions have one key")
	}
	for what, read := range map[string]func() (string, error){
		"away":      func() (string, error) { return "", errors.New("secret detail") },
		"no JSON":   func() (string, error) { return "hunter2hunter2hunter2hunter2hunter2hunter2", nil },
		"too short": func() (string, error) { return `{"key":"hunter2"}`, nil },
		"no key":    func() (string, error) { return `{}`, nil },
	} {
		f := newFixture(t)
		f.broker.masks = &maskKeys{read: func(context.Context) (string, error) { return read() }}
		a := f.ask(t, "good:bot", "dev")
		if a.Token != nil || a.Error == nil || a.Error.Kind != access.Unavailable || a.Error.RetryAfter == 0 || strings.Contains(a.Error.Description, "secret detail") || len(f.assumed) != 0 {
			t.Errorf("%s: %+v, assumed %v", what, a, f.assumed)
		}
		if strings.Contains(f.log.String(), "hunter2") {
			t.Errorf("%s: the log has the secret: %s", what, f.log.String())
		}
	}
}
