package mask_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

// Threat S10: logs and what commands print go through the detectors, however it is cut; copies of files come out byte for byte.
func TestStreams(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	developer := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	token := "ghp_" + strings.Repeat("a1B2c3D4e5", 4)[:36]
	out := developer.Kubectl(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "printf 'it is "+token[:15]+"'; sleep 0.02; printf '"+token[15:]+"\\n'; echo plain")
	if out.Code != 0 || strings.Contains(out.Stdout, token[8:15]) || strings.Contains(out.Stdout, token[15:]) || !strings.Contains(out.Stdout, "it is [masked]\nplain\n") {
		t.Errorf("exec: %v", out)
	}
	name := "talks-" + stacktest.Word()
	s.Create(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"`+name+`","namespace":"dev"},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"localhost/web:1","stdin":true,
		"command":["sh","-c","while true; do printf 'it is `+token[:15]+`'; sleep 0.02; printf '`+token[15:]+`\\n'; echo plain; echo 'it is `+token+`' >&2; sleep 0.2; done"]}]}}`)
	s.Admin(t, "wait", "pod", name, "-n", "dev", "--for=condition=Ready", "--timeout=30s")
	for _, args := range [][]string{{"logs", "-f", name, "-n", "dev"}, {"attach", name, "-n", "dev"}} {
		p := developer.Start(t, args...)
		for range 3 {
			p.Await("it is [masked]", within)
			p.Await("plain", within)
		}
		p.Stop()
		text := p.Text()
		if args[0] == "attach" { // it may have begun between the two halves, where the second is no token
			text = strings.Replace(text, "\n"+token[15:]+"\n", "\n", 1)
		}
		if strings.Contains(text, token[5:15]) || strings.Contains(text, token[15:25]) {
			t.Errorf("kubectl %s: %s", strings.Join(args, " "), text)
		}
	}
	file := filepath.Join(developer.Dir(), "file")
	content := strings.Repeat("binary \x00\xff "+token+"\n", 1000)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"cp", "-n", "dev", "file", pod + ":/tmp/masked-copy"}, {"cp", "-n", "dev", pod + ":/tmp/masked-copy", "back"}} {
		if out := developer.Kubectl(t, args...); out.Code != 0 {
			t.Fatalf("kubectl %s: %v", strings.Join(args, " "), out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(developer.Dir(), "back")); err != nil || string(b) != content {
		t.Errorf("the copy came back as %d bytes of %d, %v", len(b), len(content), err)
	}
}
