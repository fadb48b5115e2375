package mask_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

var masks = regexp.MustCompile(`\[masked(:[a-z2-7]{12})?\]`)

// masksIn are the masks in the data of a Secret or ConfigMap, by key.
func masksIn(t *testing.T, a *stacktest.Agent, path string) map[string]string {
	t.Helper()
	return masksOf(t, a.Get(t, path))
}

func masksOf(t *testing.T, answer stacktest.Answer) map[string]string {
	t.Helper()
	var o struct{ Data, BinaryData map[string]string }
	if err := json.Unmarshal([]byte(answer.Body), &o); err != nil || answer.Code/100 != 2 {
		t.Fatalf("%v, %v", answer, err)
	}
	found := map[string]string{}
	for _, data := range []map[string]string{o.Data, o.BinaryData} {
		for k, v := range data {
			if b, err := base64.StdEncoding.DecodeString(v); err == nil && len(b) > 0 {
				v = string(b)
			}
			if found[k] = masks.FindString(v); found[k] != v {
				t.Errorf("%s is %q, and not a mask", k, v)
			}
		}
	}
	return found
}

// Threat S13: masks tell equal values in Secrets of one namespace to one session, and to nobody else. Guesses that an agent
// prints, or writes where nobody is asked, get masks that tell it nothing.
func TestEquality(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	name, word := "equal-"+stacktest.Word(), stacktest.Word()+stacktest.Word()
	token := "ghp_" + word + "0123456789abcdef"
	for _, namespace := range []string{"dev", "prod"} {
		for _, n := range []string{name, name + "-too"} {
			s.Create(t, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":%q},"stringData":{"a":%q,"b":%q,"c":"another","token":%q,"empty":""}}`, n, namespace, word, word, token))
		}
	}
	one, two := s.Agent(t, "developers"), s.Agent(t, "developers")
	path := func(namespace, n string) string { return "/api/v1/namespaces/" + namespace + "/secrets/" + n }
	dev, too := masksIn(t, one, path("dev", name)), masksIn(t, one, path("dev", name+"-too"))
	if len(dev) != 5 || dev["a"] != dev["b"] || dev["a"] != too["a"] || dev["a"] == dev["c"] || dev["empty"] == "" || dev["a"] == "[masked]" {
		t.Errorf("in one session and namespace: %v, %v", dev, too)
	}
	if again := masksIn(t, one, path("dev", name)); again["a"] != dev["a"] {
		t.Errorf("read again: %v, was %v", again, dev)
	}
	seen := map[string]string{}
	for where, m := range map[string]map[string]string{"dev": dev, "prod": masksIn(t, one, path("prod", name)), "dev, another session": masksIn(t, two, path("dev", name)), "prod, another session": masksIn(t, two, path("prod", name))} {
		if other, ok := seen[m["a"]]; ok {
			t.Errorf("%s and %s have equal masks", where, other)
		}
		seen[m["a"]] = where
	}

	// Guesses where nobody is asked: right ones, in every place with a mask of its own.
	known := map[string]bool{}
	for _, m := range dev {
		known[m] = true
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(word))
	guess := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"guess"},"data":{"password":%[1]q,"token":%[2]q},"binaryData":{"api-key":%[2]q}}`, word, encoded)
	guesses := masksOf(t, one.Post(t, "/api/v1/namespaces/dev/configmaps?dryRun=All", guess))
	deployment := one.Post(t, "/apis/apps/v1/namespaces/dev/deployments?dryRun=All", fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"guess"},"spec":{"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x","env":[{"name":"PASSWORD","value":%q},{"name":"TOKEN","value":%q}]}]}}}}`, word, encoded))
	for _, m := range masks.FindAllString(deployment.Body, -1) {
		guesses["env "+m] = m
	}
	if len(guesses) != 5 {
		t.Errorf("guesses are masked as %v", guesses)
	}
	for where, m := range guesses {
		if known[m] {
			t.Errorf("a right guess in a ConfigMap or a variable (%s) has the mask of the Secret", where)
		}
	}

	// Guesses that are printed, or written as text: one constant.
	pod := s.Pod(t, "dev")
	for what, text := range map[string]string{
		"exec":          one.Kubectl(t, "exec", "-n", "dev", pod, "--", "echo", token).Stdout,
		"a variable":    one.Kubectl(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "echo TOKEN="+word+word).Stdout,
		"an annotation": one.Post(t, "/api/v1/namespaces/dev/configmaps?dryRun=All", fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"guess","annotations":{"a":%q}}}`, token)).Body,
		"a text":        one.Post(t, "/api/v1/namespaces/dev/configmaps?dryRun=All", fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"guess"},"data":{"a":%q}}`, token)).Body,
		"an event":      one.Post(t, "/api/v1/namespaces/dev/events?dryRun=All", fmt.Sprintf(`{"apiVersion":"v1","kind":"Event","metadata":{"name":"guess"},"involvedObject":{"namespace":"dev"},"message":%q}`, token)).Body,
	} {
		found := masks.FindAllString(text, -1)
		if len(found) == 0 || strings.Contains(text, word) {
			t.Errorf("%s shows %q", what, text)
		}
		for _, m := range found {
			if m != "[masked]" {
				t.Errorf("%s has the mask %s, which can be compared", what, m)
			}
		}
	}
}
