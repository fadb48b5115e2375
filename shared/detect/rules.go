package detect

import (
	_ "embed" // the rules
	"fmt"
	"regexp"
	"sync"
)

// gitleaks.toml is the rule file of gitleaks as it is released, byte for byte, so that it can be held against its source
// and replaced by the next. Its licence is in gitleaks.LICENSE.
//
//	module  github.com/zricethezav/gitleaks/v8 v8.30.1, config/gitleaks.toml
//	sha256  e163e53b9e7e8a8511e77271e2b323ed057759542a6d988258afe3a1fa329caf
//
//go:embed gitleaks.toml
var gitleaks []byte

// Default is the rules of gitleaks but for those in [LeftOut], and our own.
func Default() *Set { return defaultSet() }

var defaultSet = sync.OnceValue(func() *Set {
	set, err := load(gitleaks)
	if err != nil {
		panic(err) // what is embedded is tested
	}
	return set
})

func load(file []byte) (*Set, error) {
	kept, err := parse(file)
	if err != nil {
		return nil, err
	}
	left := LeftOut()
	var rules []*rule
	for _, k := range kept {
		if _, ok := left[k.ID]; ok {
			delete(left, k.ID)
			continue
		}
		if k.Path {
			return nil, fmt.Errorf("rule %q is for some files only: leave it out", k.ID)
		}
		r, err := compile(Detector{k.ID, k.Regex, nil, k.Entropy}, k.Group, wholeMatch[k.ID], nil)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", k.ID, err)
		}
		rules = append(rules, r)
	}
	for id := range left {
		return nil, fmt.Errorf("rule %q is left out and not there", id)
	}
	for _, o := range own {
		var except *regexp.Regexp
		if o.reference {
			except = references
		}
		r, err := compile(o.Detector, 0, false, except)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", o.Name, err)
		}
		rules = append(rules, r)
	}
	return newSet(rules)
}

// wholeMatch are rules whose groups do not hold the secret.
var wholeMatch = map[string]bool{
	"jwt-base64": true, // they name the header's fields
}

// LeftOut are the rules of gitleaks that are not used, and why.
func LeftOut() map[string]string {
	const (
		general = "too general: matches names, labels and hashes of API objects"
		file    = "looks at a file's path, and there are no files here"
		public  = "an identifier or a public key, not a secret"
		ours    = "ours is wider: "
	)
	return map[string]string{
		"generic-api-key":          general,
		"facebook-access-token":    "nothing fixed in it: fifteen digits and a bar",
		"sourcegraph-access-token": "any SHA-1 counts; " + ours + "sourcegraph",
		"twilio-api-key":           public,
		"vault-service-token":      "its old form is s. and any word of 24 letters; " + ours + "vault",
		"freemius-secret-key":      file,
		"hashicorp-tf-password":    file,
		"kubernetes-secret-yaml":   file,
		"nuget-config-password":    file,
		"pkcs12-file":              file,
		"adobe-client-id":          public,
		"asana-client-id":          public,
		"bitbucket-client-id":      public,
		"discord-client-id":        public,
		"linkedin-client-id":       public,
		"looker-client-id":         public,
		"messagebird-client-id":    public,
		"plaid-client-id":          public,
		"sendbird-access-id":       public,
		"sumologic-access-id":      public,
		"flutterwave-public-key":   public,
		"lob-pub-api-key":          public,
		"mailgun-pub-key":          public,
		"curl-auth-header":         ours + "authorization",
		"curl-auth-user":           ours + "curl-user",
		"jwt":                      ours + "json-web-token",
		"private-key":              ours + "private-key-block goes on when the end is missing",
		"lob-api-key":              general + " (global: live_…, blob=test_…)",
		"linear-client-secret":     general + " (linear: and any MD5)",
		"sentry-access-token":      general + " (checksum/sentry: and any SHA-256); its new form is sentry-user-token",
		"discord-api-token":        general + " (discord: and any SHA-256)",
		"jfrog-identity-token":     general + " (xray: and any SHA-256)",
		"datadog-access-token":     general + " (datadog: and any SHA-1)",
		"confluent-access-token":   general + " (confluent: and any word of 16 letters)",
		"dropbox-api-token":        general + " (dropbox: and any word of 15 letters)",
		"airtable-api-key":         general + " (airtable: and any word of 17 letters)",
		"linkedin-client-secret":   general + " (linkedin: and any word of 16 letters)",
	}
}

type ownRule struct {
	Detector
	reference bool // what only refers to a secret is none
}

// references are values that stand for others, or were taken out by somebody else.
var references = regexp.MustCompile(`^(?:\$[({].*|%\(?[A-Za-z_]+\)?[s%]?|\{\{.*|<[^>]*>?|\*+|x+|X+|true|false|null|nil|none|None|""|'')$`)

// Our own. Keywords are in the patterns.
var own = []ownRule{
	// The whole block; without an end to its bound.
	{Detector: Detector{Name: "private-key-block",
		Pattern: `(?i)(-----BEGIN[ A-Z0-9_-]{0,100}?PRIVATE KEY(?: BLOCK)?-----(?P<open>)(?s:.*?)-----END[ A-Z0-9_-]{0,100}?PRIVATE KEY(?: BLOCK)?-----)`}},
	// The same in base64, as in a Secret or a kubeconfig, also in lines.
	{Detector: Detector{Name: "private-key-base64",
		Pattern: `(LS0tLS1CRUdJTi(?:BQUklWQVRFIEtFWS|BSU0EgUFJJVkFURSBLRVkt|BFQyBQUklWQVRFIEtFWS|BPUEVOU1NIIFBSSVZBVEUgS0VZ|BFTkNSWVBURUQgUFJJVkFURSBLRVkt|BEU0EgUFJJVkFURSBLRVkt|BQR1AgUFJJVkFURSBLRVkg)[A-Za-z0-9+/]*(?:\s{1,9}[A-Za-z0-9+/]{60,})*(?:\s{1,9}[A-Za-z0-9+/]{1,75}={1,2}|={0,2}))`}},
	{Detector: Detector{Name: "kubeconfig-key",
		Pattern: `(?i)client-key-data["'\\]{0,2}\s{0,4}[:=]\s{0,4}["'\\]{0,2}([A-Za-z0-9+/]{20,}={0,2})`}},
	// Signed (three parts, the last empty when it is not signed) or encrypted (five).
	{Detector: Detector{Name: "json-web-token",
		Pattern: `eyJ[\w-]{10,}\.(?:eyJ[\w-]{8,}\.[\w-]*|[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]{10,}){0,2}|[\w-]*\.[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})`}},
	{Detector: Detector{Name: "eks-token", Pattern: `k8s-aws-v1\.[\w-]{40,}`}},
	{reference: true, Detector: Detector{Name: "authorization",
		Pattern: `(?i)authorization["'\\]{0,2}\s{0,4}[:=]\s{0,4}["'\\\[]{0,4}(?:bearer|basic|token|negotiate|apikey|digest)\s{1,4}([^\s"',;\\<>]{8,})`}},
	// As a web server's configuration sets it: proxy_set_header Authorization "Basic …".
	{reference: true, Detector: Detector{Name: "authorization-set",
		Pattern: `(?i)authorization["'\\]{0,2}\s{1,4}["'\\]{1,2}(?:bearer|basic)\s{1,4}([^\s"',;\\<>]{8,})`}},
	{Detector: Detector{Name: "authorization-bare", Entropy: 2.75,
		Pattern: `(?i)authorization["'\\]{0,2}[ \t]{0,4}[:=][ \t]{0,4}["'\\\[]{0,4}([\w.~+/=-]{20,})`}},
	{Detector: Detector{Name: "bearer", Entropy: 2.75, Pattern: `(?i)\bbearer\s{1,4}([\w.~+/-]{20,}={0,2})`}},
	{Detector: Detector{Name: "secret-header", Entropy: 2.5,
		Pattern: `(?i)(?:x-api-key|x-auth-token|x-access-token|x-vault-token|x-amz-security-token|x-goog-api-key|x-github-token|private-token|job-token)["'\\]{0,2}[ \t]{0,4}[:=][ \t]{0,4}["'\\\[]{0,4}([^\s"',;&\\<>]{8,})`}},
	{Detector: Detector{Name: "docker-auth",
		Pattern: `(?i)"(?:auth|identitytoken|registrytoken)\\?"\s{0,4}:\s{0,4}\\?"([\w.+/~-]{8,}={0,2})\\?"`}},
	// user:password@host, in any scheme. A password with a slash or question mark must not begin like a port.
	{reference: true, Detector: Detector{Name: "url-password",
		Pattern: `://[^\s:/?#@\["'<>\x60\\]*:([^\s/?"'<>\x60\\]+|[^\s\d/?"'<>\x60\\][^\s"'<>\x60\\]*)@`}},
	// Go's MySQL driver: user:password@tcp(host)/database
	{reference: true, Detector: Detector{Name: "dsn-password", Pattern: `:([^\s:"'<>\x60\\][^\s"'<>\x60\\]{0,127})@(?:tcp[46]?|unix|cloudsql)\(`}},
	{reference: true, Detector: Detector{Name: "password-assignment",
		Pattern: `(?i)(?:password|passwd|; ?pwd)=(?:\\?"([^"\\]+)\\?"|'([^']+)'|([^\s"';&,\\]+))`}},
	// What env prints. Capitals only: in logs token=default/web is the name of an object.
	{reference: true, Detector: Detector{Name: "environment", Entropy: 2.75,
		Pattern: `(?:SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SECRET_?KEY|ENCRYPTION_?KEY|SIGNING_?KEY|CREDENTIALS?|PASSPHRASE|PASS)=["']?([^\s"'/;&\\][^\s"';&\\]{7,})`}},
	// The key next to its id, as in a credentials file, and by its own name.
	{Detector: Detector{Name: "aws-secret-key-pair", Entropy: 4.2,
		Pattern: `\b(?:AKIA|ASIA)[A-Z2-7]{16}\b(?s:.{1,160}?)[^A-Za-z0-9/+=]([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)`}},
	{Detector: Detector{Name: "aws-secret-key", Entropy: 3.5,
		Pattern: `(?i)secret_?(?:access_?)?key["'\\]{0,2}\s{0,4}[:=]\s{0,4}["'\\]{0,2}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)`}},
	{Detector: Detector{Name: "aws-session-token",
		Pattern: `(?i)(?:session_?token|security_?token)["'\\]{0,2}\s{0,4}[:=]\s{0,4}["'\\]{0,2}([A-Za-z0-9/+]{64,}={0,2})`}},
	{Detector: Detector{Name: "aws-presigned", Pattern: `(?i)x-amz-(?:signature|security-token)=([\w%./+-]{32,})`}},
	{Detector: Detector{Name: "azure-key", Pattern: `(?i)(?:accountkey|sharedaccesskey|sharedsecretkey)=([A-Za-z0-9+/]{20,}={0,2})`}},
	{Detector: Detector{Name: "azure-signature", Pattern: `[?&]sig=([A-Za-z0-9%+/]{40,}={0,2})`}},
	{Detector: Detector{Name: "gcp-oauth-token", Pattern: `\bya29\.[\w-]{20,}`}},
	{Detector: Detector{Name: "gcp-oauth-client-secret", Pattern: `GOCSPX-[\w-]{20,}`}},
	{Detector: Detector{Name: "sourcegraph", Pattern: `\bsgp_(?:(?:[a-fA-F0-9]{16}|local)_)?[a-fA-F0-9]{40}\b`}},
	{Detector: Detector{Name: "vault", Pattern: `\bhv[sbr]\.[\w-]{24,}`}},
	{reference: true, Detector: Detector{Name: "curl-user",
		Pattern: `\bcurl\b[^\n|]*?\s(?:-u|--user)[ =]{0,3}["']?[^\s:"']{1,64}:([^\s"']{1,200})`}},
}
