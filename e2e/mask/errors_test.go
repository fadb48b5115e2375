package mask_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

// Media types of patches.
const (
	asJSON    = "application/json"
	merge     = "application/merge-patch+json"
	strategic = "application/strategic-merge-patch+json"
	jsonPatch = "application/json-patch+json"
	apply     = "application/apply-patch+yaml"
)

// A write is a request that changes something, or would.
type write struct {
	method, target, media, body string
	accept                      string
}

func (w write) String() string {
	return fmt.Sprintf("%s %s %s %q %s", w.method, w.target, w.media, w.accept, w.body)
}

func (w write) by(t *testing.T, a *stacktest.Agent) stacktest.Answer {
	t.Helper()
	header := []string{stacktest.Bearer(a.Token)}
	if w.body != "" {
		header = append(header, "Content-Type: "+w.media)
	}
	if w.accept != "" {
		header = append(header, "Accept: "+w.accept)
	}
	return a.Stack().Do(t, stacktest.Request{Method: w.method, Target: a.Stack().Path(w.target), Header: header, Body: w.body})
}

// text is all of an answer.
func text(a stacktest.Answer) string {
	var b strings.Builder
	_ = a.Header.Write(&b)
	return b.String() + a.Body
}

// past sends a write to the cluster itself, as its administrator. It is to be a dry run, or to fail.
func (w write) past(t *testing.T, s *stacktest.Stack) string {
	t.Helper()
	admin := pastTheGate(t, s, canary.New())
	req, err := http.NewRequestWithContext(t.Context(), w.method, admin.base+w.target, strings.NewReader(w.body))
	if err != nil {
		t.Fatal(err)
	}
	if w.body != "" {
		req.Header.Set("Content-Type", w.media)
	}
	if w.accept != "" {
		req.Header.Set("Accept", w.accept)
	}
	res, err := admin.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	_ = res.Write(&b)
	return b.String()
}

// Threat S2: what is stored is in no error and in no warning, of whatever kind it is that a write makes nonsense of.
func TestErrors(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	set := canary.New()
	name := "errors-" + stacktest.Word()
	env := `[{"name":"API_TOKEN","value":"<<env|word>>"},{"name":"MODE","value":"<<env by shape|github>>"}]`
	template := `{"metadata":{"labels":{"app":"` + name + `"}},"spec":{"restartPolicy":"Never","nodeSelector":{"no":"node"},"containers":[{"name":"c","image":"localhost/web:1","args":["--dsn","<<args|url>>"],"env":` + env + `}]}}`
	always := strings.Replace(template, `"restartPolicy":"Never",`, "", 1)
	meta := `"metadata":{"name":"` + name + `","namespace":"dev"}`
	for _, manifest := range []string{
		`{"apiVersion":"v1","kind":"ConfigMap",` + meta + `,"immutable":true,"data":{"PASSWORD":"<<ConfigMap|word>>","text":"<<ConfigMap, text|github>>"},"binaryData":{"api-key":"<<ConfigMap, binary|word|base64>>"}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment",` + meta + `,"spec":{"replicas":0,"selector":{"matchLabels":{"app":"` + name + `"}},"template":` + always + `}}`,
		`{"apiVersion":"apps/v1","kind":"StatefulSet",` + meta + `,"spec":{"replicas":0,"serviceName":"x","selector":{"matchLabels":{"app":"` + name + `"}},"template":` + always + `}}`,
		`{"apiVersion":"batch/v1","kind":"Job",` + meta + `,"spec":{"suspend":true,"template":` + strings.Replace(template, `"metadata":{"labels":{"app":"`+name+`"}},`, "", 1) + `}}`,
		`{"apiVersion":"batch/v1","kind":"CronJob",` + meta + `,"spec":{"schedule":"0 0 1 1 *","suspend":true,"jobTemplate":{"spec":{"template":` + template + `}}}}`,
		`{"apiVersion":"v1","kind":"Pod",` + meta + `,"spec":` + template[strings.Index(template, `"spec":`)+7:],
	} {
		s.Create(t, planted(t, set, manifest))
	}
	agent := s.Agent(t, "developers")
	consenting(t, s, agent) // some patches are no objects any more, and rules that cannot look into them ask
	showing, warned := map[string]int{}, 0
	for kind, path := range map[string]string{
		"ConfigMap": "/api/v1/namespaces/dev/configmaps/", "Deployment": "/apis/apps/v1/namespaces/dev/deployments/", "StatefulSet": "/apis/apps/v1/namespaces/dev/statefulsets/",
		"Job": "/apis/batch/v1/namespaces/dev/jobs/", "CronJob": "/apis/batch/v1/namespaces/dev/cronjobs/", "Pod": "/api/v1/namespaces/dev/pods/",
	} {
		target := path + name + "?dryRun=All"
		version := strings.TrimPrefix(strings.TrimPrefix(path[:strings.Index(path, "/namespaces")], "/apis/"), "/api/")
		var writes []write
		for _, body := range []string{
			`{"metadata":{"labels":"x"}}`, `{"metadata":{"labels":{"a":7}}}`, `{"metadata":{"annotations":["x"]}}`, `{"metadata":{"uid":"x"}}`, `{"metadata":{"resourceVersion":"1"}}`, `{"metadata":"x"}`,
			`{"spec":"x","data":"x"}`, `{"spec":{"replicas":"x","suspend":"x","nodeName":"x"}}`, `{"spec":{"template":{"spec":{"containers":"x"}},"containers":"x","jobTemplate":"x"}}`,
			`{"spec":{"template":{"spec":{"restartPolicy":"Always","hostNetwork":false,"dnsPolicy":"x"}},"dnsPolicy":"Default","schedule":"x","serviceName":"y","selector":{"matchLabels":{"b":"c"}}}}`,
			`{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":-1,"schedulerName":"x"}},"restartPolicy":"Always","schedulerName":"other"}}`,
			`{"immutable":false,"data":{"other":"x"}}`, `{"binaryData":{"a":"%"}}`, `{"immutable":"x"}`, `{"apiVersion":"v2"}`, `{"kind":"Other"}`, `{"what":"x","spec":{"what":"x"}}`,
		} {
			writes = append(writes, write{"PATCH", target, merge, body, ""}, write{"PATCH", target + "&fieldValidation=Strict", merge, body, ""},
				write{"PATCH", target, strategic, body, "application/vnd.kubernetes.protobuf, application/json"},
				write{"PATCH", target + "&fieldManager=x&force=true", apply, `{"apiVersion":"` + version + `","kind":"` + kind + `",` + strings.Replace(body[1:], `"metadata":{`, `"metadata":{"name":"`+name+`",`, 1), ""})
		}
		for _, op := range []string{
			`{"op":"add","path":"/metadata/labels","value":"x"}`, `{"op":"replace","path":"/metadata","value":7}`, `{"op":"remove","path":"/metadata/nothing"}`, `{"op":"test","path":"/metadata/name","value":"x"}`,
			`{"op":"add","path":"/spec","value":"x"}`, `{"op":"add","path":"/data","value":"x"}`, `{"op":"replace","path":"/kind","value":7}`, `{"op":"what","path":"/x"}`,
			`{"op":"replace","path":"/spec/containers/0/env/0/name","value":"x"}`, `{"op":"remove","path":"/spec/containers/0/args"}`,
		} {
			writes = append(writes, write{"PATCH", target, jsonPatch, "[" + op + "]", ""})
		}
		writes = append(writes, write{"PUT", target, asJSON, `{"apiVersion":"` + version + `","kind":"` + kind + `",` + meta + `,"spec":{"schedule":"x","template":{"spec":{}},"containers":[]},"data":{"a":"b"}}`, ""},
			write{"PUT", target, "application/yaml", "apiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: dev, resourceVersion: '1'}\n", ""})
		for _, w := range writes {
			if len(set.In(w.past(t, s))) > 0 {
				showing[kind]++
			}
			a := w.by(t, agent)
			for _, secret := range set.In(text(a)) {
				t.Errorf("%v shows %s: %.300s", w, secret.Carrier, a.Body)
			}
			if len(a.Header.Values("Warning")) > 0 {
				warned++
			}
		}
	}
	t.Logf("past the gate secrets are shown: %v; %d warnings", showing, warned)
	if kinds := slices.Sorted(maps.Keys(showing)); len(kinds) < 6 || warned < 5 {
		t.Errorf("only of %v something is shown past the gate, and there are %d warnings: this proves little", kinds, warned)
	}
}
