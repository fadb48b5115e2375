package action

import (
	"maps"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// What the Pod Security Standard "baseline" allows, as of Kubernetes 1.35 (k8s.io/pod-security-admission/policy).
var (
	capabilities = []string{"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
	sysctls      = []string{
		"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start",
		"net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
		"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
	}
	selinux  = []string{"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
	profiles = []string{"RuntimeDefault", "Localhost"}
)

// What a rule of a Role gives that is as good as more power: other people's, or every pod's.
var (
	strongVerbs     = []string{"escalate", "bind", "impersonate", "approve", "sign", "attest"}
	strongResources = []string{
		"secrets", "serviceaccounts/token", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy",
		"pods/ephemeralcontainers", "certificatesigningrequests/approval", "certificatesigningrequests/status", "signers",
	}
	// strongWrites are harmless to read.
	strongWrites = []string{
		"roles", "clusterroles", "rolebindings", "clusterrolebindings", "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
		"mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "apiservices", "customresourcedefinitions",
	}
	strongRoles = []string{"cluster-admin", "admin", "edit"}
)

const (
	roleARN  = "eks.amazonaws.com/role-arn"
	appArmor = "container.apparmor.security.beta.kubernetes.io/"
	rbac     = "rbac.authorization.k8s.io"
)

// podKeys make a map a pod's specification, wherever it stands.
var podKeys = []string{"containers", "initContainers", "ephemeralContainers"}

// texts are fields whose keys are free, so that they must not be taken for others of the same name.
var texts = []string{"labels", "annotations", "matchLabels", "nodeSelector", "volumeAttributes", "options", "limits", "requests"}

// A reader looks for traits. It knows fields by their names, not their paths, so that it sees a pod template in any kind
// that has one, known or not. Inside a pod's specification types must be what Kubernetes says; elsewhere, where a field may
// only be called the same, what is of another type is either taken for the worst or is no such field.
type reader struct {
	traits                                      map[access.Trait]bool
	unnamed                                     map[access.Trait]bool // traits that no name stands for
	images, serviceAccounts, secrets, hostPaths map[string]bool
	wrong                                       string // the first guarded field of a wrong type
}

// look finds the traits of an object.
func look(a access.Action, value map[string]any) (*reader, error) {
	r := &reader{traits: map[access.Trait]bool{}, unnamed: map[access.Trait]bool{}, images: map[string]bool{}, serviceAccounts: map[string]bool{}, secrets: map[string]bool{}, hostPaths: map[string]bool{}}
	group, kind := a.Group, word(value["kind"])
	if apiVersion := word(value["apiVersion"]); apiVersion != "" {
		group = groupOf(apiVersion)
	}
	r.object(group, kind, value)
	// The name may be in the URL alone.
	if a.Group == "" && a.Resource == "configmaps" && a.Namespace == "kube-system" && (a.Name == "aws-auth" || word(dig(value, "metadata", "name")) == "aws-auth") {
		r.traits[access.AWSAuth] = true
	}
	strict := pod(value)
	for k, v := range value {
		switch {
		case k == "status" && groups[group]: // the cluster's own words
		case group == "" && (kind == "ConfigMap" || kind == "Secret") && (k == "data" || k == "stringData" || k == "binaryData"):
		default:
			r.field(k, v, strict)
			r.walk(k, v, strict)
		}
	}
	if r.wrong != "" {
		return nil, access.Errorf(access.Media, "the field %s of a pod is of a type it cannot have, so nobody can tell what it would do; write it as Kubernetes' reference says", r.wrong)
	}
	return r, nil
}

// list is the traits in the order of access.Traits.
func (r *reader) list() []access.Trait {
	var list []access.Trait
	for _, t := range access.Traits {
		if r.traits[t] {
			list = append(list, t)
		}
	}
	return list
}

func (r *reader) found() access.Found {
	return access.Found{
		Images: slices.Sorted(maps.Keys(r.images)), ServiceAccounts: slices.Sorted(maps.Keys(r.serviceAccounts)),
		Secrets: slices.Sorted(maps.Keys(r.secrets)), HostPaths: slices.Sorted(maps.Keys(r.hostPaths)),
	}
}

// without is set without what is in list, in the order of access.Traits.
func without(set map[access.Trait]bool, list []access.Trait) []access.Trait {
	var rest []access.Trait
	for _, t := range access.Traits {
		if set[t] && !slices.Contains(list, t) {
			rest = append(rest, t)
		}
	}
	return rest
}

func groupOf(apiVersion string) string {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}

func (r *reader) bad(field string) {
	if r.wrong == "" {
		r.wrong = field
	}
}

// walk looks at everything below a field. Strict is true inside a pod's specification.
func (r *reader) walk(key string, v any, strict bool) {
	switch v := v.(type) {
	case []any:
		for _, c := range v {
			if _, ok := c.(map[string]any); !ok && c != nil && strict && slices.Contains(podKeys, key) {
				r.bad(key)
			}
			r.walk(key, c, strict)
		}
	case map[string]any:
		if key == "managedFields" || slices.Contains(texts, key) && onlyText(v) {
			return
		}
		strict = strict || pod(v)
		if apiVersion, kind := word(v["apiVersion"]), word(v["kind"]); apiVersion != "" && kind != "" {
			r.object(groupOf(apiVersion), kind, v)
		}
		for k, c := range v {
			r.field(k, c, strict)
			r.walk(k, c, strict)
		}
	}
}

// pod says whether a map is a pod's specification.
func pod(m map[string]any) bool {
	return slices.ContainsFunc(podKeys, func(k string) bool { _, ok := m[k].([]any); return ok })
}

// onlyText says whether all values are strings.
func onlyText(m map[string]any) bool {
	for _, v := range m {
		if _, ok := v.(string); !ok {
			return false
		}
	}
	return true
}

// field judges one field by its name.
func (r *reader) field(key string, v any, strict bool) {
	if v == nil {
		return
	}
	m, object := v.(map[string]any)
	list, isList := v.([]any)
	s, isText := v.(string)
	if strict {
		ok := true
		switch key {
		case "securityContext", "capabilities", "seccompProfile", "appArmorProfile", "seLinuxOptions", "windowsOptions", "valueFrom", "httpGet", "tcpSocket":
			ok = object
		case "containers", "initContainers", "ephemeralContainers", "volumes", "env", "envFrom", "sysctls":
			ok = isList
		case "serviceAccountName", "serviceAccount", "procMount":
			ok = isText
		}
		if !ok {
			r.bad(key)
			return
		}
	}
	switch key {
	case "privileged", "hostProcess":
		r.flag(key, v, strict, access.Privileged)
	case "hostNetwork", "hostPID", "hostIPC":
		r.flag(key, v, strict, access.HostNamespace)
	case "hostPort":
		switch v := v.(type) {
		case int64:
			r.mark(v != 0, access.HostNamespace)
		case float64:
			r.mark(v != 0, access.HostNamespace)
		default:
			r.guess(key, strict, access.HostNamespace)
		}
	case "procMount":
		r.mark(isText && s != "" && s != "Default", access.Privileged)
	case "capabilities":
		r.capabilities(m, strict)
	case "seccompProfile", "appArmorProfile":
		kind, ok := text(m["type"])
		if !ok {
			r.guess(key+".type", strict, access.Privileged)
		}
		r.mark(kind != "" && !slices.Contains(profiles, kind), access.Privileged)
	case "seLinuxOptions":
		for _, k := range []string{"type", "user", "role"} {
			value, ok := text(m[k])
			if !ok {
				r.guess(key+"."+k, strict, access.Privileged)
			}
			r.mark(k == "type" && !slices.Contains(selinux, value) || k != "type" && value != "", access.Privileged)
		}
	case "sysctls":
		for _, e := range list {
			name, ok := dig(e, "name").(string)
			if !ok && strict {
				r.bad("sysctls.name")
			}
			r.mark(ok && !slices.Contains(sysctls, name), access.Privileged)
		}
	case "httpGet", "tcpSocket":
		// A probe is sent by the kubelet, from the node, to wherever it says.
		host, ok := text(m["host"])
		if !ok {
			r.guess(key+".host", strict, access.Privileged)
		}
		r.mark(host != "", access.Privileged)
	case "serviceAccountName", "serviceAccount":
		if s != "" {
			r.serviceAccounts[s] = true
			r.mark(s != "default", access.ServiceAccount)
		}
	case "image":
		if isText && s != "" {
			r.images[s] = true
		}
	case "volumes":
		for _, e := range list {
			volume, ok := e.(map[string]any)
			if !ok && e != nil && strict {
				r.bad(key)
			}
			r.volume(volume, strict)
		}
	case "hostPath":
		r.hostPath(v, strict)
	case "valueFrom":
		r.secret("valueFrom.secretKeyRef", m["secretKeyRef"], "name", strict)
	case "envFrom":
		for _, e := range list {
			source, ok := e.(map[string]any)
			if !ok && e != nil && strict {
				r.bad(key)
			}
			r.secret("envFrom.secretRef", source["secretRef"], "name", strict)
		}
	case "rules":
		for _, e := range list {
			if rule, ok := e.(map[string]any); ok && rule["verbs"] != nil {
				r.rule(rule)
			}
		}
	case "aggregationRule":
		r.mark(true, access.GrantsPower)
	case "roleRef":
		name := word(m["name"])
		r.mark(slices.Contains(strongRoles, name) || strings.HasPrefix(name, "system:"), access.BindsPower)
	case "subjects":
		for _, e := range list {
			kind, name := word(dig(e, "kind")), word(dig(e, "name"))
			r.mark((kind == "Group" || kind == "User") && strings.HasPrefix(name, "system:"), access.BindsPower)
		}
	case "webhooks":
		for _, e := range list {
			r.mark(dig(e, "clientConfig") != nil, access.Webhook)
		}
	case "conversion":
		r.mark(m["strategy"] == "Webhook" || m["webhook"] != nil || m["webhookClientConfig"] != nil, access.Webhook)
	case "annotations":
		r.annotations(m)
	case roleARN:
		r.mark(s != "" || !isText, access.RoleARN)
	}
}

func (r *reader) nameless(is bool, t access.Trait) {
	if is {
		r.traits[t], r.unnamed[t] = true, true
	}
}

func (r *reader) mark(is bool, t access.Trait) {
	if is {
		r.traits[t] = true
	}
}

// flag judges a boolean.
func (r *reader) flag(key string, v any, strict bool, t access.Trait) {
	switch v := v.(type) {
	case bool:
		r.mark(v, t)
	case map[string]any, []any:
		if strict {
			r.bad(key)
		}
	default:
		r.guess(key, strict, t)
	}
}

// guess is for a guarded field of a type it cannot have in a pod: there it is wrong, elsewhere it may mean the same.
func (r *reader) guess(key string, strict bool, t access.Trait) {
	if strict {
		r.bad(key)
		return
	}
	r.nameless(true, t)
}

func (r *reader) capabilities(m map[string]any, strict bool) {
	add, ok := m["add"].([]any)
	if !ok && m["add"] != nil && strict {
		r.bad("capabilities.add")
	}
	for _, c := range add {
		name, ok := c.(string)
		if !ok && strict {
			r.bad("capabilities.add")
		}
		r.mark(!slices.Contains(capabilities, name), access.Privileged)
	}
}

func (r *reader) hostPath(v any, strict bool) {
	switch v := v.(type) {
	case map[string]any:
		r.traits[access.HostPath] = true
		if p, ok := v["path"].(string); ok {
			r.hostPaths[p] = true
		}
	case string:
		if strict {
			r.bad("hostPath")
		}
		if v != "" {
			r.traits[access.HostPath] = true
			r.hostPaths[v] = true
		}
	default:
		r.guess("hostPath", strict, access.HostPath)
	}
}

// secret is a reference to a Secret.
func (r *reader) secret(where string, v any, key string, strict bool) {
	if v == nil {
		return
	}
	m, ok := v.(map[string]any)
	name, isText := text(m[key])
	if !ok || !isText {
		r.guess(where, strict, access.SecretRef)
		return
	}
	r.traits[access.SecretRef] = true
	if name != "" {
		r.secrets[name] = true
	} else {
		r.unnamed[access.SecretRef] = true
	}
}

// volume looks for Secrets and tokens in a volume's source; a hostPath is found wherever it stands.
func (r *reader) volume(v map[string]any, strict bool) {
	for kind, source := range v {
		m, ok := source.(map[string]any)
		switch kind {
		case "secret":
			r.secret("volumes.secret", source, "secretName", strict)
		case "image":
			if s := word(m["reference"]); s != "" {
				r.images[s] = true
			}
		case "projected":
			if !ok && source != nil && strict {
				r.bad("volumes.projected")
			}
			r.projected(m, strict)
		default: // csi, azureFile, cephfs, cinder, flexVolume, iscsi, rbd, scaleIO, storageos
			for k, ref := range m {
				if name, ok := ref.(string); k == "secretName" && ok && name != "" {
					r.traits[access.SecretRef], r.secrets[name] = true, true
				} else if k == "secretRef" || strings.HasSuffix(k, "SecretRef") {
					r.secret("volumes."+kind+"."+k, ref, "name", strict)
				}
			}
		}
	}
}

func (r *reader) projected(m map[string]any, strict bool) {
	sources, ok := m["sources"].([]any)
	if !ok && m["sources"] != nil && strict {
		r.bad("volumes.projected.sources")
	}
	for _, e := range sources {
		s, ok := e.(map[string]any)
		if !ok && e != nil && strict {
			r.bad("volumes.projected.sources")
		}
		r.secret("volumes.projected.sources.secret", s["secret"], "name", strict)
		r.nameless(s["podCertificate"] != nil, access.ServiceAccount) // a certificate for the pod's identity
		if s["serviceAccountToken"] == nil {
			continue
		}
		// Without an audience it is the token for the API server that every pod gets anyway.
		token, ok := s["serviceAccountToken"].(map[string]any)
		audience, isText := text(token["audience"])
		if !ok || !isText {
			r.guess("volumes.projected.sources.serviceAccountToken", strict, access.ServiceAccount)
		}
		r.nameless(audience != "", access.ServiceAccount)
	}
}

// rule judges a rule of a Role.
func (r *reader) rule(m map[string]any) {
	verbs, resources := words(m["verbs"]), words(m["resources"])
	wild := func(s string) bool { return strings.Contains(s, "*") }
	write := slices.ContainsFunc(verbs, func(v string) bool { return v != "get" && v != "list" && v != "watch" })
	r.mark(slices.ContainsFunc(verbs, wild) || slices.ContainsFunc(resources, wild) || slices.ContainsFunc(words(m["apiGroups"]), wild) ||
		slices.ContainsFunc(words(m["nonResourceURLs"]), wild), access.GrantsPower)
	r.mark(overlap(verbs, strongVerbs) || overlap(resources, strongResources) || write && overlap(resources, strongWrites), access.GrantsPower)
}

// words is a list of strings. What is none counts as a wildcard.
func words(v any) []string {
	list, ok := v.([]any)
	if !ok && v != nil {
		return []string{"*"}
	}
	out := make([]string, len(list))
	for i, e := range list {
		if s, ok := e.(string); ok {
			out[i] = s
		} else {
			out[i] = "*"
		}
	}
	return out
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func (r *reader) annotations(m map[string]any) {
	for k, v := range m {
		s, ok := v.(string)
		switch {
		case k == roleARN:
			r.mark(s != "" || !ok && v != nil, access.RoleARN)
		case strings.HasPrefix(k, appArmor):
			r.mark(s != "" && s != "runtime/default" && !strings.HasPrefix(s, "localhost/"), access.Privileged)
		}
	}
}

// object judges what is dangerous by its kind.
func (r *reader) object(group, kind string, m map[string]any) {
	switch group {
	case "admissionregistration.k8s.io", "apiregistration.k8s.io":
		r.traits[access.Webhook] = true
	case rbac:
		labels, _ := dig(m, "metadata", "labels").(map[string]any)
		for k := range labels {
			r.mark(strings.HasPrefix(k, rbac+"/aggregate-to-"), access.GrantsPower)
		}
	case "authentication.k8s.io":
		r.nameless(kind == "TokenRequest", access.ServiceAccount)
	case "":
		namespace := word(dig(m, "metadata", "namespace"))
		switch kind {
		case "ConfigMap":
			r.mark(word(dig(m, "metadata", "name")) == "aws-auth" && namespace == "kube-system", access.AWSAuth)
		case "PersistentVolume":
			spec, _ := m["spec"].(map[string]any)
			r.volume(spec, false)
			if local, ok := spec["local"].(map[string]any); ok {
				r.hostPath(local, false)
			}
		}
	}
}
