package decision_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"sallyport/e2e/stacktest"
)

// A carrier is a kind that carries a pod template.
type carrier struct {
	gv, kind, resource string
	path               []string // of the pod's spec
	open               bool     // whether developers may write it
	make               func(metav1.ObjectMeta, corev1.PodTemplateSpec) runtime.Object
}

// Nothing of what these make would run, were it let through: it has no replicas, is suspended, or may not be scheduled.
var carriers = []carrier{
	{"v1", "Pod", "pods", []string{"spec"}, true, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		return &corev1.Pod{ObjectMeta: m, Spec: p.Spec}
	}},
	{"v1", "PodTemplate", "podtemplates", []string{"template", "spec"}, false, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		return &corev1.PodTemplate{ObjectMeta: m, Template: p}
	}},
	{"v1", "ReplicationController", "replicationcontrollers", []string{"spec", "template", "spec"}, false, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		return &corev1.ReplicationController{ObjectMeta: m, Spec: corev1.ReplicationControllerSpec{Replicas: new(int32(0)), Selector: p.Labels, Template: &p}}
	}},
	{"apps/v1", "Deployment", "deployments", []string{"spec", "template", "spec"}, true, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		return &appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: p.Labels}, Template: p}}
	}},
	{"apps/v1", "ReplicaSet", "replicasets", []string{"spec", "template", "spec"}, true, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		return &appsv1.ReplicaSet{ObjectMeta: m, Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: p.Labels}, Template: p}}
	}},
	{"apps/v1", "StatefulSet", "statefulsets", []string{"spec", "template", "spec"}, true, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		return &appsv1.StatefulSet{ObjectMeta: m, Spec: appsv1.StatefulSetSpec{Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: p.Labels}, Template: p}}
	}},
	{"apps/v1", "DaemonSet", "daemonsets", []string{"spec", "template", "spec"}, true, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		p.Spec.NodeSelector = map[string]string{"no": "node"}
		return &appsv1.DaemonSet{ObjectMeta: m, Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: p.Labels}, Template: p}}
	}},
	{"batch/v1", "Job", "jobs", []string{"spec", "template", "spec"}, true, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		p.Spec.RestartPolicy, p.Labels = corev1.RestartPolicyNever, nil
		return &batchv1.Job{ObjectMeta: m, Spec: batchv1.JobSpec{Suspend: new(true), Template: p}}
	}},
	{"batch/v1", "CronJob", "cronjobs", []string{"spec", "jobTemplate", "spec", "template", "spec"}, true, func(m metav1.ObjectMeta, p corev1.PodTemplateSpec) runtime.Object {
		p.Spec.RestartPolicy, p.Labels = corev1.RestartPolicyNever, nil
		return &batchv1.CronJob{ObjectMeta: m, Spec: batchv1.CronJobSpec{Suspend: new(true), Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: p}}}}
	}},
}

func (c carrier) collection() string {
	if c.gv == "v1" {
		return "/api/v1/namespaces/dev/" + c.resource
	}
	return "/apis/" + c.gv + "/namespaces/dev/" + c.resource
}

// object is one of the kind whose pods have what change gives them.
func (c carrier) object(name string, change func(*corev1.PodTemplateSpec)) runtime.Object {
	p := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/never"}},
			Containers:      []corev1.Container{{Name: "c", Image: "localhost/none:1"}},
		},
	}
	if change != nil {
		change(&p)
	}
	o := c.make(metav1.ObjectMeta{Name: name, Namespace: "dev"}, p)
	group, version, ok := strings.Cut(c.gv, "/")
	if !ok {
		group, version = "", c.gv
	}
	gvk := o.GetObjectKind().GroupVersionKind()
	gvk.Group, gvk.Version, gvk.Kind = group, version, c.kind
	o.GetObjectKind().SetGroupVersionKind(gvk)
	return o
}

// encodings of an object, by media type.
func encodings(t *testing.T, o runtime.Object) map[string]string {
	t.Helper()
	j, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.JSONToYAML(j)
	if err != nil {
		t.Fatal(err)
	}
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		t.Fatal("no protobuf")
	}
	p, err := runtime.Encode(info.Serializer, o)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{asJSON: string(j), asYAML: string(y), asProtobuf: string(p)}
}

func container(change func(*corev1.Container)) func(*corev1.PodTemplateSpec) {
	return func(p *corev1.PodTemplateSpec) { change(&p.Spec.Containers[0]) }
}

func security(c corev1.SecurityContext) func(*corev1.PodTemplateSpec) {
	return container(func(x *corev1.Container) { x.SecurityContext = &c })
}

func volume(v corev1.VolumeSource) func(*corev1.PodTemplateSpec) {
	return func(p *corev1.PodTemplateSpec) { p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: v}} }
}

// Threat R3: what would make a pod root on its node.
var dangerous = map[string]func(*corev1.PodTemplateSpec){
	"privileged": security(corev1.SecurityContext{Privileged: new(true)}),
	"a privileged init container": func(p *corev1.PodTemplateSpec) {
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "x", SecurityContext: &corev1.SecurityContext{Privileged: new(true)}}}
	},
	"a privileged second container": func(p *corev1.PodTemplateSpec) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d", Image: "x", SecurityContext: &corev1.SecurityContext{Privileged: new(true)}})
	},
	"a capability":     security(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}}),
	"every capability": security(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"ALL"}}}),
	"/proc unmasked":   security(corev1.SecurityContext{ProcMount: new(corev1.UnmaskedProcMount)}),
	"no seccomp":       security(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}),
	"a Windows host":   security(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: new(true)}}),
	"an unsafe sysctl": func(p *corev1.PodTemplateSpec) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
	},
	"hostPath":                volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}),
	"hostPath, harmless":      volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/x", Type: new(corev1.HostPathDirectoryOrCreate)}}),
	"hostNetwork":             func(p *corev1.PodTemplateSpec) { p.Spec.HostNetwork = true },
	"hostPID":                 func(p *corev1.PodTemplateSpec) { p.Spec.HostPID = true },
	"hostIPC":                 func(p *corev1.PodTemplateSpec) { p.Spec.HostIPC = true },
	"hostPort":                container(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}} }),
	"with an identity too":    func(p *corev1.PodTemplateSpec) { p.Spec.HostPID, p.Spec.ServiceAccountName = true, "app" },
	"on a node of its choice": func(p *corev1.PodTemplateSpec) { p.Spec.HostPID, p.Spec.NodeName = true, "dev-node" },
}

// Threat R3: what would make a pod act as somebody else.
var borrowed = map[string]func(*corev1.PodTemplateSpec){
	"a service account":                  func(p *corev1.PodTemplateSpec) { p.Spec.ServiceAccountName = "app" },
	"a service account, by its old name": func(p *corev1.PodTemplateSpec) { p.Spec.DeprecatedServiceAccount = "app" },
	"a token for somebody":               volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "sts.amazonaws.com", Path: "t"}}}}}),
	"a Secret as volume":                 volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "db"}}),
	"a Secret projected":                 volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}}}}}),
	"a Secret for a driver":              volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "x", NodePublishSecretRef: &corev1.LocalObjectReference{Name: "db"}}}),
	"a Secret as variable": container(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "P", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}, Key: "password"}}}}
	}),
	"a Secret as all variables": container(func(c *corev1.Container) {
		c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}}}
	}),
}

// Threat R3, at creation and at replacement, in every kind that carries a pod template and in every form.
func TestBodies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, c := range carriers {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			var asks []ask
			add := func(decision, rule, name string, o runtime.Object) {
				for media, body := range encodings(t, o) {
					for method, target := range map[string]string{"POST": c.collection() + "?dryRun=All", "PUT": c.collection() + "/x?dryRun=All"} {
						if decision == "allow" && method == "PUT" {
							continue // there is nothing to replace
						}
						asks = append(asks, ask{name: name, method: method, target: target, media: media, body: body, decision: decision, rules: []string{rule}})
					}
				}
			}
			if !c.open { // nothing allows it, so that nobody has to look into it
				for name, change := range dangerous {
					add("deny", "default", name, c.object("x", change))
				}
				decide(t, s.Agent(t, "developers"), asks...)
				return
			}
			for name, change := range dangerous {
				add("deny", "no-privileged-pods", name, c.object("x", change))
			}
			for name, change := range borrowed {
				add("ask", "borrowed-identity", name, c.object("x", change))
			}
			// Else all of the above would prove nothing.
			add("allow", "develop", "nothing dangerous", c.object("test-"+stacktest.Word(), nil))
			add("allow", "develop", "its own account", c.object("test-"+stacktest.Word(), func(p *corev1.PodTemplateSpec) { p.Spec.ServiceAccountName = "default" }))
			add("allow", "develop", "a Secret for images, which the pod does not see", c.object("test-"+stacktest.Word(), func(p *corev1.PodTemplateSpec) {
				p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "db"}}
			}))
			add("allow", "develop", "privileges given up", c.object("test-"+stacktest.Word(), security(corev1.SecurityContext{Privileged: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}})))
			decide(t, s.Agent(t, "developers"), asks...)
		})
	}
}

// Threats S5, S8: bodies that two readers could read in two ways, or that nobody here can read. None of them is forwarded.
func TestBodiesOfTwoReadings(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	pod := carriers[0]
	plain := encodings(t, pod.object("x", nil))
	bad := encodings(t, pod.object("x", dangerous["hostPID"]))
	list := `{"apiVersion":"v1","kind":"List","items":[` + bad[asJSON] + `]}`
	unreadable := func(name, media, body string) ask {
		return ask{name: name, method: "POST", target: pod.collection() + "?dryRun=All", media: media, body: body}
	}
	insert := func(more string) string { return strings.Replace(plain[asJSON], `"spec":{`, `"spec":{`+more+`,`, 1) }
	decide400 := []ask{
		unreadable("a key twice", asJSON, insert(`"hostPID":true,"hostPID":false`)).answered(400),
		unreadable("a key twice, escaped", asJSON, insert(`"hostPID":true,"host\u0050ID":false`)).answered(400),
		unreadable("two documents", asJSON, plain[asJSON]+bad[asJSON]).answered(400),
		unreadable("two documents as YAML", asYAML, plain[asYAML]+"---\n"+bad[asYAML]).answered(400),
		unreadable("a key twice in YAML", asYAML, plain[asYAML]+"spec: {hostPID: true, containers: []}\n").answered(400),
		unreadable("half an object", asJSON, plain[asJSON][:len(plain[asJSON])/2]).answered(400),
		unreadable("no object", asJSON, `[]`).answered(400),
		unreadable("no UTF-8", asJSON, insert("\"x\":\"\xff\"")).answered(400),
		unreadable("another form", "text/plain", plain[asJSON]).answered(415),
		unreadable("CBOR", "application/cbor", "\xd9\xd9\xf7\xa0").answered(415),
		unreadable("two types at once", asJSON+", "+asYAML, plain[asJSON]).answered(415),
	}
	decide(t, s.Agent(t, "developers"), decide400...)

	// Whether what follows is no pod or a pod that cannot be judged: it does not pass.
	agent := s.Agent(t, "developers")
	// JSON's keys have one case, for the cluster too: it serves a pod that has none of it.
	got := s.Do(t, stacktest.Request{Method: "POST", Target: s.Path(pod.collection() + "?dryRun=All"), Header: lines(agent, asJSON), Body: insert(`"hostPid":true,"HostPID":true`)})
	if got.Code == 201 && strings.Contains(got.Body, `"hostPID":true`) {
		t.Errorf("a key of another case: %v", got)
	}
	var ids []string
	for _, a := range []ask{
		unreadable("a byte order mark", asJSON, "\ufeff"+bad[asJSON]),
		unreadable("an anchor", asYAML, strings.Replace(bad[asYAML], "spec:", "spec: &a", 1)),
		unreadable("a merge key", asYAML, strings.Replace(plain[asYAML], "spec:", "spec:\n  <<: {hostPID: true}", 1)),
		unreadable("JSON that is said to be YAML", asYAML, bad[asJSON]),
		unreadable("YAML that is said to be JSON", asJSON, bad[asYAML]),
		unreadable("JSON that is said to be protobuf", asProtobuf, bad[asJSON]),
		unreadable("protobuf that is said to be JSON", asJSON, bad[asProtobuf]),
		unreadable("protobuf and more", asProtobuf, plain[asProtobuf]+bad[asProtobuf][4:]),
		unreadable("no type", "", bad[asJSON]),
		unreadable("a type with parameters", asJSON+"; charset=utf-8", bad[asJSON]),
		unreadable("a type of another case", "Application/JSON", bad[asJSON]),
		unreadable("a list", asJSON, list),
		unreadable("a list of another name", asJSON, strings.Replace(list, `"List"`, `"PodList"`, 1)),
		unreadable("another kind", asJSON, strings.Replace(bad[asJSON], `"Pod"`, `"ConfigMap"`, 1)),
		unreadable("another version", asJSON, strings.Replace(bad[asJSON], `"v1"`, `"v2"`, 1)),
		unreadable("no kind", asJSON, strings.Replace(bad[asJSON], `"kind":"Pod",`, "", 1)),
		unreadable("another namespace", asJSON, strings.Replace(bad[asJSON], `"namespace":"dev"`, `"namespace":"prod"`, 1)),
	} {
		got := s.Do(t, stacktest.Request{Method: a.method, Target: s.Path(a.target), Body: a.body, Header: lines(agent, a.media)})
		if got.Code != 400 && got.Code != 403 && got.Code != 415 {
			t.Errorf("%v: %v", a, got)
		}
		ids = append(ids, got.AuditID())
	}
	s.Reached(t, agent.Get(t, "/version").AuditID())
	for _, e := range s.Audit(t) {
		if slices.Contains(ids, string(e.AuditID)) {
			t.Errorf("it reached the cluster: %s %s: %v", e.Verb, e.RequestURI, e.ResponseStatus)
		}
	}
}

func lines(agent *stacktest.Agent, media string) []string {
	l := []string{stacktest.Bearer(agent.Token)}
	if media != "" {
		l = append(l, "Content-Type: "+media)
	}
	return l
}

// nest puts a value under a path of keys.
func nest(path []string, v any) any {
	for _, key := range slices.Backward(path) {
		v = map[string]any{key: v}
	}
	return v
}

// patches are the ways to give a live object's pods some fields of their spec.
func (c carrier) patches(t *testing.T, name string, fields map[string]any) map[string]string {
	t.Helper()
	encode := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var operations []any
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		operations = append(operations, map[string]any{"op": "add", "path": "/" + strings.Join(append(slices.Clone(c.path), key), "/"), "value": fields[key]})
	}
	applied := nest(c.path, fields).(map[string]any)
	applied["apiVersion"], applied["kind"], applied["metadata"] = c.gv, c.kind, map[string]any{"name": name, "namespace": "dev"}
	return map[string]string{merge: encode(nest(c.path, fields)), strategic: encode(nest(c.path, fields)), jsonPatch: encode(operations), apply: encode(applied)}
}

// Threat R3, by patch: judged on what it makes of the object that is there.
func TestPatches(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	containers := func(more map[string]any) map[string]any {
		c := map[string]any{"name": "c", "image": "localhost/none:1"}
		maps.Copy(c, more)
		return map[string]any{"containers": []any{c}}
	}
	secret := map[string]any{"name": "v", "secret": map[string]any{"secretName": "db"}}
	tests := []struct {
		name, rule string
		fields     map[string]any
	}{
		{"privileged", "no-privileged-pods", containers(map[string]any{"securityContext": map[string]any{"privileged": true}})},
		{"a capability", "no-privileged-pods", containers(map[string]any{"securityContext": map[string]any{"capabilities": map[string]any{"add": []any{"SYS_ADMIN"}}}})},
		{"hostPort", "no-privileged-pods", containers(map[string]any{"ports": []any{map[string]any{"containerPort": 80, "hostPort": 80}}})},
		{"hostPath", "no-privileged-pods", map[string]any{"volumes": []any{map[string]any{"name": "v", "hostPath": map[string]any{"path": "/"}}}}},
		{"hostPID", "no-privileged-pods", map[string]any{"hostPID": true}},
		{"hostNetwork", "no-privileged-pods", map[string]any{"hostNetwork": true}},
		{"a service account", "borrowed-identity", map[string]any{"serviceAccountName": "app"}},
		{"a Secret", "borrowed-identity", map[string]any{"volumes": []any{secret}}},
		{"a Secret as variable", "borrowed-identity", containers(map[string]any{"envFrom": []any{map[string]any{"secretRef": map[string]any{"name": "db"}}}})},
	}
	for _, c := range carriers {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			name := "test-" + stacktest.Word()
			s.Create(t, encodings(t, c.object(name, nil))[asJSON])
			one := c.collection() + "/" + name
			var asks []ask
			for _, test := range tests {
				for media, body := range c.patches(t, name, test.fields) {
					target := one
					if media == apply {
						target += "?fieldManager=test&force=true"
					}
					decision := "deny"
					if test.rule == "borrowed-identity" {
						decision = "ask"
					}
					a := refuse(decision, test.rule, test.name, "PATCH", target).with(media, body)
					if media == strategic || media == apply { // what a partial body touches may be either
						a.decision, a.rules = either, []string{"no-privileged-pods", "borrowed-identity"}
					}
					if !c.open {
						a.decision, a.rules = "deny", []string{"default"} // whatever it holds
					}
					asks = append(asks, a)
					if media == apply { // it creates what is not there
						b := a
						b.target, b.body = strings.Replace(target, name, "not-there", 1), strings.Replace(body, name, "not-there", 1)
						asks = append(asks, b)
					}
				}
			}
			decide(t, s.Agent(t, "developers"), asks...)
			if !c.open {
				return
			}
			// The same forms are let through when there is nothing in them.
			var fine []ask
			label := `{"metadata":{"labels":{"seen":"yes"}}}`
			for media, body := range map[string]string{merge: label, strategic: label, jsonPatch: `[{"op":"add","path":"/metadata/labels","value":{"seen":"yes"}}]`,
				apply: fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"namespace":"dev","labels":{"seen":"yes"}}}`, c.gv, c.kind, name)} {
				target := one
				if media == apply {
					target += "?fieldManager=test"
				}
				fine = append(fine, allow("develop", "a label", "PATCH", target).with(media, body))
			}
			decide(t, s.Agent(t, "developers"), fine...)
			if got := s.Admin(t, "get", c.resource, name, "-n", "dev", "-o", "jsonpath={.metadata.labels.seen}"); got != "yes" {
				t.Errorf("the label that was let through is %q", got)
			}
		})
	}
}

// A patch is judged with what it leaves alone: nobody works on a pod template that is dangerous already, and no patch moves
// what is harmless in one place to another where it is not.
func TestPatchesOfWhatIsThere(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	deployment := carriers[3]
	privileged, plain := "test-"+stacktest.Word(), "test-"+stacktest.Word()
	s.Create(t, encodings(t, deployment.object(privileged, dangerous["privileged"]))[asJSON])
	s.Create(t, encodings(t, deployment.object(plain, func(p *corev1.PodTemplateSpec) { p.Annotations = map[string]string{"harmless": "app"} }))[asJSON])
	no := func(name, object, media, body string) ask {
		a := refuse("deny", "no-privileged-pods", name, "PATCH", deployment.collection()+"/"+object).with(media, body)
		if media == strategic {
			a.decision = either
		}
		return a
	}
	const spec = "/spec/template/spec"
	label := `{"metadata":{"labels":{"x":"y"}}}`
	asks := []ask{
		no("a label on what is privileged", privileged, merge, label),
		no("a label on what is privileged", privileged, jsonPatch, `[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`),
		no("nothing on what is privileged", privileged, merge, `{}`),
		no("nothing on what is privileged", privileged, jsonPatch, `[]`),
		no("scaling what is privileged", privileged, merge, `{"spec":{"replicas":1}}`),
		no("in two steps", plain, jsonPatch, `[{"op":"add","path":"`+spec+`/hostPID","value":false},{"op":"replace","path":"`+spec+`/hostPID","value":true}]`),
		no("a copy", plain, jsonPatch, `[{"op":"add","path":"`+spec+`/shareProcessNamespace","value":true},{"op":"copy","from":"`+spec+`/shareProcessNamespace","path":"`+spec+`/hostPID"}]`),
		no("a move", plain, jsonPatch, `[{"op":"add","path":"`+spec+`/shareProcessNamespace","value":true},{"op":"move","from":"`+spec+`/shareProcessNamespace","path":"`+spec+`/hostPID"}]`),
		no("the whole spec", plain, jsonPatch, `[{"op":"replace","path":"/spec/template/spec","value":{"hostPID":true,"containers":[{"name":"c","image":"x"}]}}]`),
		{name: "the whole object", method: "PATCH", target: deployment.collection() + "/" + plain, media: jsonPatch, code: 400, body: fmt.Sprintf(`[{"op":"replace","path":"","value":%s}]`, encodings(t, deployment.object(plain, dangerous["hostPID"]))[asJSON])},
		no("one container more", plain, jsonPatch, `[{"op":"add","path":"`+spec+`/containers/-","value":{"name":"d","image":"x","securityContext":{"privileged":true}}}]`),
		no("one container more", plain, strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"x","securityContext":{"privileged":true}}]}}}}`),
		no("a directive", plain, strategic, `{"spec":{"template":{"spec":{"$patch":"replace","hostPID":true,"containers":[{"name":"c","image":"x"}]}}}}`),
		refuse("ask", "borrowed-identity", "a copied name", "PATCH", deployment.collection()+"/"+plain).with(jsonPatch, `[{"op":"copy","from":"/spec/template/metadata/annotations/harmless","path":"`+spec+`/serviceAccountName"}]`),
		// A test is the cluster's: answered by the gate, it would say to whoever may do nothing whether a guess is right.
		allow("develop", "a test that fails", "PATCH", deployment.collection()+"/"+plain).with(jsonPatch, `[{"op":"test","path":"/metadata/name","value":"x"}]`).answered(422),
		// What cannot be applied is not forwarded either.
		{name: "a field that is not there", method: "PATCH", target: deployment.collection() + "/" + plain, media: jsonPatch, body: `[{"op":"remove","path":"/spec/none"}]`, code: 400},
		{name: "no patch", method: "PATCH", target: deployment.collection() + "/" + plain, media: merge, body: `[]`, code: 400},
		{name: "a key twice", method: "PATCH", target: deployment.collection() + "/" + plain, media: merge, body: `{"spec":{"paused":true},"spec":{"template":{"spec":{"hostPID":true}}}}`, code: 400},
		{name: "an unknown form", method: "PATCH", target: deployment.collection() + "/" + plain, media: "application/x-patch", body: `{}`, code: 415},
		{name: "no form", method: "PATCH", target: deployment.collection() + "/" + plain, media: asJSON, body: `{}`, code: 415},
	}
	decide(t, s.Agent(t, "developers"), asks...)
	if got := s.Admin(t, "get", "deployment", plain, "-n", "dev", "-o", "jsonpath={.metadata.generation}"); got != "1" {
		t.Errorf("it was changed %s times", got)
	}
}

// The version of the object that a patch was judged on goes with it, and a caller's own stands.
func TestPatchesCarryTheVersion(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	name := s.ConfigMap(t)
	agent := s.Agent(t, "developers")
	one := "/api/v1/namespaces/dev/configmaps/" + name
	decide(t, agent,
		ask{name: "a stale version of the caller's", method: "PATCH", target: one, media: merge, body: `{"metadata":{"resourceVersion":"1"},"data":{"color":"red"}}`, code: 409},
		allow("develop", "none", "PATCH", one).with(merge, `{"data":{"color":"green"}}`),
	)
	if got := s.Admin(t, "get", "configmap", name, "-n", "dev", "-o", "jsonpath={.data.color}"); got != "green" {
		t.Errorf("its color is %q", got)
	}
}

// kubectl rollout restart is all that an agent may do by a patch of a deployment, however it is written.
func TestRestartAndNothingElse(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	deployment := carriers[3]
	name := "test-" + stacktest.Word()
	s.Create(t, encodings(t, deployment.object(name, nil))[asJSON])
	one := deployment.collection() + "/" + name
	restart := `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-01-01T00:00:00Z"}}}}}`
	no := func(name, media, body string) ask {
		return refuse("deny", "default", name, "PATCH", one).with(media, body)
	}
	and := func(more string) string { return strings.TrimSuffix(restart, "}") + "," + more + "}" }
	asks := []ask{
		allow("restart", "as kubectl does it", "PATCH", one+"?fieldManager=kubectl-rollout").with(strategic, restart),
		allow("restart", "a merge", "PATCH", one).with(merge, restart),
		no("another annotation", strategic, strings.Replace(restart, "restartedAt", "other", 1)),
		no("an annotation that begins the same", strategic, strings.Replace(restart, "restartedAt", "restartedAtAll", 1)),
		no("an annotation of the deployment itself", strategic, `{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"x"}}}`),
		no("replicas too", strategic, strings.Replace(restart, `{"spec":{`, `{"spec":{"replicas":0,`, 1)),
		no("an image too", strategic, strings.Replace(restart, `"template":{`, `"template":{"spec":{"containers":[{"name":"c","image":"evil"}]},`, 1)),
		no("a label too", merge, and(`"metadata":{"labels":{"x":"y"}}`)),
		no("a field taken away too", merge, and(`"metadata":{"labels":null}`)),
		no("all annotations taken away", strategic, `{"spec":{"template":{"metadata":{"annotations":null}}}}`),
		no("all annotations replaced", strategic, `{"spec":{"template":{"metadata":{"annotations":{"$patch":"replace","kubectl.kubernetes.io/restartedAt":"x"}}}}}`),
		no("nothing", strategic, `{}`),
		no("nothing", jsonPatch, `[]`),
		no("the image by a JSON patch", jsonPatch, `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"evil"}]`),
		no("replaced whole", merge, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"evil"}]}}}}`),
	}
	put := refuse("deny", "default", "an update", "PUT", one).with(asJSON, encodings(t, deployment.object(name, nil))[asJSON])
	decide(t, s.Agent(t, "agents"), append(asks, put)...)
	if got := s.Admin(t, "get", "deployment", name, "-n", "dev", "-o", "jsonpath={.spec.template.spec.containers[0].image} {.spec.replicas}"); got != "localhost/none:1 0" {
		t.Errorf("it was changed: %s", got)
	}
}
