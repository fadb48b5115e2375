package access

// A Patch is the form a patch is written in.
type Patch string

// The forms there are.
const (
	JSONPatch      Patch = "json"      // RFC 6902
	MergePatch     Patch = "merge"     // RFC 7386
	StrategicPatch Patch = "strategic" // Kubernetes' own
	ApplyPatch     Patch = "apply"     // server-side apply, KEP-555
)

// An Object is what a request's body would have the cluster store or do, as far as rules look at it.
type Object struct {
	// Value is the object in JSON's terms: map[string]any, []any, string, int64, float64, bool and nil. Of a JSON or
	// merge patch it is what the patch makes of the live object; of a strategic patch too, where that can be computed.
	// Of an apply patch it is what was applied. For a create it is the body, with its name or generateName.
	Value map[string]any
	// Traits are what the object certainly has.
	Traits []Trait
	// Unsure are traits that a partial body touches and that cannot be told from it: a human must look.
	Unsure []Trait
	// Found are names inside the object, of any pod template in it.
	Found Found
	// Partial is true when Value is not the whole object, so that expressions over it prove nothing.
	Partial bool
	// Touched are the fields a patch sets, removes, tests or copies, as dotted paths without list indexes ("spec.template.spec.containers.image");
	// a dot inside a key is kept, so rules compare whole paths. Nil when the body is a whole object.
	Touched []string
	// Version is the resourceVersion of the live object that was judged; empty when none was.
	Version string
}

// Found are names inside an object that expressions may look at.
type Found struct {
	Images          []string
	ServiceAccounts []string
	Secrets         []string // Secrets that are mounted or referenced
	HostPaths       []string
}

// A Trait is something dangerous about an object.
type Trait string

// The traits there are. Each is looked for in every pod template, or object, of the body, whatever its kind. Of a patched
// object, ServiceAccount and SecretRef are what it has more than the live one: the rest is not borrowed by the patch.
const (
	Privileged     Trait = "privileged"      // what the Pod Security Standard "baseline" forbids of containers
	HostPath       Trait = "host-path"       // a hostPath volume
	HostNamespace  Trait = "host-namespace"  // hostNetwork, hostPID, hostIPC, hostPort
	ServiceAccount Trait = "service-account" // runs as a service account other than default, or asks for a token for an audience
	SecretRef      Trait = "secret"          // a Secret mounted or referenced
	GrantsPower    Trait = "grants-power"    // RBAC rules with wildcards, Secrets, escalate, bind, impersonate and the like
	BindsPower     Trait = "binds-power"     // a roleRef to cluster-admin, admin, edit, system:*; subjects everybody is in
	AWSAuth        Trait = "aws-auth"        // ConfigMap kube-system/aws-auth
	RoleARN        Trait = "role-arn"        // annotation eks.amazonaws.com/role-arn
	Webhook        Trait = "webhook"         // admission or conversion webhooks, API services
)

// Traits lists them all.
var Traits = []Trait{Privileged, HostPath, HostNamespace, ServiceAccount, SecretRef, GrantsPower, BindsPower, AWSAuth, RoleARN, Webhook}
