package action_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"sallyport/shared/access"
)

// templates are the kinds that carry a pod, and where. The last ones are no kinds of Kubernetes' own.
var templates = []struct {
	collection, apiVersion, kind string
	path                         []string // of what has metadata and spec
}{
	{"/api/v1/namespaces/dev/pods", "v1", "Pod", nil},
	{"/apis/apps/v1/namespaces/dev/deployments", "apps/v1", "Deployment", []string{"spec", "template"}},
	{"/apis/apps/v1/namespaces/dev/replicasets", "apps/v1", "ReplicaSet", []string{"spec", "template"}},
	{"/apis/apps/v1/namespaces/dev/statefulsets", "apps/v1", "StatefulSet", []string{"spec", "template"}},
	{"/apis/apps/v1/namespaces/dev/daemonsets", "apps/v1", "DaemonSet", []string{"spec", "template"}},
	{"/apis/batch/v1/namespaces/dev/jobs", "batch/v1", "Job", []string{"spec", "template"}},
	{"/apis/batch/v1/namespaces/dev/cronjobs", "batch/v1", "CronJob", []string{"spec", "jobTemplate", "spec", "template"}},
	{"/api/v1/namespaces/dev/podtemplates", "v1", "PodTemplate", []string{"template"}},
	{"/api/v1/namespaces/dev/replicationcontrollers", "v1", "ReplicationController", []string{"spec", "template"}},
	{"/apis/apps/v1/namespaces/dev/controllerrevisions", "apps/v1", "ControllerRevision", []string{"data", "spec", "template"}},
	{"/apis/argoproj.io/v1alpha1/namespaces/dev/rollouts", "argoproj.io/v1alpha1", "Rollout", []string{"spec", "template"}},
	{"/apis/example.com/v1/namespaces/dev/widgets", "example.com/v1", "Widget", []string{"spec", "parts", "0", "deep", "pod"}},
}

// evils are changes to a pod's specification, each with the one trait it brings.
var evils = map[string]struct {
	trait access.Trait
	spec  string // merged over the benign specification
}{
	"privileged":                {access.Privileged, `{"containers":[{"name":"app","image":"i","securityContext":{"privileged":true}}]}`},
	"privileged init":           {access.Privileged, `{"initContainers":[{"name":"x","image":"i","securityContext":{"privileged":true}}]}`},
	"privileged second":         {access.Privileged, `{"containers":[{"name":"app","image":"i"},{"name":"x","image":"i","securityContext":{"privileged":true}}]}`},
	"capability":                {access.Privileged, `{"containers":[{"name":"app","image":"i","securityContext":{"capabilities":{"add":["CHOWN","SYS_ADMIN"]}}}]}`},
	"all capabilities":          {access.Privileged, `{"containers":[{"name":"app","image":"i","securityContext":{"capabilities":{"add":["ALL"]}}}]}`},
	"capability in lower case":  {access.Privileged, `{"containers":[{"name":"app","image":"i","securityContext":{"capabilities":{"add":["sys_admin"]}}}]}`},
	"procMount":                 {access.Privileged, `{"containers":[{"name":"app","image":"i","securityContext":{"procMount":"Unmasked"}}]}`},
	"seccomp of the pod":        {access.Privileged, `{"securityContext":{"seccompProfile":{"type":"Unconfined"}}}`},
	"seccomp":                   {access.Privileged, `{"containers":[{"name":"app","image":"i","securityContext":{"seccompProfile":{"type":"Unconfined"}}}]}`},
	"AppArmor":                  {access.Privileged, `{"securityContext":{"appArmorProfile":{"type":"Unconfined"}}}`},
	"SELinux type":              {access.Privileged, `{"securityContext":{"seLinuxOptions":{"type":"spc_t"}}}`},
	"SELinux user":              {access.Privileged, `{"containers":[{"name":"app","image":"i","securityContext":{"seLinuxOptions":{"user":"root"}}}]}`},
	"sysctl":                    {access.Privileged, `{"securityContext":{"sysctls":[{"name":"kernel.msgmax","value":"1"}]}}`},
	"hostProcess":               {access.Privileged, `{"securityContext":{"windowsOptions":{"hostProcess":true}}}`},
	"probe of another host":     {access.Privileged, `{"containers":[{"name":"app","image":"i","livenessProbe":{"httpGet":{"host":"169.254.169.254","port":80}}}]}`},
	"hook to another host":      {access.Privileged, `{"containers":[{"name":"app","image":"i","lifecycle":{"preStop":{"tcpSocket":{"host":"169.254.169.254","port":80}}}}]}`},
	"hostPath":                  {access.HostPath, `{"volumes":[{"name":"h","hostPath":{"path":"/etc"}}]}`},
	"hostNetwork":               {access.HostNamespace, `{"hostNetwork":true}`},
	"hostPID":                   {access.HostNamespace, `{"hostPID":true}`},
	"hostIPC":                   {access.HostNamespace, `{"hostIPC":true}`},
	"hostPort":                  {access.HostNamespace, `{"containers":[{"name":"app","image":"i","ports":[{"containerPort":80,"hostPort":80}]}]}`},
	"serviceAccountName":        {access.ServiceAccount, `{"serviceAccountName":"deployer"}`},
	"serviceAccount":            {access.ServiceAccount, `{"serviceAccount":"deployer"}`},
	"token for an audience":     {access.ServiceAccount, `{"volumes":[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"audience":"sts.amazonaws.com","path":"t"}}]}}]}`},
	"pod certificate":           {access.ServiceAccount, `{"volumes":[{"name":"t","projected":{"sources":[{"podCertificate":{"signerName":"a/b","keyType":"ED25519"}}]}}]}`},
	"Secret volume":             {access.SecretRef, `{"volumes":[{"name":"s","secret":{"secretName":"db"}}]}`},
	"projected Secret":          {access.SecretRef, `{"volumes":[{"name":"s","projected":{"sources":[{"secret":{"name":"db"}}]}}]}`},
	"CSI Secret":                {access.SecretRef, `{"volumes":[{"name":"s","csi":{"driver":"d","nodePublishSecretRef":{"name":"db"}}}]}`},
	"Azure Secret":              {access.SecretRef, `{"volumes":[{"name":"s","azureFile":{"secretName":"db","shareName":"x"}}]}`},
	"flex Secret":               {access.SecretRef, `{"volumes":[{"name":"s","flexVolume":{"driver":"d","secretRef":{"name":"db"}}}]}`},
	"env from a Secret's key":   {access.SecretRef, `{"containers":[{"name":"app","image":"i","env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"db","key":"k"}}}]}]}`},
	"env from a Secret":         {access.SecretRef, `{"containers":[{"name":"app","image":"i","envFrom":[{"secretRef":{"name":"db"}}]}]}`},
	"init env from a Secret":    {access.SecretRef, `{"initContainers":[{"name":"x","image":"i","envFrom":[{"secretRef":{"name":"db"}}]}]}`},
	"role of AWS in a template": {access.RoleARN, ""}, // an annotation
}

// benigns are what looks alike and is nothing.
var benigns = map[string]string{
	"plain":             `{}`,
	"not privileged":    `{"containers":[{"name":"app","image":"i","securityContext":{"privileged":false,"procMount":"Default","capabilities":{"add":["NET_BIND_SERVICE"],"drop":["ALL"]},"seccompProfile":{"type":"RuntimeDefault"}}}]}`,
	"hostNetwork false": `{"hostNetwork":false,"hostPID":false}`,
	"hostPort 0":        `{"containers":[{"name":"app","image":"i","ports":[{"containerPort":80,"hostPort":0}]}]}`,
	"default account":   `{"serviceAccountName":"default","serviceAccount":"default"}`,
	"kube's own token":  `{"volumes":[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"token","expirationSeconds":3607}},{"configMap":{"name":"kube-root-ca.crt"}}]}}]}`,
	"safe sysctl":       `{"securityContext":{"sysctls":[{"name":"net.ipv4.tcp_syncookies","value":"1"}],"seLinuxOptions":{"type":"container_t"}}}`,
	"own probe":         `{"containers":[{"name":"app","image":"i","readinessProbe":{"httpGet":{"path":"/","port":80}}}]}`,
	"pull Secret":       `{"imagePullSecrets":[{"name":"registry"}]}`,
	"selector":          `{"nodeSelector":{"hostNetwork":"true","serviceAccountName":"x","privileged":"true"}}`,
	"ConfigMap env":     `{"containers":[{"name":"app","image":"i","env":[{"name":"A","value":"privileged: true"}],"envFrom":[{"configMapRef":{"name":"c"}}]}]}`,
}

func build(t *testing.T, i int, spec string, annotations map[string]any) map[string]any {
	t.Helper()
	k := templates[i]
	pod := map[string]any{"containers": []any{map[string]any{"name": "app", "image": "i"}}}
	if spec != "" {
		maps.Copy(pod, object(t, spec))
	}
	template := map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "x"}}, "spec": pod}
	if annotations != nil {
		template["metadata"].(map[string]any)["annotations"] = annotations
	}
	var v any = template
	for _, p := range slices.Backward(k.path) {
		if p == "0" {
			v = []any{v}
		} else {
			v = map[string]any{p: v}
		}
	}
	m := v.(map[string]any)
	if k.path == nil {
		m = map[string]any{"spec": pod, "metadata": template["metadata"]}
	}
	meta, _ := m["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	meta["name"], meta["namespace"] = "web", "dev"
	m["metadata"], m["apiVersion"], m["kind"] = meta, k.apiVersion, k.kind
	return m
}

// live is what the cluster would answer a GET with.
func live(m map[string]any) map[string]any {
	m = runtime.DeepCopyJSON(m)
	m["metadata"].(map[string]any)["resourceVersion"] = "7"
	m["metadata"].(map[string]any)["uid"] = "u"
	return m
}

// patchOf is what of an object a patch would change.
func patchOf(m map[string]any) map[string]any {
	m = runtime.DeepCopyJSON(m)
	delete(m, "metadata")
	delete(m, "apiVersion")
	delete(m, "kind")
	return m
}

// every writes an object in every form a request can carry it in, and returns what each is judged to be.
func every(t *testing.T, i int, evil map[string]any) map[string]*access.Object {
	t.Helper()
	k := templates[i]
	create, update, patch := "POST "+k.collection, "PUT "+k.collection+"/web", "PATCH "+k.collection+"/web"
	j := marshal(t, evil)
	y, err := yaml.JSONToYAML([]byte(j))
	if err != nil {
		t.Fatal(err)
	}
	benign := live(build(t, i, "", nil))
	change := patchOf(evil)
	if k.path == nil { // annotations are the pod's own
		change["metadata"] = map[string]any{"annotations": evil["metadata"].(map[string]any)["annotations"]}
	}
	var ops []any
	for key, v := range change {
		if key == "metadata" {
			v, key = v.(map[string]any)["annotations"], "metadata/annotations"
			if v == nil {
				continue
			}
		}
		ops = append(ops, map[string]any{"op": "add", "path": "/" + key, "value": v})
	}
	out := map[string]*access.Object{
		"create as JSON": must(t, create, asJSON, j, nil),
		"create as YAML": must(t, create, asYAML, string(y), nil),
		"update as JSON": must(t, update, asJSON, j, nil),
		"merge patch":    must(t, patch, asMerge, marshal(t, change), benign),
		"JSON patch":     must(t, patch, asJSONPatch, marshal(t, ops), benign),
		"apply":          must(t, patch, asApply, j, nil),
		"apply to live":  must(t, patch, asApply, string(y), benign),
	}
	// The same, written somewhere else first and then moved to where it counts.
	key := "spec"
	switch k.kind {
	case "PodTemplate":
		key = "template"
	case "ControllerRevision":
		key = "data"
	}
	hidden := []any{
		map[string]any{"op": "add", "path": "/metadata/x", "value": evil[key]},
		map[string]any{"op": "move", "from": "/metadata/x", "path": "/" + key},
	}
	if k.path != nil { // a Pod's annotations are not in its spec
		out["JSON patch that moves"] = must(t, patch, asJSONPatch, marshal(t, hidden), benign)
	}
	if o := typed(t, evil); o != nil {
		out["create as protobuf"] = must(t, create, asProtobuf, encode(t, o), nil)
		out["update as protobuf"] = must(t, update, asProtobuf, encode(t, o), nil)
		out["strategic patch"] = must(t, patch, asStrategic, marshal(t, change), benign)
	}
	return out
}

// R3: every trait is found in every kind that carries a pod, in every form it can be sent in.
func TestTraits(t *testing.T) {
	for i, k := range templates {
		t.Run(k.kind, func(t *testing.T) {
			for name, evil := range evils {
				var annotations map[string]any
				if evil.spec == "" {
					annotations = map[string]any{"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/x"}
				}
				forms := every(t, i, build(t, i, evil.spec, annotations))
				if len(forms) < 7 {
					t.Fatalf("%d forms", len(forms))
				}
				for form, o := range forms {
					if k.kind == "ControllerRevision" && form == "strategic patch" { // its data has no type to merge by
						if !slices.Contains(o.Unsure, evil.trait) || !o.Partial {
							t.Errorf("%s, %s: got %+v, want %s unsure", name, form, o, evil.trait)
						}
						continue
					}
					if !slices.Equal(o.Traits, []access.Trait{evil.trait}) {
						t.Errorf("%s, %s: got %v, want %s", name, form, o.Traits, evil.trait)
					}
				}
			}
			for name, spec := range benigns {
				for form, o := range every(t, i, build(t, i, spec, nil)) {
					if len(o.Traits) > 0 {
						t.Errorf("%s, %s: got %v, want none", name, form, o.Traits)
					}
				}
			}
		})
	}
}

// A strategic or apply patch that lays hands on a guarded field leaves a question, even where what it writes is harmless.
func TestUnsure(t *testing.T) {
	const web = "PATCH /apis/apps/v1/namespaces/dev/deployments/web"
	plain := live(build(t, 1, "", nil))
	privileged := live(build(t, 1, evils["privileged"].spec, nil))
	pod := func(s string) string { return `{"spec":{"template":{"spec":` + s + `}}}` }
	all := access.Traits
	for name, test := range map[string]struct {
		line, media, body string
		live              map[string]any
		traits, unsure    []access.Trait
		partial           bool
	}{
		"strategic, image":              {web, asStrategic, pod(`{"containers":[{"name":"app","image":"j"}]}`), plain, nil, nil, false},
		"strategic, image on bad":       {web, asStrategic, pod(`{"containers":[{"name":"app","image":"j"}]}`), privileged, []access.Trait{access.Privileged}, nil, false},
		"strategic, security":           {web, asStrategic, pod(`{"containers":[{"name":"app","securityContext":{"runAsNonRoot":true}}]}`), plain, nil, []access.Trait{access.Privileged}, false},
		"strategic, security away":      {web, asStrategic, pod(`{"containers":[{"name":"app","securityContext":null}]}`), privileged, nil, []access.Trait{access.Privileged}, false},
		"strategic, volumes":            {web, asStrategic, pod(`{"volumes":[{"name":"x","emptyDir":{}}]}`), plain, nil, []access.Trait{access.HostPath, access.ServiceAccount, access.SecretRef}, false},
		"strategic, volumes for sure":   {web, asStrategic, pod(`{"volumes":[{"name":"x","hostPath":{"path":"/"}}]}`), plain, []access.Trait{access.HostPath}, []access.Trait{access.ServiceAccount, access.SecretRef}, false},
		"strategic, order of volumes":   {web, asStrategic, pod(`{"$setElementOrder/volumes":[{"name":"x"}]}`), plain, nil, []access.Trait{access.HostPath, access.ServiceAccount, access.SecretRef}, false},
		"strategic, $patch in a pod":    {web, asStrategic, pod(`{"$patch":"replace","containers":[{"name":"app","image":"i"}]}`), plain, nil, []access.Trait{access.Privileged, access.HostPath, access.HostNamespace, access.ServiceAccount, access.SecretRef}, false},
		"strategic, role":               {web, asStrategic, `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":null}}}`, plain, nil, []access.Trait{access.RoleARN}, false},
		"strategic, restart":            {web, asStrategic, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`, plain, nil, nil, false},
		"strategic that fails":          {web, asStrategic, pod(`{"$patch":"nonsense"}`), plain, nil, all, true},
		"strategic on an unknown kind":  {"PATCH /apis/argoproj.io/v1alpha1/namespaces/dev/rollouts/web", asStrategic, `{"spec":{}}`, live(build(t, 10, "", nil)), nil, all, true},
		"strategic without live":        {web, asStrategic, `{"spec":{}}`, nil, nil, all, true},
		"merge without live":            {web, asMerge, `{"spec":{}}`, nil, nil, all, true},
		"JSON without live":             {web, asJSONPatch, `[{"op":"remove","path":"/spec"}]`, nil, nil, all, true},
		"apply, replicas":               {web, asApply, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":3}}`, plain, nil, nil, true},
		"apply, replicas of privileged": {web, asApply, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":3}}`, privileged, nil, []access.Trait{access.Privileged}, true},
		"apply, account":                {web, asApply, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"serviceAccountName":"default"}}}}`, plain, nil, []access.Trait{access.ServiceAccount}, true},
		"apply, account for sure":       {web, asApply, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"serviceAccountName":"x"}}}}`, plain, []access.Trait{access.ServiceAccount}, nil, true},
		"apply, new":                    {web, asApply, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"serviceAccountName":"default"}}}}`, nil, nil, nil, false},
	} {
		o := must(t, test.line, test.media, test.body, test.live)
		if !slices.Equal(o.Traits, test.traits) || !slices.Equal(o.Unsure, test.unsure) || o.Partial != test.partial {
			t.Errorf("%s: got %v, unsure %v, partial %v; want %v, %v, %v", name, o.Traits, o.Unsure, o.Partial, test.traits, test.unsure, test.partial)
		}
	}
}

// R4: what gives power is found by kind, by rule and by name.
func TestPower(t *testing.T) {
	const (
		roles    = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/dev/roles"
		croles   = "POST /apis/rbac.authorization.k8s.io/v1/clusterroles"
		bindings = "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	)
	rule := func(s string) string {
		return `{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]},` + s + `]}`
	}
	for _, test := range []struct {
		line, body string
		want       access.Trait
	}{
		{roles, rule(`{"apiGroups":[""],"resources":["configmaps"],"verbs":["get","list"]}`), ""},
		{roles, rule(`{"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles"],"verbs":["get"]}`), ""},
		{roles, rule(`{"apiGroups":["rbac.authorization.k8s.io"],"resources":["rolebindings"],"verbs":["create"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":["*"],"verbs":["get"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":["pods/*"],"verbs":["get"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":["*"],"resources":["pods"],"verbs":["get"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":["pods"],"verbs":["*"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":["secrets"],"verbs":["get"],"resourceNames":["x"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":["pods/exec"],"verbs":["create"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":["serviceaccounts/token"],"verbs":["create"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":["serviceaccounts"],"verbs":["impersonate"]}`), access.GrantsPower},
		{roles, rule(`{"apiGroups":[""],"resources":"secrets","verbs":["get"]}`), access.GrantsPower},
		{croles, rule(`{"apiGroups":[""],"resources":["nodes/proxy"],"verbs":["get"]}`), access.GrantsPower},
		{croles, rule(`{"apiGroups":["certificates.k8s.io"],"resources":["certificatesigningrequests/approval"],"verbs":["update"]}`), access.GrantsPower},
		{croles, rule(`{"apiGroups":["certificates.k8s.io"],"resources":["signers"],"verbs":["approve"]}`), access.GrantsPower},
		{croles, rule(`{"nonResourceURLs":["*"],"verbs":["get"]}`), access.GrantsPower},
		{croles, rule(`{"apiGroups":["rbac.authorization.k8s.io"],"resources":["clusterroles"],"verbs":["bind"]}`), access.GrantsPower},
		{croles, `{"aggregationRule":{"clusterRoleSelectors":[]}}`, access.GrantsPower},
		{croles, `{"metadata":{"labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}},"rules":[]}`, access.GrantsPower},
		{bindings, `{"roleRef":{"kind":"ClusterRole","name":"view"},"subjects":[{"kind":"User","name":"ana"}]}`, ""},
		{bindings, `{"roleRef":{"kind":"ClusterRole","name":"cluster-admin"}}`, access.BindsPower},
		{bindings, `{"roleRef":{"kind":"ClusterRole","name":"edit"}}`, access.BindsPower},
		{bindings, `{"roleRef":{"kind":"ClusterRole","name":"system:node"}}`, access.BindsPower},
		{bindings, `{"roleRef":{"kind":"ClusterRole","name":"view"},"subjects":[{"kind":"Group","name":"system:authenticated"}]}`, access.BindsPower},
		{bindings, `{"roleRef":{"kind":"ClusterRole","name":"view"},"subjects":[{"kind":"User","name":"system:anonymous"}]}`, access.BindsPower},
		{"PUT /api/v1/namespaces/kube-system/configmaps/aws-auth", `{"data":{}}`, access.AWSAuth},
		{"POST /api/v1/namespaces/kube-system/configmaps", `{"metadata":{"name":"aws-auth"}}`, access.AWSAuth},
		{"POST /api/v1/namespaces/dev/configmaps", `{"metadata":{"name":"aws-auth"}}`, ""},
		{"POST /api/v1/namespaces/dev/configmaps", `{"data":{"hostNetwork":"true","serviceAccountName":"x","image":"y"}}`, ""},
		{"POST /api/v1/namespaces/dev/serviceaccounts", `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"arn:x"}}}`, access.RoleARN},
		{"POST /api/v1/namespaces/dev/serviceaccounts", `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":""}}}`, ""},
		{"POST /api/v1/namespaces/dev/pods", `{"metadata":{"annotations":{"container.apparmor.security.beta.kubernetes.io/app":"unconfined"}}}`, access.Privileged},
		{"POST /api/v1/persistentvolumes", `{"spec":{"hostPath":{"path":"/"}}}`, access.HostPath},
		{"POST /api/v1/persistentvolumes", `{"spec":{"local":{"path":"/"}}}`, access.HostPath},
		{"POST /api/v1/persistentvolumes", `{"spec":{"csi":{"driver":"d","nodeStageSecretRef":{"name":"x"}}}}`, access.SecretRef},
		{"POST /api/v1/namespaces/dev/serviceaccounts/sa/token", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"audiences":["x"]}}`, access.ServiceAccount},
		{"POST /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", `{}`, access.Webhook},
		{"POST /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", `{"webhooks":[{"clientConfig":{"url":"https://x"}}]}`, access.Webhook},
		{"POST /apis/apiregistration.k8s.io/v1/apiservices", `{}`, access.Webhook},
		{"POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", `{"spec":{"conversion":{"strategy":"Webhook"}}}`, access.Webhook},
		{"POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", `{"spec":{"conversion":{"strategy":"None"}}}`, ""},
		{"POST /apis/networking.k8s.io/v1/namespaces/dev/ingresses", `{"spec":{"tls":[{"secretName":"x"}],"rules":[{"host":"*"}]}}`, ""},
		// Custom resources: what is called as in a pod counts as in a pod, and objects within objects count as objects.
		{"POST /apis/tekton.dev/v1/namespaces/dev/tasks", `{"kind":"Task","spec":{"steps":[{"image":"i","securityContext":{"privileged":true}}]}}`, access.Privileged},
		{"POST /apis/argoproj.io/v1alpha1/namespaces/dev/workflows", `{"kind":"Workflow","spec":{"templates":[{"container":{"image":"i","envFrom":[{"secretRef":{"name":"x"}}]}}]}}`, access.SecretRef},
		{"POST /apis/argoproj.io/v1alpha1/namespaces/dev/workflows", `{"kind":"Workflow","spec":{"serviceAccountName":"x"}}`, access.ServiceAccount},
		{"POST /apis/example.com/v1/namespaces/dev/widgets", `{"kind":"Widget","spec":{"options":{"privileged":true}}}`, access.Privileged},
		{"POST /apis/example.com/v1/namespaces/dev/widgets", `{"kind":"Widget","spec":{"hostNetwork":"true"}}`, access.HostNamespace},
		{"POST /apis/example.com/v1/widgets", `{"kind":"Widget","spec":{"manifests":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"aws-auth","namespace":"kube-system"}}]}}`, access.AWSAuth},
		{"POST /apis/example.com/v1/widgets", `{"kind":"Widget","spec":{"permissions":[{"rules":[{"verbs":["*"],"resources":["x"]}]}]}}`, access.GrantsPower},
		{"POST /apis/example.com/v1/widgets", `{"kind":"Widget","spec":{"manifests":[{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService"}]}}`, access.Webhook},
	} {
		body := test.body
		if strings.Contains(body, `"kind":"Widget"`) {
			body = strings.Replace(body, "{", `{"apiVersion":"example.com/v1",`, 1)
		}
		var want []access.Trait
		if test.want != "" {
			want = []access.Trait{test.want}
		}
		if o := must(t, test.line, asJSON, body, nil); !slices.Equal(o.Traits, want) {
			t.Errorf("%s %s: got %v, want %v", test.line, test.body, o.Traits, want)
		}
	}
}

// A guarded field of a pod that has a type it cannot have is not guessed at.
func TestWrongTypes(t *testing.T) {
	for _, spec := range []string{
		`{"hostNetwork":"true"}`, `{"hostNetwork":1}`, `{"hostPID":{}}`, `{"containers":[1]}`, `{"initContainers":{}}`, `{"containers":[{"securityContext":"x"}]}`,
		`{"containers":[{"securityContext":{"privileged":"true"}}]}`, `{"containers":[{"securityContext":{"capabilities":{"add":"ALL"}}}]}`, `{"containers":[{"securityContext":{"capabilities":{"add":[1]}}}]}`,
		`{"volumes":{}}`, `{"volumes":["x"]}`, `{"volumes":[{"hostPath":"/"}]}`, `{"volumes":[{"secret":"x"}]}`, `{"volumes":[{"projected":{"sources":{}}}]}`, `{"volumes":[{"projected":{"sources":[{"serviceAccountToken":{"audience":1}}]}}]}`,
		`{"serviceAccountName":1}`, `{"serviceAccount":{}}`, `{"containers":[{"env":{}}]}`, `{"containers":[{"env":[{"valueFrom":[]}]}]}`, `{"containers":[{"envFrom":["x"]}]}`, `{"containers":[{"ports":[{"hostPort":"80"}]}]}`,
		`{"securityContext":{"seccompProfile":{"type":1}}}`, `{"securityContext":{"sysctls":[{"name":1}]}}`, `{"containers":[{"livenessProbe":{"httpGet":{"host":1}}}]}`, `{"securityContext":{"seLinuxOptions":{"type":[]}}}`,
	} {
		for i := range templates {
			o, err := do(t, "POST "+templates[i].collection, asJSON, marshal(t, build(t, i, spec, nil)), nil)
			if access.KindOf(err) != access.Media {
				t.Errorf("%s %s: got %+v, %v; want it to be undecodable", templates[i].kind, spec, o, err)
			}
		}
	}
}

func TestFound(t *testing.T) {
	o := must(t, "POST /api/v1/namespaces/dev/pods", asJSON, `{"spec":{
		"serviceAccountName":"sa",
		"initContainers":[{"name":"i","image":"b"}],
		"containers":[{"name":"a","image":"c","env":[{"name":"X","valueFrom":{"secretKeyRef":{"name":"s3","key":"k"}}}]},{"name":"b","image":"a","envFrom":[{"secretRef":{"name":"s2"}}]}],
		"volumes":[{"name":"v","hostPath":{"path":"/etc"}},{"name":"w","secret":{"secretName":"s1"}},{"name":"x","image":{"reference":"d"}}],
		"imagePullSecrets":[{"name":"pull"}]},
		"status":{"containerStatuses":[{"image":"status"}]}}`, nil)
	want := access.Found{Images: []string{"a", "b", "c", "d"}, ServiceAccounts: []string{"sa"}, Secrets: []string{"s1", "s2", "s3"}, HostPaths: []string{"/etc"}}
	if d := cmp.Diff(want, o.Found); d != "" {
		t.Error(d)
	}
}
