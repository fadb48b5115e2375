package mask_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

// shapes are what a secret looks like where it is planted. %s is its random part. But for word, binary and login, it is found
// wherever it stands, by its shape.
var shapes = map[string]string{
	"word":        "%s",
	"binary":      "\x00\xff%s\xfe",
	"login":       "user:%s",
	"certificate": "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n",
	"pem":         "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n%s\n-----END RSA PRIVATE KEY-----\n",
	"github":      "ghp_%s0123456789abcdef",
	"gitlab":      "glpat-%s",
	"slack":       "xoxb-123456789012-123456789012-%s0123",
	"stripe":      "sk_live_%s",
	"npm":         "npm_%s0123456789abcdef",
	"aws":         "%s+aB3dE5gH7jK9mN1pQ3s",
	"akia":        "AKIA%s",
	"jwt":         "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.%s",
	"acme":        "acme-%s",
	"url":         "postgres://app:%s@db.dev.svc:5432/app",
	"dsn":         "app:%s@tcp(db.dev.svc:3306)/app",
}

var placeholder = regexp.MustCompile(`<<([^|>]+)\|(\w+)(\|base64)?>>`)

// planted fills in a manifest with secrets of its own.
func planted(t *testing.T, c *canary.Set, manifest string) string {
	t.Helper()
	return placeholder.ReplaceAllStringFunc(manifest, func(at string) string {
		m := placeholder.FindStringSubmatch(at)
		shape, ok := shapes[m[2]]
		if !ok {
			t.Fatalf("%s: there is no such shape", at)
		}
		var text string
		if m[2] == "akia" { // of capitals alone
			text = strings.ToUpper(stacktest.Word() + stacktest.Word())[:16]
			c.Add(m[1], text)
			text = "AKIA" + text
		} else {
			text = fmt.Sprintf(shape, c.Plant(m[1]))
		}
		if m[3] != "" {
			return base64.StdEncoding.EncodeToString([]byte(text))
		}
		return strings.ReplaceAll(text, "\n", `\n`)
	})
}

// plant puts secrets into every carrier of testdata/carriers.yaml, each round into others, the last in namespace prod. kubectl
// apply keeps what it applied in an annotation, so all of them are there twice.
func plant(t *testing.T, s *stacktest.Stack, c *canary.Set, rounds int) {
	t.Helper()
	carriers, err := os.ReadFile("testdata/carriers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var manifests []string
	for i := range rounds {
		namespace := "dev"
		if i == rounds-1 {
			namespace = "prod"
		}
		m := strings.NewReplacer("NAMESPACE", namespace, "NAME", fmt.Sprintf("canary-%d-%s", i, stacktest.Word())).Replace(string(carriers))
		manifests = append(manifests, planted(t, c, m))
	}
	file := filepath.Join(t.TempDir(), "canaries.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(manifests, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Admin(t, "delete", "-f", file, "--ignore-not-found", "--wait=false", "--now") })
	s.Admin(t, "apply", "-f", file)
}
