package mask_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// clients reads with client-go: typed, dynamic, metadata alone, informers; with and without protobuf.
func (p *party) clients() {
	p.t.Helper()
	for _, media := range []string{"", "application/vnd.kubernetes.protobuf", "application/cbor"} {
		cfg := rest.CopyConfig(p.agent.Config())
		cfg.ContentType = media
		if media != "" {
			cfg.AcceptContentTypes = media + ",application/json"
		}
		dyn, err := dynamic.NewForConfig(cfg)
		if err != nil {
			p.t.Fatal(err)
		}
		meta, err := metadata.NewForConfig(cfg)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, r := range resources {
			gv, err := schema.ParseGroupVersion(strings.TrimPrefix(strings.TrimPrefix(r.path, "/apis/"), "/api/"))
			if err != nil {
				p.t.Fatal(err)
			}
			list, err := dyn.Resource(gv.WithResource(r.name)).List(p.t.Context(), metav1.ListOptions{})
			p.held("client-go, dynamic", r.name, list, err)
			partial, err := meta.Resource(gv.WithResource(r.name)).List(p.t.Context(), metav1.ListOptions{})
			p.held("client-go, metadata", r.name, partial, err)
		}
		typed, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			p.t.Fatal(err)
		}
		secrets, err := typed.CoreV1().Secrets("").List(p.t.Context(), metav1.ListOptions{})
		p.held("client-go, typed", "secrets", secrets, err)
		for _, s := range secrets.Items {
			p.data("client-go, typed", s.Data)
		}
		configmaps, err := typed.CoreV1().ConfigMaps("").List(p.t.Context(), metav1.ListOptions{})
		p.held("client-go, typed", "configmaps", configmaps, err)
		deployments, err := typed.AppsV1().Deployments("").List(p.t.Context(), metav1.ListOptions{})
		p.held("client-go, typed", "deployments", deployments, err)
		revisions, err := typed.AppsV1().ControllerRevisions("").List(p.t.Context(), metav1.ListOptions{})
		p.held("client-go, typed", "controllerrevisions", revisions, err)
		csrs, err := typed.CertificatesV1().CertificateSigningRequests().List(p.t.Context(), metav1.ListOptions{})
		p.held("client-go, typed", "certificatesigningrequests", csrs, err)

		factory := informers.NewSharedInformerFactory(typed, 0)
		store := factory.Core().V1().Secrets().Informer().GetStore()
		pods := factory.Core().V1().Pods().Informer().GetStore()
		widgets := dynamicinformer.NewDynamicSharedInformerFactory(dyn, 0)
		things := widgets.ForResource(schema.GroupVersionResource{Group: things, Version: "v1", Resource: "widgets"}).Informer().GetStore()
		factory.Start(p.t.Context().Done())
		widgets.Start(p.t.Context().Done())
		for kind, ok := range factory.WaitForCacheSync(p.t.Context().Done()) {
			if !ok {
				p.t.Errorf("the informer of %v saw nothing", kind)
			}
		}
		widgets.WaitForCacheSync(p.t.Context().Done())
		for _, list := range [][]any{store.List(), pods.List(), things.List()} {
			if len(list) < 5 {
				p.t.Errorf("an informer has %d objects", len(list))
			}
			p.held("client-go, informer", "objects", list, nil)
		}
		for _, o := range store.List() {
			if s, ok := o.(*corev1.Secret); ok {
				p.data("client-go, informer", s.Data)
			}
		}
	}
}

// held looks into what a client decoded.
func (p *party) held(way, what string, decoded any, err error) {
	p.t.Helper()
	p.reads++
	p.ways[way] = true
	if err != nil {
		p.t.Errorf("%s, %s: %v", way, what, err)
		return
	}
	b, err := json.Marshal(decoded)
	if err != nil || len(b) < 200 {
		p.t.Errorf("%s, %s: %d bytes, %v", way, what, len(b), err)
	}
	p.look(way+" "+what, string(b))
}

func (p *party) data(way string, data map[string][]byte) {
	p.t.Helper()
	for key, value := range data {
		p.look(way+" key "+key, string(value))
		if !strings.Contains(string(value), "[masked") && key != "release" {
			p.t.Errorf("%s: key %s is %q, no mask", way, key, value)
		}
	}
}

// kubectl reads with kubectl, and in every way kubectl has.
func (p *party) kubectl(pod, csr string) {
	p.t.Helper()
	kinds := "secrets,configmaps,events,pods,podtemplates,replicationcontrollers,services,serviceaccounts,deployments,replicasets,statefulsets,daemonsets,controllerrevisions,cronjobs,jobs,ingresses,widgets"
	decode := "go-template={{range .items}}{{range $k,$v := .data}}{{$v|base64decode}} {{end}}{{end}}"
	secret, configmap, deployment := resources[0].first, resources[1].first, resources[9].first
	file := func(kind, name string) string {
		out := p.agent.Kubectl(p.t, "get", kind, name, "-n", "dev", "-o", "yaml")
		path := filepath.Join(p.agent.Dir(), name+"."+kind)
		if err := os.WriteFile(path, []byte(out.Stdout), 0o600); err != nil {
			p.t.Fatal(err)
		}
		return path
	}
	written := file("deployment", deployment)
	commands := []string{
		"get " + kinds + " -n dev", "get " + kinds + " -n dev -o wide --show-labels", "get " + kinds + " -n dev -o json", "get " + kinds + " -n dev -o yaml --show-managed-fields",
		"get all -n dev", "describe " + kinds + " -n dev", "describe pv", "get csr,pv -o yaml", "get csr,pv -o wide", "get " + kinds + " -n prod -o json",
		"get secrets -n dev -o jsonpath={.items[*].data}", "get secrets -n dev -o jsonpath={..annotations}", "get cm -n dev -o jsonpath-as-json={.items[*]}", "get deployments -n dev -o custom-columns=ENV:.spec.template.spec.containers[*].env,A:.metadata.annotations",
		"get secrets -n dev -o name", "get secret " + secret + " -n dev -o yaml", "get secret " + secret + " -n dev -w --request-timeout=2s -o yaml --output-watch-events", "get secrets -n dev -w --request-timeout=2s", "get secrets -n dev --chunk-size=3 -o json",
		"get --raw /api/v1/namespaces/dev/secrets", "get --raw /api/v1/watch/namespaces/dev/secrets?timeoutSeconds=1", "get deployment " + deployment + " -n dev --subresource=status -o yaml", "get deployment " + deployment + " -n dev --subresource=scale -o yaml",
		"set env deployment --all --list -n dev", "set env pods --all --list -n dev", "set env deployment/" + deployment + " --list --resolve -n dev", "rollout history deployment/" + deployment + " -n dev --revision=1", "rollout history deployment/" + deployment + " -n dev -o yaml", "rollout status deployment/" + deployment + " -n dev --timeout=2s",
		"events -n dev", "events -A", "explain secret.data", "cluster-info dump --namespaces dev", "api-resources", "auth can-i --list -n dev",
		"diff -n dev -f " + written, "apply view-last-applied deployment/" + deployment + " -n dev", "apply view-last-applied secret/" + secret + " -n dev",
		"annotate deployment " + deployment + " -n dev x=y --dry-run=server -o yaml", "label cm " + configmap + " -n dev x=y --dry-run=server -o yaml", "scale deployment " + deployment + " -n dev --replicas=0 --dry-run=server -o yaml",
		"set image deployment/" + deployment + " -n dev c=localhost/web:2 --dry-run=server -o yaml", "set env deployment/" + deployment + " -n dev A=b --dry-run=server -o yaml", "rollout restart deployment/" + deployment + " -n dev",
		"delete deployment " + deployment + " -n dev --dry-run=server -o name", "delete cm -l app=nothing -n dev --dry-run=server", "expose deployment " + deployment + " -n dev --name=other --port=80 --dry-run=server -o yaml", "autoscale deployment " + deployment + " -n dev --max=2 --dry-run=server -o yaml",
		"create job x --from=cronjob/" + resources[14].first + " -n dev --dry-run=client -o yaml",
		"logs " + pod + " -n dev", "logs " + pod + " -n dev --timestamps --prefix", "logs " + pod + " -n dev --tail=3",
		"exec " + pod + " -n dev -- cat /tmp/lines", "exec " + pod + " -n dev -- env", "exec " + pod + " -n dev -- sh -c 'cat /tmp/lines >&2'", "exec " + pod + " -n dev -- sh -c 'while read -r l; do echo \"$l\"; sleep 0.01; done </tmp/lines'",
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(commands) {
					return
				}
				p.run(commands[i])
			}
		})
	}
	wg.Wait()
	p.run("get secrets -n dev -o", decode)
	p.run("patch configmap "+configmap+" -n dev --dry-run=server -o yaml --type=merge -p", `{"metadata":{"labels":{"a":"b"}}}`)
	p.run("patch deployment "+deployment+" -n dev --dry-run=server -o yaml --type=strategic -p", `{"metadata":{"labels":{"a":"b"}}}`)
	p.run("patch deployment "+deployment+" -n dev --dry-run=server -o yaml --type=json -p", `[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`)
	// What kubectl takes from what it read is not written back, and what goes wrong is told without it.
	for words, says := range map[string]string{
		"apply --dry-run=server -n dev -o yaml -f " + written: "mask", "apply --server-side --dry-run=server -n dev -o yaml -f " + written: "mask",
		"create job x --from=cronjob/" + resources[14].first + " -n dev --dry-run=server -o yaml": "mask", "debug " + pod + " -n dev --image=x --copy-to=copy --attach=false --quiet": "mask",
		"patch deployment " + deployment + ` -n dev --dry-run=server --type=merge -p {"metadata":{"labels":"x"}}`: `"[masked]": json: cannot unmarshal`,
		"logs " + pod + " -n dev --previous": "not found", "logs " + pod + " -n dev -f --request-timeout=2s": "canceled|deadline exceeded", "describe csr " + csr: "parsing CSR", // whose request is masked
	} {
		p.ends(words, says)
	}
	p.edit("edit deployment " + deployment + " -n dev")
	p.run("logs " + pod + " -n dev -v=9")
	p.run("get secrets -n dev -v=9")
}

// logs reads a log in every way the API has: whole, from a line on, following it, and up to each of its bytes.
func (p *party) logs(pod string) {
	p.t.Helper()
	target := "/api/v1/namespaces/dev/pods/" + pod + "/log"
	size := len(p.stack.Admin(p.t, "logs", pod, "-n", "dev"))
	var reads []read
	add := func(way, query string) {
		reads = append(reads, read{target: target + query, way: way, form: forms[len(reads)%2], encoding: encodings[len(reads)%len(encodings)], watch: way == "log, followed"})
	}
	add("log", "")
	add("log, with times", "?timestamps=true")
	add("log, its last lines", "?tailLines=3")
	add("log, since", "?sinceSeconds=3600")
	add("log, followed", "?follow=true")
	for n := range size {
		add("log, cut", fmt.Sprintf("?limitBytes=%d", n+1))
	}
	as(p.t, p.agent, p.set).all(p.t.Context(), reads, p.told)
}

// run runs kubectl. Words are cut at spaces, but for those in quotes; last are given as they are.
func (p *party) run(words string, last ...string) {
	p.t.Helper()
	args := append(split(words), last...)
	out := p.agent.Kubectl(p.t, args...)
	if out.Code != 0 {
		p.t.Errorf("kubectl %s: %v", words, out)
	}
	p.command("kubectl", args, out.Stdout+out.Stderr)
}

// ends runs kubectl, which is to fail, and to say why: one of the words with a bar between them.
func (p *party) ends(words, says string) {
	p.t.Helper()
	out := p.agent.Kubectl(p.t, split(words)...)
	if out.Code == 0 || !slices.ContainsFunc(strings.Split(says, "|"), func(w string) bool { return strings.Contains(out.Stderr, w) }) {
		p.t.Errorf("kubectl %s is to say %q: %v", words, says, out)
	}
	p.command("kubectl", split(words), out.Stdout+out.Stderr)
}

func split(words string) []string {
	var args []string
	for i, part := range strings.Split(words, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

func (p *party) command(name string, args []string, text string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	p.ways[name+" "+args[0]] = true
	p.look(name+" "+strings.Join(args, " "), text)
}

// edit shows an editor what it is given to edit.
func (p *party) edit(words string) {
	p.t.Helper()
	editor, copied := filepath.Join(p.agent.Dir(), "editor"), filepath.Join(p.agent.Dir(), "edited")
	if err := os.WriteFile(editor, []byte("#!/bin/sh\ncat \"$1\" >>"+copied+"\n"), 0o755); err != nil {
		p.t.Fatal(err)
	}
	out := p.agent.Run(p.t, func(c *exec.Cmd) { c.Env = append(c.Env, "KUBE_EDITOR="+editor) }, strings.Fields(words)...)
	b, err := os.ReadFile(copied)
	if err != nil || len(b) == 0 {
		p.t.Errorf("kubectl %s: the editor got nothing: %v, %v", words, err, out)
	}
	p.command("kubectl", strings.Fields(words), string(b)+out.Stdout+out.Stderr)
}

// helm reads releases with helm, wherever helm keeps them.
func (p *party) helm(releases map[string]string) {
	p.t.Helper()
	for driver, name := range releases {
		h := helmOf(p.t, p.agent).driver(driver)
		for _, args := range []string{
			"list -n dev -o json", "list -A --all", "status " + name + " -n dev", "status " + name + " -n dev --show-resources -o yaml", "history " + name + " -n dev -o yaml",
			"get values " + name + " -n dev --all", "get values " + name + " -n dev --revision 1 -o json", "get manifest " + name + " -n dev", "get notes " + name + " -n dev", "get hooks " + name + " -n dev", "get all " + name + " -n dev", "get metadata " + name + " -n dev",
		} {
			out := h.run(p.t, strings.Fields(args)...)
			if out.Code != 0 {
				p.t.Errorf("helm %s: %v", args, out)
			}
			p.command("helm", strings.Fields(args), out.Stdout+out.Stderr)
		}
	}
}
