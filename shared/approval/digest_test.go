package approval_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"sallyport/shared/access"
	"sallyport/shared/approval"
)

func request() approval.Request {
	return approval.Request{
		Cluster: "dev", Verb: "patch", Target: "/apis/apps/v1/namespaces/dev/deployments/web?fieldManager=kubectl&dryRun=All", ContentType: "application/json",
		Principal: access.Principal{Issuer: "https://i", Subject: "s", Agent: "bot", Run: map[string]string{"run_id": "1"}}, Body: []byte(`{"a":1}`),
	}
}

func digest(t *testing.T, r approval.Request) string {
	t.Helper()
	d, err := approval.Digest(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(d) != 64 || strings.Trim(d, "0123456789abcdef") != "" {
		t.Errorf("got %q", d)
	}
	return d
}

func TestDigest(t *testing.T) {
	want := digest(t, request())
	same := map[string]func(*approval.Request){
		"again": func(*approval.Request) {},
		"query reordered": func(r *approval.Request) {
			r.Target = "/apis/apps/v1/namespaces/dev/deployments/web?dryRun=All&fieldManager=kubectl"
		},
		"query escaped":    func(r *approval.Request) { r.Target = strings.Replace(r.Target, "kubectl", "%6bubectl", 1) },
		"another name":     func(r *approval.Request) { r.Principal.Agent = "x" },
		"groups and owner": func(r *approval.Request) { r.Principal.Groups, r.Principal.Owner = []string{"g"}, "o" },
	}
	for name, change := range same {
		r := request()
		change(&r)
		if digest(t, r) != want {
			t.Errorf("%s: another digest", name)
		}
	}
	seen := map[string]string{want: "as it is"}
	for name, change := range map[string]func(*approval.Request){
		"cluster":            func(r *approval.Request) { r.Cluster = "prod" },
		"issuer":             func(r *approval.Request) { r.Principal.Issuer = "https://i/" },
		"subject":            func(r *approval.Request) { r.Principal.Subject = "S" },
		"run":                func(r *approval.Request) { r.Principal.Run = map[string]string{"run_id": "2"} },
		"verb":               func(r *approval.Request) { r.Verb = "update" },
		"path":               func(r *approval.Request) { r.Target = strings.Replace(r.Target, "/web", "/web2", 1) },
		"path, slash":        func(r *approval.Request) { r.Target = strings.Replace(r.Target, "/web", "/web/", 1) },
		"query value":        func(r *approval.Request) { r.Target = strings.Replace(r.Target, "kubectl", "helm", 1) },
		"query name":         func(r *approval.Request) { r.Target = strings.Replace(r.Target, "fieldManager", "fieldmanager", 1) },
		"query gone":         func(r *approval.Request) { r.Target, _, _ = strings.Cut(r.Target, "?") },
		"query more":         func(r *approval.Request) { r.Target += "&force=true" },
		"query twice":        func(r *approval.Request) { r.Target += "&dryRun=All" },
		"query empty":        func(r *approval.Request) { r.Target += "&x" },
		"content type":       func(r *approval.Request) { r.ContentType = "application/json; charset=utf-8" },
		"no content type":    func(r *approval.Request) { r.ContentType = "" },
		"body":               func(r *approval.Request) { r.Body = []byte(`{"a":2}`) },
		"body, space":        func(r *approval.Request) { r.Body = []byte(`{"a": 1}`) },
		"no body":            func(r *approval.Request) { r.Body = nil },
		"type moved to body": func(r *approval.Request) { r.ContentType, r.Body = "", []byte(`application/json{"a":1}`) },
		"cluster and verb":   func(r *approval.Request) { r.Cluster, r.Verb = "devp", "atch" },
	} {
		r := request()
		change(&r)
		d := digest(t, r)
		if other, there := seen[d]; there {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[d] = name
	}
	// What one part ends with is not what the next begins with.
	pair := func(a, b func(*approval.Request)) {
		t.Helper()
		one, two := request(), request()
		a(&one)
		b(&two)
		if digest(t, one) == digest(t, two) {
			t.Errorf("%+v and %+v have one digest", one, two)
		}
	}
	pair(func(r *approval.Request) { r.Verb, r.Target = "get", "/api/x" }, func(r *approval.Request) { r.Verb, r.Target = "get/api", "/x" })
	pair(func(r *approval.Request) { r.Target = "/x?a=bc" }, func(r *approval.Request) { r.Target = "/x?ab=c" })
	pair(func(r *approval.Request) { r.Target = "/x?a=b&a=c" }, func(r *approval.Request) { r.Target = "/x?a=bc" })
	pair(func(r *approval.Request) { r.Target = "/x?a=b&c=d" }, func(r *approval.Request) { r.Target = "/x?a=b&a=c&a=d" })
	pair(func(r *approval.Request) { r.Target = "/x?a" }, func(r *approval.Request) { r.Target = "/xa" })

	// The words of a command keep their order.
	exec := request()
	exec.Target = "/api/v1/namespaces/dev/pods/web/exec?command=rm&command=a&command=b&stdin=true"
	first := digest(t, exec)
	exec.Target = "/api/v1/namespaces/dev/pods/web/exec?command=rm&command=b&command=a&stdin=true"
	if digest(t, exec) == first {
		t.Error("the order of a command's words does not matter")
	}
	exec.Target = "/api/v1/namespaces/dev/pods/web/exec?command=rm&stdin=true&command=a&command=b"
	if digest(t, exec) != first {
		t.Error("where other parameters stand matters")
	}
	for name, change := range map[string]func(*approval.Request){
		"no cluster":    func(r *approval.Request) { r.Cluster = "" },
		"no verb":       func(r *approval.Request) { r.Verb = "" },
		"no path":       func(r *approval.Request) { r.Target = "?a=b" },
		"no target":     func(r *approval.Request) { r.Target = "" },
		"a bad escape":  func(r *approval.Request) { r.Target = "/api?a=%zz" },
		"a semicolon":   func(r *approval.Request) { r.Target = "/api?a=1;b=2" },
		"absolute form": func(r *approval.Request) { r.Target = "https://x/api" },
	} {
		r := request()
		change(&r)
		if d, err := approval.Digest(r); access.KindOf(err) != access.Invalid || d != "" {
			t.Errorf("%s: got %q, %v", name, d, err)
		}
	}
}

// The digest must stay what it is: approvals are kept under it while a new version is deployed.
func TestDigestGolden(t *testing.T) {
	if got, want := digest(t, request()), "59275b0d493fc098f2bdeea2856f03facf73eeddca83373fbf6eba8d20b63cde"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Two requests have one digest if and only if all that is bound is equal.
func FuzzDigest(f *testing.F) {
	f.Add("dev", "i", "s", "k", "v", "delete", "/api/v1/pods", "a", "1", "b", "2", "application/json", []byte("{}"), uint8(0), "x")
	f.Add("d", "i", "s", "", "", "exec", "/p", "command", "sh", "command", "-c", "", []byte(nil), uint8(7), "y")
	f.Add("a", "b", "c", "d", "e", "f", "/", "", "", "", "", "g", []byte("h"), uint8(12), "")
	f.Fuzz(func(t *testing.T, cluster, issuer, subject, claim, value, verb, path, n1, v1, n2, v2, media string, body []byte, what uint8, more string) {
		type bound struct {
			cluster, issuer, subject, verb, path, media, body string
			run                                               map[string]string
			query                                             url.Values
		}
		pairs := [][2]string{{n1, v1}, {n2, v2}}
		make1 := func(b bound, pairs [][2]string) (approval.Request, bool) {
			var q []string
			for _, p := range pairs {
				q = append(q, url.QueryEscape(p[0])+"="+url.QueryEscape(p[1]))
			}
			r := approval.Request{Cluster: b.cluster, Verb: b.verb, ContentType: b.media, Body: []byte(b.body), Target: b.path + "?" + strings.Join(q, "&"),
				Principal: access.Principal{Issuer: b.issuer, Subject: b.subject, Run: b.run}}
			return r, b.cluster != "" && b.verb != "" && strings.HasPrefix(b.path, "/")
		}
		values := func(pairs [][2]string) url.Values {
			q := url.Values{}
			for _, p := range pairs {
				q.Add(p[0], p[1])
			}
			return q
		}
		one := bound{cluster, issuer, subject, verb, path, media, string(body), map[string]string{claim: value}, values(pairs)}
		two := one
		two.run = maps.Clone(one.run)
		others := append([][2]string{}, pairs...)
		switch what % 16 {
		case 0:
			two.cluster = more
		case 1:
			two.issuer = more
		case 2:
			two.subject = more
		case 3:
			two.run[claim] = more
		case 4:
			two.run[more] = value
		case 5:
			two.verb = more
		case 6:
			two.path = "/" + more
		case 7:
			two.media = more
		case 8:
			two.body = more
		case 9:
			others[0][0] = more
		case 10:
			others[1][1] = more
		case 11:
			others = append(others, [2]string{more, more})
		case 12:
			others[0], others[1] = others[1], others[0] // equal only when the names differ
		case 13: // what ends one part begins the next
			two.cluster, two.verb = one.cluster+one.verb, more
		case 14:
			two.media, two.body = "", one.media+one.body
		case 15:
			others[0][0], others[0][1] = n1+v1, ""
		}
		two.query = values(others)
		if strings.Contains(one.path+two.path, "?") {
			return // that would be another query
		}
		a, ok := make1(one, pairs)
		b, okToo := make1(two, others)
		da, err := approval.Digest(a)
		if ok != (err == nil) {
			t.Fatalf("%q: %v", a.Target, err)
		}
		db, err := approval.Digest(b)
		if okToo != (err == nil) {
			t.Fatalf("%q: %v", b.Target, err)
		}
		if ok && okToo && (da == db) != reflect.DeepEqual(one, two) {
			t.Errorf("%+v and %+v: %s and %s", one, two, da, db)
		}
		again, _ := approval.Digest(a)
		if again != da {
			t.Error("the same request has two digests")
		}
	})
}

func TestTarget(t *testing.T) {
	decode := func(s string) map[string]any {
		t.Helper()
		var v map[string]any
		d := json.NewDecoder(bytes.NewReader([]byte(s)))
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	const deployment = `{"kind":"Deployment","metadata":{"name":"web","uid":"u1","generation":3,"resourceVersion":"7","managedFields":[{"manager":"m"}]},"spec":{"replicas":2},"status":{"ready":1}}`
	if got, want := approval.Target(decode(deployment)), (access.Target{UID: "u1", Generation: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	typed := decode(deployment)
	for _, n := range []any{int64(3), float64(3), json.Number("3")} {
		typed["metadata"].(map[string]any)["generation"] = n
		if got := approval.Target(typed).Generation; got != 3 {
			t.Errorf("%T: %d", n, got)
		}
	}
	const config = `{"kind":"ConfigMap","metadata":{"name":"c","uid":"u1","resourceVersion":"7","managedFields":[{"manager":"m"}],"labels":{"a":"b"}},"data":{"k":"v"},"status":{"x":1}}`
	was := decode(config)
	want := approval.Target(was)
	if want.UID != "u1" || want.Generation != 0 || len(want.Hash) != 64 {
		t.Errorf("got %+v", want)
	}
	if was["status"] == nil || was["metadata"].(map[string]any)["managedFields"] == nil {
		t.Error("the object was changed")
	}
	for name, test := range map[string]struct {
		object string
		same   bool
	}{
		"as it is":                {config, true},
		"other order":             {`{"data":{"k":"v"},"kind":"ConfigMap","metadata":{"labels":{"a":"b"},"uid":"u1","name":"c"}}`, true},
		"status":                  {strings.Replace(config, `"x":1`, `"x":2,"conditions":[]`, 1), true},
		"no status":               {strings.Replace(config, `,"status":{"x":1}`, ``, 1), true},
		"resourceVersion":         {strings.Replace(config, `"7"`, `"8"`, 1), true},
		"managedFields":           {strings.Replace(config, `"manager":"m"`, `"manager":"n"`, 1), true},
		"data":                    {strings.Replace(config, `"v"`, `"w"`, 1), false},
		"label":                   {strings.Replace(config, `"b"`, `"c"`, 1), false},
		"annotation":              {strings.Replace(config, `"labels"`, `"annotations":{"x":"y"},"labels"`, 1), false},
		"uid":                     {strings.Replace(config, `"u1"`, `"u2"`, 1), false},
		"deletionTimestamp":       {strings.Replace(config, `"uid"`, `"deletionTimestamp":"2026-01-01T00:00:00Z","uid"`, 1), false},
		"a field status":          {strings.Replace(config, `"k":"v"`, `"k":"v","status":"z"`, 1), false}, // only the object's own is left out
		"resourceVersion in data": {strings.Replace(config, `"k":"v"`, `"k":"v","resourceVersion":"z"`, 1), false},
	} {
		if got := approval.Target(decode(test.object)); (got == want) != test.same {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := approval.Target(nil); got != (access.Target{}) {
		t.Errorf("got %+v of nothing", got)
	}
	if got := approval.Target(map[string]any{"metadata": "x", "spec": 1}); got.Hash == "" {
		t.Errorf("got %+v", got)
	}
}
