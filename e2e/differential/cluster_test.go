package differential_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sallyport/e2e/stacktest"
)

const (
	// scratch is the namespace that is fuzzed. Its name is always the same, for the corpus has it.
	scratch = "differential"
	user    = "differential-fuzzer"
	workers = 4
)

// cluster is the API server, asked past the gate.
type cluster struct {
	host  string
	tls   *tls.Config
	admin kubernetes.Interface
	any   dynamic.Interface
	kinds []kind
	log   *auditLog
	run   string // begins every audit id of this run
	n     atomic.Int64
	conns [workers]*conn
	last  state  // as of revision
	at    string // etcd's revision
}

// A kind is one that the API server serves, as its discovery has it.
type kind struct {
	group, version, resource, name string
	namespaced                     bool
	subresources                   []string
}

func open(t *testing.T) *cluster {
	t.Helper()
	kubeconfig, log := clusterOf(t)
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS, cfg.Burst = 1000, 1000
	u, err := url.Parse(cfg.Host)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{host: u.Host, run: "differential-" + stacktest.Word()}
	if c.tls, err = rest.TLSConfigFor(cfg); err != nil {
		t.Fatal(err)
	}
	c.tls.NextProtos = []string{"http/1.1"}
	if c.admin, err = kubernetes.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	if c.any, err = dynamic.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	if c.log, err = follow(log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, x := range c.conns {
			if x != nil {
				x.close()
			}
		}
		c.log.Close()
	})
	c.discover(t)
	c.fence(t)
	return c
}

func (c *cluster) discover(t *testing.T) {
	t.Helper()
	_, lists, err := c.admin.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*kind{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range l.APIResources {
			name, sub, isSub := strings.Cut(r.Name, "/")
			key := l.GroupVersion + "/" + name
			if byName[key] == nil {
				byName[key] = &kind{group: gv.Group, version: gv.Version, resource: name}
			}
			k := byName[key]
			if isSub {
				k.subresources = append(k.subresources, sub)
			} else {
				k.name, k.namespaced = r.Kind, r.Namespaced
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byName)) { // in order, or a seed would not make the same requests again
		slices.Sort(byName[key].subresources)
		c.kinds = append(c.kinds, *byName[key])
	}
}

// writable are the kinds that the fuzzer may change, in its own namespace. Pods are made unschedulable, so that none runs;
// nothing here gives power over anything outside.
var writable = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"configmaps", "secrets", "services", "services/status", "serviceaccounts", "pods", "pods/status", "pods/log", "pods/eviction", "pods/resize", "pods/ephemeralcontainers",
		"podtemplates", "replicationcontrollers", "replicationcontrollers/scale", "endpoints", "events", "persistentvolumeclaims", "limitranges"}},
	{APIGroups: []string{"apps"}, Resources: []string{"deployments", "deployments/scale", "deployments/status", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale", "daemonsets", "controllerrevisions"}},
	{APIGroups: []string{"coordination.k8s.io", "networking.k8s.io", "policy", "autoscaling", "discovery.k8s.io"}, Resources: []string{"leases", "networkpolicies", "ingresses", "poddisruptionbudgets", "horizontalpodautoscalers", "endpointslices"}},
}

// fence makes the fuzzer's namespace and gives its user what it may.
func (c *cluster) fence(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	made := func(_ any, err error) {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	all := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	var write []rbacv1.PolicyRule
	for _, r := range writable {
		r.Verbs = all
		write = append(write, r)
	}
	subject := []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: user}}
	meta := metav1.ObjectMeta{Name: user}
	made(c.admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: scratch}}, metav1.CreateOptions{}))
	made(c.admin.RbacV1().Roles(scratch).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: write}, metav1.CreateOptions{}))
	made(c.admin.RbacV1().RoleBindings(scratch).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user}}, metav1.CreateOptions{}))
	made(c.admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}}, metav1.CreateOptions{}))
	stacktest.Eventually(t, 20*time.Second, func() string { // the controllers put these into every namespace
		if _, err := c.admin.CoreV1().ConfigMaps(scratch).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		if _, err := c.admin.CoreV1().ServiceAccounts(scratch).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		for _, err := range []error{
			c.admin.RbacV1().ClusterRoleBindings().Delete(ctx, user, metav1.DeleteOptions{}),
			c.admin.CoreV1().Namespaces().Delete(ctx, scratch, metav1.DeleteOptions{}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		stacktest.Eventually(t, 60*time.Second, func() string { // the next run makes it anew
			if _, err := c.admin.CoreV1().Namespaces().Get(ctx, scratch, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Sprintf("namespace %s is still there (%v)", scratch, err)
			}
			return ""
		})
	})
}

// objects are in the namespace before every batch.
var objects = []string{
	`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":{"app":"a"}},"data":{"color":"blue"}}`,
	`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","labels":{"app":"b"}},"data":{"color":"red"}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"k":"v"}}`,
	`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"gated"},"spec":{"schedulingGates":[{"name":"example.com/never"}],"containers":[{"name":"c","image":"localhost/none:1"}]}}`,
	`{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"ports":[{"port":80}],"clusterIP":"None"}}`,
	`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"a"}}`,
	`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":0,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"schedulingGates":[{"name":"example.com/never"}],"containers":[{"name":"c","image":"localhost/none:1"}]}}}}`,
	`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"}}`,
}

// quiet are the kinds whose objects nobody but the fuzzer changes, but for their status.
var quiet = []schema.GroupVersionResource{
	{Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "secrets"}, {Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "services"}, {Version: "v1", Resource: "serviceaccounts"},
	{Version: "v1", Resource: "podtemplates"}, {Group: "apps", Version: "v1", Resource: "deployments"}, {Group: "coordination.k8s.io", Version: "v1", Resource: "leases"},
}

// prepare puts back what an earlier request deleted.
func (c *cluster) prepare(t *testing.T) {
	t.Helper()
	now := c.state(t)
	for _, o := range objects {
		var u unstructured.Unstructured
		if err := json.Unmarshal([]byte(o), &u.Object); err != nil {
			t.Fatal(err)
		}
		gvk := u.GroupVersionKind()
		gvr := schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: strings.ToLower(gvk.Kind) + "s"}
		if _, ok := now[key{gvr.Resource, scratch, u.GetName()}]; ok {
			continue
		}
		// One that is being deleted may still be in the way; the batch does without it then.
		if _, err := c.any.Resource(gvr).Namespace(scratch).Create(t.Context(), &u, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

type key struct{ resource, namespace, name string }

func (k key) String() string { return k.resource + " " + k.namespace + "/" + k.name }

// state is what is in the namespace: of every object a digest of all but what controllers write.
type state map[key][32]byte

func (c *cluster) state(t *testing.T) state {
	t.Helper()
	// A list's version is etcd's revision, which every change of anything in the cluster moves on.
	now, err := c.admin.CoreV1().ConfigMaps(scratch).List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if now.ResourceVersion == c.at {
		return c.last
	}
	s := state{}
	for _, gvr := range quiet {
		l, err := c.any.Resource(gvr).Namespace(scratch).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range l.Items {
			delete(o.Object, "status")
			for _, field := range []string{"managedFields", "resourceVersion", "generation"} {
				unstructured.RemoveNestedField(o.Object, "metadata", field)
			}
			unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
			b, err := json.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			if o.GetName() == "kube-root-ca.crt" || o.GetName() == "default" && gvr.Resource == "serviceaccounts" || len(o.GetOwnerReferences()) > 0 {
				continue // controllers make them
			}
			s[key{gvr.Resource, o.GetNamespace(), o.GetName()}] = sha256.Sum256(b)
		}
	}
	c.last, c.at = s, now.ResourceVersion
	return s
}

// settled is the state once it stands still: the garbage collector takes its time.
func (c *cluster) settled(t *testing.T) state {
	t.Helper()
	last := c.state(t)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		time.Sleep(25 * time.Millisecond)
		now := c.state(t)
		if !last.differs(now) {
			break
		}
		last = now
	}
	return last
}

func (s state) differs(other state) bool { return !maps.Equal(s, other) }

// changed are the objects that are not the same in both.
func (s state) changed(other state) []key {
	var found []key
	for k, v := range s {
		if w, ok := other[k]; !ok || w != v {
			found = append(found, k)
		}
	}
	for k := range other {
		if _, ok := s[k]; !ok {
			found = append(found, k)
		}
	}
	return found
}

// conn is a connection as the administrator, who impersonates the fuzzer's user.
type conn struct {
	c   *cluster
	raw net.Conn
	r   *bufio.Reader
}

func (c *cluster) conn(i int) *conn {
	if c.conns[i] == nil {
		c.conns[i] = &conn{c: c}
	}
	return c.conns[i]
}

func (x *conn) close() {
	if x.raw != nil {
		x.raw.Close()
		x.raw = nil
	}
}

// answer is what came back.
type answer struct {
	code int
	body string
}

// send sends exactly the bytes, and returns the audit id they were sent under and the answer; nil when none came.
func (c *cluster) send(x *conn, r request, stream bool) (string, *answer) {
	id := fmt.Sprintf("%s-%d", c.run, c.n.Add(1))
	if x.raw == nil {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: c.tls}
		raw, err := d.Dial("tcp", c.host)
		if err != nil {
			return id, nil
		}
		x.raw, x.r = raw, bufio.NewReader(raw)
	}
	_ = x.raw.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := x.raw.Write(r.wire(c.host, id)); err != nil {
		x.close()
		return id, nil
	}
	res, err := http.ReadResponse(x.r, &http.Request{Method: r.Method})
	if err != nil {
		x.close()
		return id, nil
	}
	defer res.Body.Close()
	if stream { // it would stay open
		_ = x.raw.SetDeadline(time.Now().Add(20 * time.Millisecond))
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil || res.Close || res.StatusCode == http.StatusSwitchingProtocols {
		x.close()
	}
	return id, &answer{res.StatusCode, string(b[:min(len(b), 300)])}
}

// auditLog follows the cluster's audit log.
type auditLog struct {
	name string
	*os.File
	rest []byte
	seen map[string]*auditv1.Event
}

func follow(name string) (*auditLog, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	_, err = f.Seek(0, io.SeekEnd)
	return &auditLog{name: name, File: f, seen: map[string]*auditv1.Event{}}, err
}

// more reads what was written meanwhile.
func (l *auditLog) more(run string) error {
	b, err := io.ReadAll(l.File)
	if err != nil {
		return err
	}
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			break
		}
		l.rest = rest
		if !bytes.Contains(line, []byte(run)) {
			continue
		}
		e := new(auditv1.Event)
		if err := json.Unmarshal(line, e); err != nil {
			return err
		}
		if old := l.seen[string(e.AuditID)]; old == nil || e.Stage == auditv1.StageResponseComplete {
			l.seen[string(e.AuditID)] = e
		}
	}
	// It is put aside at a hundred megabytes, and begun anew.
	now, err := os.Stat(l.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	own, err2 := l.Stat()
	if err = errors.Join(err, err2); err != nil || os.SameFile(now, own) {
		return err
	}
	l.Close()
	l.File, err = os.Open(l.name)
	return err
}

// await returns the events of some requests. One that has none by the time that a later request has one has none at all.
func (l *auditLog) await(t *testing.T, c *cluster, ids ...string) map[string]*auditv1.Event {
	t.Helper()
	last, _ := c.send(c.conn(0), request{Method: "GET", Target: "/version"}, false)
	found := map[string]*auditv1.Event{}
	var since time.Time
	stacktest.Eventually(t, 20*time.Second, func() string {
		if err := l.more(c.run); err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, id := range ids {
			if e := l.seen[id]; e != nil {
				found[id] = e
			} else {
				missing++
			}
		}
		switch {
		case missing == 0:
			return ""
		case l.seen[last] == nil:
			return "the audit log does not go on"
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > time.Second:
			return ""
		}
		return fmt.Sprintf("%d requests are not in the audit log", missing)
	})
	for _, id := range append(ids, last) {
		delete(l.seen, id)
	}
	return found
}
