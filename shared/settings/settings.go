// Package settings is the one source of every name and setting that the CDK app, the processes in AWS and the local
// stack share: environment variables, function and bucket names, the table's keys, where objects lie. infra puts the
// Environment of a struct on a function or a task, the process reads the same struct back with From, and the local
// stack does both, so a setting cannot be known to one side only.
package settings

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// RolePath is the IAM path of the tier roles: arn:aws:iam::<account>:role/sallyport/<tier>.
const RolePath = "/sallyport/"

// Session tags of a tier's credential. All are required by the tier roles' trust policies.
const (
	TagSession   = "sallyport:session"
	TagPrincipal = "sallyport:principal"
	TagTier      = "sallyport:tier"
	// TagApproval names the approval a credential was minted for. Tiers that are nobody's base tier require it.
	TagApproval = "sallyport:approval"
)

// The functions of the broker.
const (
	ExchangeFunction = "sallyport-exchange" // turns an agent's token into a session and tier credentials; redeems approvals
	ReviewFunction   = "sallyport-review"   // opens approvals, and answers the proxies' polls
	NotifyFunction   = "sallyport-notify"   // called by the workflow: tells reviewers
	CallbackFunction = "sallyport-callback" // the reviewers' pages, API, Slack buttons and mail links
)

// Workflow is the state machine that one approval is one execution of; WorkflowFile is its definition, in infra.
const (
	Workflow     = "sallyport-review"
	WorkflowFile = "workflow.asl.json"
)

// Secrets in Secrets Manager.
const (
	SlackSecret = "sallyport/slack" // {"signing_secret", "bot_token"}
	MaskSecret  = "sallyport/mask"  // {"key"}: the same; the masks' keys are derived from it
	PagesSecret = "sallyport/pages" // {"key"}: 32 random bytes or more, any characters; seals cookies and links
)

// A Table is a DynamoDB table: on-demand capacity, string keys, time to live in TTL (seconds since 1970).
type Table struct {
	Name         string
	PartitionKey string
	SortKey      string
	TTL          string
	Index        *Index // nil for none
}

// An Index is a global secondary index of a table; all attributes are projected.
type Index struct {
	Name         string
	PartitionKey string
	SortKey      string
}

// Approvals is the table of approvals, grants among them, and of what belongs to them.
//
//	approval#ID            approval   the approval
//	approval#ID            view       what reviewers are shown
//	ask#PRINCIPAL#DIGEST   open       points at the approval of that request
//	grants#PRINCIPAL#CLUSTER  ID      points at an approval that grants a scope
//	task#ID                token      the workflow's task token
//	link#SHA256            link       a mail link, by its hash
//	sent#ID                CHANNEL    where a message can be updated in place
//	limit#KEY              WINDOW     counts against a limit
//	once#KEY               once       something that may happen once
//	known#DIGEST           person     a reviewer who logged in: which e-mail address that subject of that issuer has
var Approvals = Table{
	Name:         "sallyport-approvals",
	PartitionKey: "pk",
	SortKey:      "sk",
	TTL:          "ttl",
	Index:        &Index{Name: "list", PartitionKey: "list", SortKey: "opened"},
}

// Sessions is the table of sessions.
var Sessions = Table{
	Name:         "sallyport-sessions",
	PartitionKey: "pk",
	SortKey:      "sk",
	TTL:          "ttl",
}

// PolicyPrefix is where policies lie in the policy bucket.
const PolicyPrefix = "policy/"

// PolicyCurrent is the object of the policy bucket whose newest version that loads is the policy in force.
const PolicyCurrent = PolicyPrefix + "current.yaml"

// PolicyKey is where the policy with that digest (lower-case hex SHA-256 of its bytes) lies in the policy bucket.
func PolicyKey(digest string) string { return PolicyPrefix + digest + ".yaml" }

// SessionsPrefix is where recordings of sessions lie in the recordings bucket, RefusedPrefix those of requests that
// were refused before they had a session.
const (
	SessionsPrefix = "sessions/"
	RefusedPrefix  = "refused/"
)

// Exchange is what function exchange is told.
type Exchange struct {
	Table        string `env:"SALLYPORT_TABLE"`
	Approvals    string `env:"SALLYPORT_APPROVALS_TABLE"`
	PolicyBucket string `env:"SALLYPORT_POLICY_BUCKET"`
	MaskSecret   string `env:"SALLYPORT_MASK_SECRET"` // name of the secret
}

// Review is what function review is told.
type Review struct {
	Approvals    string `env:"SALLYPORT_APPROVALS_TABLE"`
	PolicyBucket string `env:"SALLYPORT_POLICY_BUCKET"`
	Workflow     string `env:"SALLYPORT_WORKFLOW"`    // the state machine's ARN
	ReviewsURL   string `env:"SALLYPORT_REVIEWS_URL"` // where the pages are, without a slash at the end
}

// Notify is what function notify is told. A channel without its setting is not there.
type Notify struct {
	Approvals    string `env:"SALLYPORT_APPROVALS_TABLE"`
	PolicyBucket string `env:"SALLYPORT_POLICY_BUCKET"`
	ReviewsURL   string `env:"SALLYPORT_REVIEWS_URL"`
	SlackSecret  string `env:"SALLYPORT_SLACK_SECRET,optional"` // name of the secret
	SlackURL     string `env:"SALLYPORT_SLACK_URL,optional"`    // Slack's API; its own when empty
	MailFrom     string `env:"SALLYPORT_MAIL_FROM,optional"`    // an address that SES may send as
}

// Callback is what function callback is told.
type Callback struct {
	Approvals    string `env:"SALLYPORT_APPROVALS_TABLE"`
	PolicyBucket string `env:"SALLYPORT_POLICY_BUCKET"`
	ReviewsURL   string `env:"SALLYPORT_REVIEWS_URL"`
	PagesSecret  string `env:"SALLYPORT_PAGES_SECRET"` // name of the secret
	SlackSecret  string `env:"SALLYPORT_SLACK_SECRET,optional"`
	SlackURL     string `env:"SALLYPORT_SLACK_URL,optional"`
}

// Proxy is what the proxy is told.
type Proxy struct {
	Listen           string `env:"SALLYPORT_LISTEN"`         // address of the gate, host:port
	MetricsListen    string `env:"SALLYPORT_METRICS_LISTEN"` // address of health, readiness and metrics, host:port
	TLSCertificate   string `env:"SALLYPORT_TLS_CERTIFICATE,optional"`
	TLSKey           string `env:"SALLYPORT_TLS_KEY,optional"` // PEM files; without them the proxy makes a self-signed pair, as an ALB does not verify
	ExchangeFunction string `env:"SALLYPORT_EXCHANGE_FUNCTION"`
	ReviewFunction   string `env:"SALLYPORT_REVIEW_FUNCTION"`
	PolicyBucket     string `env:"SALLYPORT_POLICY_BUCKET"`
	RecordingsBucket string `env:"SALLYPORT_RECORDINGS_BUCKET"`
	Drain            string `env:"SALLYPORT_DRAIN"` // how long open streams may go on when the task is to end, such as 100s
	// Hold is how long a request is held that waits for people, before its client is told to send it again, such as 50s; less
	// than the shortest idle timeout on the way. 50s when empty.
	Hold string `env:"SALLYPORT_HOLD,optional"`
	// TrustForwardedFor is "true" behind a load balancer that appends the caller's address to X-Forwarded-For.
	TrustForwardedFor string `env:"SALLYPORT_TRUST_FORWARDED_FOR,optional"`
}

// Environment is the environment that From reads s back from. Empty optional settings are left out.
func Environment(s any) map[string]string {
	env := map[string]string{}
	v := reflect.ValueOf(s)
	for _, f := range reflect.VisibleFields(v.Type()) {
		name, optional := tag(f)
		if value := v.FieldByIndex(f.Index).String(); value != "" || !optional {
			env[name] = value
		}
	}
	return env
}

// From reads settings out of an environment. The error names every variable that is missing.
func From[S any](getenv func(string) string) (S, error) {
	var s S
	v := reflect.ValueOf(&s).Elem()
	var missing []string
	for _, f := range reflect.VisibleFields(v.Type()) {
		name, optional := tag(f)
		value := getenv(name)
		if value == "" && !optional {
			missing = append(missing, name)
		}
		v.FieldByIndex(f.Index).SetString(value)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return s, &access.Error{Kind: access.Invalid, Message: fmt.Sprintf("settings: %s must be set in the environment; see shared/settings", strings.Join(missing, ", ")), Cause: errors.New("missing settings")}
	}
	return s, nil
}

func tag(f reflect.StructField) (name string, optional bool) {
	name, rest, _ := strings.Cut(f.Tag.Get("env"), ",")
	return name, rest == "optional"
}
