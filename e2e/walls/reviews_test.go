package walls_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sallyport/e2e/stacktest"
	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/policy"
)

// A question is one request as the API server authorises it.
type question struct {
	verb, group, version, resource, sub, namespace string
	path                                           string // instead of a resource
	served                                         bool   // the API server says that it serves it
}

func (q question) String() string {
	if q.path != "" {
		return q.verb + " " + q.path
	}
	where := ""
	if q.namespace != "" {
		where = " in " + q.namespace
	}
	return q.verb + " " + q.kind() + where
}

func (q question) kind() string {
	s := q.resource
	if q.sub != "" {
		s += "/" + q.sub
	}
	if q.group != "" {
		s += "." + q.group
	}
	return s
}

func (q question) streams() bool {
	return q.group == "" && q.resource == "pods" && slices.Contains([]string{"exec", "attach", "portforward"}, q.sub)
}

// action is the same request as the gate sees it.
func (q question) action(t *testing.T) access.Action {
	if q.path != "" {
		a, err := action.Parse(strings.ToUpper(q.verb), q.path)
		if err != nil {
			return access.Action{Verb: q.verb, Path: q.path, Resourceless: true} // the gate refuses it before it is decided
		}
		if !a.Resourceless {
			t.Errorf("%v is taken for a request for %s", q, a.Resource)
		}
		return a
	}
	a := access.Action{Verb: q.verb, Group: q.group, Version: q.version, Resource: q.resource, Subresource: q.sub, Namespace: q.namespace, Name: "x"}
	switch {
	case slices.Contains([]string{"list", "watch", "deletecollection"}, q.verb), q.verb == "create" && q.sub == "":
		a.Name = ""
	case q.streams() && (q.verb == "create" || q.verb == "get"):
		a.Verb, a.Upgrade, a.Stream, a.Argv = q.sub, true, true, []string{"sh"}
	}
	return a
}

func (q question) review(tier access.Tier) *authorization.SubjectAccessReview {
	spec := authorization.SubjectAccessReviewSpec{User: someone(tier), Groups: []string{tier.Group, "system:authenticated"}}
	if q.path != "" {
		spec.NonResourceAttributes = &authorization.NonResourceAttributes{Path: q.path, Verb: q.verb}
	} else {
		a := q.action(nil)
		spec.ResourceAttributes = &authorization.ResourceAttributes{Verb: q.verb, Group: q.group, Version: q.version, Resource: q.resource, Subresource: q.sub, Namespace: q.namespace, Name: a.Name}
	}
	return &authorization.SubjectAccessReview{Spec: spec}
}

// unlisted are verbs that no resource lists and that the API server asks its authorizer about all the same: to grant what
// one has not got, to act as others, to have certificates signed. The star is what a careless rule gives.
var unlisted = []string{"escalate", "bind", "impersonate", "approve", "sign", "attest", "proxy", "use", "*"}

// virtual are resources that are not served and that somebody asks the authorizer about: the API server about whoever
// impersonates, the kubelet about its own ports, controllers about finalizers.
var virtual = map[string][]string{
	"": {
		"users", "groups", "uids", "*", "*/*", "nodes/log", "nodes/metrics", "nodes/stats", "nodes/spec", "nodes/checkpoint", "nodes/configz", "nodes/healthz", "nodes/pods",
		"pods/finalizers", "secrets/finalizers", "namespaces/finalizers", "pods/initialize", "secrets/status",
	},
	"apps":                      {"deployments/finalizers", "deployments/rollback", "*", "*/scale"},
	"extensions":                {"deployments", "daemonsets", "replicasets", "ingresses", "podsecuritypolicies"},
	"authentication.k8s.io":     {"userextras/scopes", "uids", "tokenrequests"},
	"certificates.k8s.io":       {"signers"},
	"rbac.authorization.k8s.io": {"*"},
	"policy":                    {"podsecuritypolicies"},
	"metrics.k8s.io":            {"pods", "nodes"},
	"custom.metrics.k8s.io":     {"pods/requests", "*"},
	"external.metrics.k8s.io":   {"queue"},
	"crd.k8s.amazonaws.com":     {"eniconfigs"},
	"vpcresources.k8s.aws":      {"securitygrouppolicies", "cninodes"},
	"cert-manager.io":           {"certificates", "clusterissuers"},
	"external-secrets.io":       {"externalsecrets", "secretstores"},
	"*":                         {"*", "secrets"},
}

// questions are what the API server serves, and what it does not list, in the namespace of tier develop, two others and
// cluster-wide.
func questions(t *testing.T, c *kubernetes.Clientset) []question {
	t.Helper()
	_, lists, err := c.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	type served struct {
		namespaced bool
		version    string
		verbs      []string
	}
	all := map[question]*served{} // without verb and namespace
	for _, list := range lists {
		group, version, found := strings.Cut(list.GroupVersion, "/")
		if !found {
			group, version = "", group
		}
		for _, r := range list.APIResources {
			resource, sub, _ := strings.Cut(r.Name, "/")
			key := question{group: group, resource: resource, sub: sub}
			if all[key] == nil {
				all[key] = &served{version: version}
			}
			all[key].namespaced = r.Namespaced
			all[key].verbs = append(all[key].verbs, r.Verbs...)
		}
	}
	if len(all) < 100 {
		t.Fatalf("discovery names only %d resources", len(all))
	}
	for group, resources := range virtual {
		for _, r := range resources {
			resource, sub, _ := strings.Cut(r, "/")
			if key := (question{group: group, resource: resource, sub: sub}); all[key] == nil {
				all[key] = &served{version: "v1"}
			}
		}
	}
	asked := map[question]bool{}
	for key, is := range all {
		verbs := slices.Concat(is.verbs, unlisted, []string{"get", "create", "delete"})
		if key.sub == "" {
			verbs = append(verbs, "list", "watch", "update", "patch", "deletecollection")
		}
		for _, verb := range verbs {
			for _, ns := range []string{"", "dev", "prod", "kube-system"} {
				q := key
				q.verb, q.version, q.namespace = verb, is.version, ns
				collection := verb == "list" || verb == "watch"
				q.served = slices.Contains(is.verbs, verb) && (is.namespaced && (ns != "" || collection) || !is.namespaced && ns == "")
				asked[q] = true
			}
		}
	}
	for _, path := range paths(t, c) {
		for _, verb := range []string{"get", "post", "put", "patch", "delete"} {
			asked[question{verb: verb, path: path}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(asked), func(a, b question) int {
		return strings.Compare(a.path+a.kind()+a.String(), b.path+b.kind()+b.String())
	})
}

// paths are what the API server serves that is no resource, as it lists them, and a few it does not list.
func paths(t *testing.T, c *kubernetes.Clientset) []string {
	t.Helper()
	b, err := c.Discovery().RESTClient().Get().AbsPath("/").SetHeader("Accept", "application/json").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var root metav1.RootPaths
	if err := json.Unmarshal(b, &root); err != nil {
		t.Fatal(err)
	}
	if len(root.Paths) < 30 {
		t.Errorf("the API server lists only %d paths", len(root.Paths))
	}
	return append(root.Paths, "/", "/metrics", "/metrics/slis", "/debug/pprof/", "/debug/pprof/heap", "/debug/flags/v", "/debug/api_priority_and_fairness/dump_requests", "/logs", "/logs/kube-apiserver.log",
		"/configz", "/statusz", "/flagz", "/api/", "/apis/", "/openapi/v3", "/.well-known/openid-configuration", "/openid/v1/jwks", "/version/", "/healthz/", "/swagger.json", "/ui/", "*")
}

// gateAlone are the requests whose body decides, so that the cluster gives what the gate may refuse: verbs, kinds, and the
// namespace, or any. The list is written by hand: what is not in it has two walls.
var gateAlone = map[string][]struct{ verbs, kinds, namespace string }{
	"operate": {
		{"patch", "daemonsets.apps deployments.apps statefulsets.apps", "*"},
		{"patch update", "deployments/scale.apps replicasets/scale.apps statefulsets/scale.apps", "*"},
	},
	"develop": {
		{
			"create patch update", "configmaps events persistentvolumeclaims pods services daemonsets.apps deployments.apps replicasets.apps statefulsets.apps horizontalpodautoscalers.autoscaling " +
				"cronjobs.batch jobs.batch ingresses.networking.k8s.io networkpolicies.networking.k8s.io poddisruptionbudgets.policy", "dev",
		},
		{"patch update", "deployments/scale.apps replicasets/scale.apps statefulsets/scale.apps", "dev"},
		{"create", "pods/eviction", "dev"},
	},
}

func left(tier string, q question) bool {
	if q.verb == "create" && q.group != "" && access.SelfReviews[q.resource] == q.group {
		return true // everybody may ask about themselves; no-privileged-pods looks into whatever is created
	}
	for _, l := range gateAlone[tier] {
		if slices.Contains(strings.Fields(l.verbs), q.verb) && slices.Contains(strings.Fields(l.kinds), q.kind()) && (l.namespace == "*" || l.namespace == q.namespace) {
			return true
		}
	}
	return false
}

// bodies make a rule that looks at one allow, ask or deny.
var bodies = []*access.Object{
	nil,
	{Value: map[string]any{}},
	{Value: map[string]any{}, Touched: []string{"spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt"}},
	{Value: map[string]any{}, Traits: []access.Trait{access.SecretRef}},
}

// could says whether the policy answers so, with one body or another.
func could(m policy.Match, effects ...access.Effect) bool {
	return slices.ContainsFunc(bodies, func(obj *access.Object) bool { return slices.Contains(effects, m.Decide(obj).Effect) })
}

// The cluster refuses every tier what the policy refuses it or asks a person about, and gives it what the policy allows.
// Among what is asked is a kind that was installed a moment before, in the way that gives it to the built-in roles.
func TestClusterRefusesWhatThePolicyDoes(t *testing.T) {
	s := stacktest.Get(t)
	p := running(t, s)
	cfg := operator(t, s)
	c := client(t, cfg)
	unknown := unknownKind(t, s)
	asked := questions(t, c)
	if !slices.ContainsFunc(asked, func(q question) bool { return q.group == unknown && q.served && q.sub == "scale" }) {
		t.Errorf("group %s is not in the discovery", unknown)
	}
	var base []access.Tier
	for _, tier := range p.Tiers {
		if len(tier.Groups) > 0 {
			base = append(base, tier)
		}
	}
	match := func(tier access.Tier, q question) policy.Match {
		return p.Match(policy.Request{
			Principal: access.Principal{Issuer: s.Issuer.URL, Subject: "walls", Agent: "walls", Groups: tier.Groups},
			Tier:      tier.Name, Cluster: s.Cluster.Name, Action: q.action(t), Now: time.Now(),
		})
	}
	for _, tier := range base {
		t.Run(tier.Name, func(t *testing.T) {
			began := time.Now()
			yes := reviews(t, c, tier, asked)
			say := sparing(t)
			both, alone, refused := 0, 0, 0
			for _, q := range asked {
				m := match(tier, q)
				d := m.Decide(nil)
				switch {
				case yes[q] && d.Effect == access.Allow && d.Observed == nil:
					both++
				case yes[q] && left(tier.Name, q) && m.NeedsObject() && could(m, access.Allow):
					alone++
				case yes[q]:
					say("the cluster lets tier %s %v, and the policy does not: %s by rule %s", tier.Name, q, d.Effect, d.Rule)
				case q.served && could(m, access.Allow):
					say("the policy lets tier %s %v, and the cluster does not", tier.Name, q)
				default:
					refused++
				}
			}
			if both < 100 || refused < 1000 {
				t.Errorf("of %d requests %d are let through, %d refused; what was compared?", len(asked), both, refused)
			}
			t.Logf("%d requests in %.1f s: both walls refuse %d and let %d through, %d are left to the gate because their body decides",
				len(asked), time.Since(began).Seconds(), refused, both, alone)
		})
	}
	t.Run("maintain", func(t *testing.T) {
		tier := access.Tier{Name: "maintain", Group: "sallyport:maintain"}
		yes := reviews(t, c, tier, asked)
		say := sparing(t)
		given, asks := 0, 0
		for _, q := range asked {
			ask, allow := false, false
			for _, b := range base {
				m := match(b, q)
				ask = ask || could(m, access.Ask)
				allow = allow || could(m, access.Allow)
			}
			switch {
			case yes[q] && !ask && !allow:
				say("the cluster lets tier maintain %v, and no rule asks for it", q)
			case !yes[q] && ask && q.served:
				say("a rule asks for %v, and the cluster would refuse it to whoever was told yes", q)
			case yes[q]:
				given++
				if ask {
					asks++
				}
			}
		}
		if asks < 50 || given < 100 {
			t.Errorf("of %d requests %d are given and %d of them asked for; what was compared?", len(asked), given, asks)
		}
		t.Logf("%d requests: %d are given, %d of them asked for", len(asked), given, asks)
	})
}

// sparing reports the first failures in full, and how many more there are at the end.
func sparing(t *testing.T) func(format string, a ...any) {
	const most = 20
	n := 0
	t.Cleanup(func() {
		if n > most {
			t.Errorf("and %d more", n-most)
		}
	})
	return func(format string, a ...any) {
		if n++; n <= most {
			t.Errorf(format, a...)
		}
	}
}

// reviews asks the API server about every request, and returns the ones it would let through.
func reviews(t *testing.T, c *kubernetes.Clientset, tier access.Tier, asked []question) map[question]bool {
	t.Helper()
	yes := map[question]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	work := make(chan question)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	for range 8 {
		wg.Go(func() {
			for q := range work {
				r, err := c.AuthorizationV1().SubjectAccessReviews().Create(ctx, q.review(tier), metav1.CreateOptions{})
				if err == nil && r.Status.EvaluationError != "" {
					err = fmt.Errorf("%s", r.Status.EvaluationError)
				}
				if err != nil {
					cancel(fmt.Errorf("asking about %v: %w", q, err))
					continue
				}
				if r.Status.Allowed {
					mu.Lock()
					yes[q] = true
					mu.Unlock()
				}
			}
		})
	}
	for _, q := range asked {
		work <- q
	}
	close(work)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		t.Fatal(err)
	}
	return yes
}

// What everybody who proves who they are may do in the cluster comes on top of every tier: asking about oneself, and
// discovery. And the tiers' groups have what infra/rbac gives them.
func TestNobodyElseGivesTiersAnything(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	c := client(t, operator(t, s))
	cluster, err := c.RbacV1().ClusterRoleBindings().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	namespaced, err := c.RbacV1().RoleBindings("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var everybody []string
	tiers := 0
	look := func(name, where string, labels map[string]string, ref rbac.RoleRef, subjects []rbac.Subject) {
		for _, subject := range subjects {
			switch {
			case subject.Name == "system:authenticated" || subject.Name == "system:unauthenticated" || subject.Name == "system:anonymous":
				everybody = append(everybody, subject.Name+" has "+ref.Name+where)
			case strings.HasPrefix(subject.Name, "sallyport:"):
				tiers++
				if labels["app.kubernetes.io/part-of"] != "sallyport" || !strings.HasPrefix(ref.Name, "sallyport:") {
					t.Errorf("binding %s%s gives %s to %s", name, where, ref.Name, subject.Name)
				}
			}
		}
	}
	for _, b := range cluster.Items {
		look(b.Name, "", b.Labels, b.RoleRef, b.Subjects)
	}
	for _, b := range namespaced.Items {
		look(b.Name, " in "+b.Namespace, b.Labels, b.RoleRef, b.Subjects)
	}
	slices.Sort(everybody)
	want := []string{
		"system:authenticated has system:basic-user", "system:authenticated has system:discovery", "system:authenticated has system:public-info-viewer", "system:unauthenticated has system:public-info-viewer",
	}
	if !slices.Equal(everybody, want) {
		t.Errorf("everybody: got %q, want %q", everybody, want)
	}
	if tiers != 12 {
		t.Errorf("the tiers' groups are bound %d times", tiers)
	}
	for _, in := range []string{"/api", "/apis", "/openapi/v3", "/version"} {
		for _, who := range []string{"sallyport:observe", "sallyport:operate", "sallyport:develop", "sallyport:maintain"} {
			if q := (question{verb: "get", path: in}); !reviews(t, c, access.Tier{Name: "x", Group: who}, []question{q})[q] {
				t.Errorf("%s may not %v", who, q)
			}
		}
	}
	for resource, group := range access.SelfReviews {
		q := question{verb: "create", group: group, version: "v1", resource: resource}
		if !reviews(t, c, access.Tier{Name: "x", Group: "sallyport:observe"}, []question{q})[q] {
			t.Errorf("sallyport:observe may not %v", q)
		}
	}
}

// Nobody may do anything without a tier's credential: the reviews above would else prove nothing.
func TestStrangersHaveNothing(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	stranger := actor(t, s, access.Tier{Name: "stranger", Group: "sallyport:stranger"})
	if why := stranger.refused(t.Context(), http.MethodGet, "/api/v1/namespaces/dev/pods", "", ""); why != "" {
		t.Error(why)
	}
}
