package settings_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

func TestEnvironmentIsReadBack(t *testing.T) {
	want := settings.Proxy{Listen: ":8443", MetricsListen: ":9090", ExchangeFunction: "f", ReviewFunction: "v", PolicyBucket: "b", RecordingsBucket: "r", Drain: "1s"}
	env := settings.Environment(want)
	if _, ok := env["SALLYPORT_TLS_KEY"]; ok {
		t.Error("an empty optional setting is in the environment")
	}
	got, err := settings.From[settings.Proxy](func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMissingSettingsAreAllNamed(t *testing.T) {
	_, err := settings.From[settings.Exchange](func(k string) string { return map[string]string{"SALLYPORT_TABLE": "t"}[k] })
	if access.KindOf(err) != access.Invalid {
		t.Fatalf("error %v is not invalid", err)
	}
	if !strings.Contains(err.Error(), "SALLYPORT_POLICY_BUCKET") {
		t.Errorf("%q does not name SALLYPORT_POLICY_BUCKET", err)
	}
	if strings.Contains(err.Error(), "SALLYPORT_TABLE") {
		t.Errorf("%q names a setting that is there", err)
	}
}
