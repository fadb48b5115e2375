package gate_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/proxy/mask"
)

const (
	readsSecrets = `- {name: secrets, effect: allow, groups: [observers], verbs: [get, list, watch, create, update, patch], apiGroups: [""], resources: [secrets, configmaps]}
- {name: reveals, effect: ask, groups: [observers], verbs: [reveal], apiGroups: [""], resources: [secrets]}
- {name: bare, effect: allow, mask: "off", groups: [observers], verbs: [get], apiGroups: [""], resources: [nodes]}
`
	secrets = "/clusters/dev/api/v1/namespaces/dev/secrets"
	hunter2 = "aHVudGVyMg==" // hunter2
	db      = `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"db","namespace":"dev","uid":"s1"},"data":{"password":"` + hunter2 + `","url":"cG9zdGdyZXM="},"type":"Opaque"}`
)

// get is a GET's answer, its body whatever it is.
func (r *rig) get(t *testing.T, path string, h http.Header) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = h
	res, err := r.Client().Do(req)
	if err != nil {
		return &http.Response{}, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

func masking(t *testing.T, cluster http.HandlerFunc) *rig {
	t.Helper()
	r := newRig(t, cluster)
	r.policy(t, readsSecrets)
	return r
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		fmt.Fprint(w, body)
	}
}

// What a Secret holds is masked, alike for equal values in one session and otherwise in another.
func TestAnswersAreMasked(t *testing.T) {
	r := masking(t, says(db))
	value := func(who string) string {
		t.Helper()
		res, body, err := r.get(t, secrets+"/db", good(who))
		var s struct{ Data map[string][]byte }
		if err != nil || json.Unmarshal([]byte(body), &s) != nil || res.StatusCode != 200 || len(s.Data) != 2 || strings.Contains(body, hunter2) {
			t.Fatalf("got %d %s, %v", res.StatusCode, body, err)
		}
		return string(s.Data["password"])
	}
	one := value("bot")
	if !strings.HasPrefix(one, "[masked:") || one != value("bot") {
		t.Errorf("it is masked as %s, and then as %s", one, value("bot"))
	}
	if one == value("other") {
		t.Error("another session has the same mask")
	}
	if want, _ := base64.StdEncoding.DecodeString(mask.Encoded([]byte(strings.Repeat("bot", 32)[:32]), "dev", []byte(hunter2))); one != string(want) {
		t.Errorf("it is masked as %s, want %s by the session's key", one, want)
	}
}

// Threat S3: only JSON is asked for, however anything else is spelt, and nothing else is passed on.
func TestOnlyJSONIsNegotiated(t *testing.T) {
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "application/*": "application/json",
		"application/json": "application/json",
		"application/vnd.kubernetes.protobuf,application/json":                                  "application/json",
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json":                         "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
		"APPLICATION/VND.KUBERNETES.PROTOBUF;as=PartialObjectMetadata , application/json;q=0.1": "application/json;q=0.1",
		"application/yaml, application/cbor;q=1, text/*, */*;q=0.1":                             "application/json",
		`application/json;x="a,application/yaml"`:                                               `application/json;x="a,application/yaml"`,
		"application/vnd.kubernetes.protobuf":                                                   "406", "application/yaml": "406", "application/jsonx": "406", "text/json": "406", "application/apply-patch+yaml, application/cbor-seq": "406", "nonsense;;=": "400",
	} {
		r := masking(t, says(db))
		h := good("bot")
		if accept != "" {
			h.Set("Accept", accept)
		}
		res, body, _ := r.get(t, secrets+"/db", h)
		if len(want) == 3 {
			if fmt.Sprint(res.StatusCode) != want || len(r.reached()) != 0 {
				t.Errorf("Accept %q: got %d %s; %d reached the cluster", accept, res.StatusCode, body, len(r.reached()))
			}
			continue
		}
		if res.StatusCode != 200 {
			t.Errorf("Accept %q: got %d %s", accept, res.StatusCode, body)
			continue
		}
		q := r.reached()[0]
		if got := q.Header.Values("Accept"); len(got) != 1 || strings.ReplaceAll(got[0], " ", "") != strings.ReplaceAll(want, " ", "") || q.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept %q became %q, want %q", accept, got, want)
		}
	}
	for media, encoding := range map[string]string{"application/vnd.kubernetes.protobuf": "", "application/yaml": "", "application/cbor": "", "": "", "text/html": "", "text/plain": "", "application/json": "gzip"} {
		r := masking(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{media}
			if encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
			fmt.Fprint(w, db)
		})
		if res, s := r.do(t, "GET", secrets+"/db", nil, good("bot")); res.StatusCode != 502 || strings.Contains(s.Message, hunter2) {
			t.Errorf("%s %s: got %d %q", media, encoding, res.StatusCode, s.Message)
		}
	}
}

// What turns out to be no JSON in its middle breaks off: it never ends as if it were whole.
func TestWhatCannotBeMaskedBreaksOff(t *testing.T) {
	long := `{"kind":"SecretList","items":[` + strings.Repeat(db+",", 2000)
	for what, body := range map[string]string{"half an answer": long + db, "no JSON": long + "NaN]}", "more than JSON": db + db} {
		r := masking(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		_, got, err := r.get(t, secrets, good("bot"))
		if err == nil || strings.Contains(got, hunter2) {
			t.Errorf("%s: it ended with %v after %d bytes", what, err, len(got))
		}
	}
}

// Threat S2: errors and warnings do not repeat what is stored.
func TestErrorsAndWarningsAreMasked(t *testing.T) {
	const token = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
	r := masking(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Add("Warning", `299 - "the value is `+token+`"`)
		w.WriteHeader(422)
		fmt.Fprintf(w, `{"kind":"Status","status":"Failure","reason":"Invalid","code":422,"message":"Secret \"db\" is invalid: metadata.labels: Invalid value: \"hunter2\": no","details":{"name":"db","kind":"Secret","causes":[{"reason":"FieldValueInvalid","message":"Invalid value: \"hunter2\": no","field":"metadata.labels"}]}}`)
	})
	res, s := r.do(t, "PATCH", secrets+"/db?dryRun=All", strings.NewReader(`{"metadata":{"labels":{"a":"b"}}}`), good("bot", "Content-Type", "application/merge-patch+json"))
	all := fmt.Sprint(s, res.Header)
	if res.StatusCode != 422 || strings.Contains(all, "hunter2") || strings.Contains(all, token) || s.Details == nil || s.Details.Causes[0].Field != "metadata.labels" {
		t.Errorf("got %d %s", res.StatusCode, all)
	}
}

// Threat S11: a mask does not come back, in whatever a write is written.
func TestMasksDoNotComeBack(t *testing.T) {
	word := mask.Plain([]byte(strings.Repeat("k", 32)), "dev", []byte("x"))
	encoded := base64.StdEncoding.EncodeToString([]byte(word))
	for _, test := range []struct{ method, path, media, body string }{
		{"PUT", secrets + "/db", "application/json", `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"db"},"data":{"password":"` + encoded + `"}}`},
		{"PUT", secrets + "/db", "application/yaml", "kind: Secret\napiVersion: v1\nmetadata: {name: db}\nstringData: {password: '" + word + "'}\n"},
		{"PATCH", secrets + "/db", "application/merge-patch+json", `{"data":{"password":"` + encoded + `"}}`},
		{"PATCH", secrets + "/db", "application/json-patch+json", `[{"op":"add","path":"/data/x","value":"` + encoded + `"}]`},
		{"PATCH", secrets + "/db", "application/strategic-merge-patch+json", `{"stringData":{"x":"[masked]"}}`},
		{"PATCH", secrets + "/db?fieldManager=x", "application/apply-patch+yaml", "kind: Secret\napiVersion: v1\nmetadata: {name: db}\ndata: {password: " + encoded + "}\n"},
		{"POST", "/clusters/dev/api/v1/namespaces/dev/configmaps", "application/json", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c"},"data":{"a":"b: ` + word + `"}}`},
	} {
		r := masking(t, says("{}"))
		res, s := r.do(t, test.method, test.path, strings.NewReader(test.body), good("bot", "Content-Type", test.media))
		if res.StatusCode != 422 || !strings.Contains(s.Message, "mask") || len(r.reached()) != 0 {
			t.Errorf("%s %s: got %d %q; %d reached the cluster", test.method, test.media, res.StatusCode, s.Message, len(r.reached()))
		}
	}
}

// Logs and the output of commands go through the detectors; discovery, and what a rule exempts, is as it is.
func TestTextIsMasked(t *testing.T) {
	const token = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
	r := masking(t, func(w http.ResponseWriter, q *http.Request) {
		switch {
		case strings.HasSuffix(q.URL.Path, "/log"):
			fmt.Fprintln(w, "a line\ntoken "+token)
		case strings.HasSuffix(q.URL.Path, "/exec"):
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n")
			_, _ = io.WriteString(c, output("it is "+token[:20])+output(token[20:]+" \n"))
		default:
			fmt.Fprint(w, `{"gitVersion":"`+token+`"}`)
		}
	})
	if res, body, err := r.get(t, "/clusters/dev/api/v1/namespaces/dev/pods/web/log", good("bot")); err != nil || res.StatusCode != 200 || strings.Contains(body, token) || !strings.Contains(body, "a line\ntoken [masked]") {
		t.Errorf("a log: %d %q, %v", res.StatusCode, body, err)
	}
	c, br := dial(t, r, execRequest+"Authorization: Bearer good:bot\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("got %+v, %v", res, err)
	}
	line, err := br.ReadString('\n')
	if err != nil || strings.Contains(line, token[10:20]) || strings.Contains(line, token[20:]) || !strings.Contains(line, "[masked]") {
		t.Errorf("an exec: %q, %v", line, err)
	}
	c.Close()
	for _, q := range r.reached() {
		if q.Header.Get("Sec-Websocket-Extensions") != "" {
			t.Error("an extension was offered to the cluster")
		}
	}
	for _, path := range []string{"/clusters/dev/version", "/clusters/dev/api/v1/nodes/n"} {
		if res, body, _ := r.get(t, path, good("bot")); res.StatusCode != 200 || !strings.Contains(body, token) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

// One value is shown as it is when people said so: that one, once, and the cluster never hears of the parameter.
func TestReveal(t *testing.T) {
	r := masking(t, says(db))
	r.people.decide = approve
	res, body, err := r.get(t, secrets+"/db?reveal=password", good("bot"))
	if err != nil || res.StatusCode != 200 || !strings.Contains(body, hunter2) || strings.Contains(body, "cG9zdGdyZXM=") {
		t.Errorf("got %d %s, %v", res.StatusCode, body, err)
	}
	for _, q := range r.reached() {
		if q.URL.RawQuery != "" {
			t.Errorf("the cluster was asked for %s", q.URL)
		}
	}
	if o := r.people.opened(); !strings.HasSuffix(o.Raw.Target, "?reveal=password") {
		t.Errorf("people were asked about %s", o.Raw.Target)
	}
	events, _ := r.recorder.wait(t, 2)
	if e := events[0]; e.Verb != "reveal" || e.Stage != auditv1.StageRequestReceived || e.Annotations["sallyport.io/approved-by"] == "" {
		t.Errorf("recorded first %+v", e)
	}
	if res, body, _ := r.get(t, secrets+"/db", good("bot")); res.StatusCode != 200 || strings.Contains(body, hunter2) {
		t.Errorf("after that a read shows %s", body)
	}
	r.people.decide = deny("no")
	if res, body, _ := r.get(t, secrets+"/other?reveal=password", good("bot")); res.StatusCode != 403 || strings.Contains(body, hunter2) {
		t.Errorf("denied: %d %s", res.StatusCode, body)
	}
}

// What nothing masks is not passed on: headers that the API server does not set of itself, and trailers.
func TestHeadersAndTrailersOfAMaskedAnswer(t *testing.T) {
	r := masking(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Password", "hunter2")
		w.Header().Set("X-Kubernetes-Pf-Flowschema-Uid", "f1")
		w.Header().Set("Trailer", "X-Last")
		fmt.Fprint(w, db)
		w.(http.Flusher).Flush()
		w.Header().Set("X-Last", "hunter2")
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "hunter2")
	})
	res, body, err := r.get(t, secrets+"/db", good("bot"))
	if err != nil || res.StatusCode != 200 || !strings.Contains(body, "Secret") {
		t.Fatalf("got %d %q, %v", res.StatusCode, body, err)
	}
	if all := fmt.Sprint(res.Header, res.Trailer); strings.Contains(all, "hunter2") || res.Header.Get("X-Kubernetes-Pf-Flowschema-Uid") != "f1" || res.Header.Get("Content-Type") == "" {
		t.Errorf("the caller got headers %v and trailers %v", res.Header, res.Trailer)
	}
}
