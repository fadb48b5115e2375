package mask_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

const things = "things.example.com"

// widgets makes a kind that nobody knows, whose table shows what the policy of the test masks, and lets developers read it.
func widgets(t *testing.T, s *stacktest.Stack) {
	t.Helper()
	s.Create(t, `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets.`+things+`"},"spec":{"group":"`+things+`","scope":"Namespaced",
		"names":{"kind":"Widget","plural":"widgets","singular":"widget"},"versions":[{"name":"v1","served":true,"storage":true,
		"additionalPrinterColumns":[{"name":"Password","type":"string","jsonPath":".spec.users[0].password"},{"name":"Text","type":"string","jsonPath":".spec.text"}],
		"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`)
	s.Create(t, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"test-widgets"},"rules":[{"apiGroups":["`+things+`"],"resources":["*"],"verbs":["get","list","watch"]}]}`)
	s.Create(t, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"test-widgets"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"test-widgets"},
		"subjects":[{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"sallyport:develop"}]}`)
	stacktest.Eventually(t, within, func() string {
		if out := s.Admin(t, "get", "--raw", "/apis/"+things); !strings.Contains(out, `"v1"`) {
			return out
		}
		if out := s.Admin(t, "get", "--raw", "/apis/"+things+"/v1"); !strings.Contains(out, `"widgets"`) {
			return out
		}
		return ""
	})
}

// masksMore is a policy that masks more: a path, a name and a shape.
func masksMore(text string) string {
	return text + `
masking:
  names: [pin-code]
  paths: [{apiGroups: [` + things + `], resources: [widgets], path: "spec.users[].password"}]
  detectors: [{name: acme, pattern: "acme-[0-9a-z]{20}"}]
`
}

const readsWidgets = `{name: widgets, effect: allow, groups: [developers], verbs: [get, list, watch], apiGroups: [` + things + `], resources: ["*"]}`

// certificate has the cluster sign a certificate. The secrets are the ends of the request and of the certificate, which are
// signatures and nowhere else.
func certificate(t *testing.T, s *stacktest.Stack, c *canary.Set) (name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name = "canary-" + stacktest.Word()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	c.Add("CertificateSigningRequest, request", last(request))
	s.Create(t, fmt.Sprintf(`{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"name":%q},"spec":{"signerName":"kubernetes.io/kube-apiserver-client","usages":["client auth"],"request":%q}}`,
		name, base64.StdEncoding.EncodeToString(request)))
	s.Admin(t, "certificate", "approve", name)
	stacktest.Eventually(t, within, func() string {
		b, err := base64.StdEncoding.DecodeString(s.Admin(t, "get", "csr", name, "-o", "jsonpath={.status.certificate}"))
		if err != nil || len(b) == 0 {
			return "the cluster signs no certificate"
		}
		c.Add("CertificateSigningRequest, certificate", last(b))
		return ""
	})
	return name
}

// last is the end of what PEM holds, in one line: a part of the signature.
func last(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if end := strings.TrimRight(lines[len(lines)-2], "="); len(end) >= canary.Length {
		return end
	}
	return lines[len(lines)-3][64-canary.Length:]
}

// accountToken has the cluster put a service account's token into a Secret.
func accountToken(t *testing.T, s *stacktest.Stack, c *canary.Set) {
	t.Helper()
	name := "canary-" + stacktest.Word()
	s.Create(t, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":"dev","annotations":{"kubernetes.io/service-account.name":"app"}},"type":"kubernetes.io/service-account-token"}`, name))
	stacktest.Eventually(t, within, func() string {
		b, err := base64.StdEncoding.DecodeString(s.Admin(t, "get", "secret", name, "-n", "dev", "-o", "jsonpath={.data.token}"))
		if err != nil || len(b) == 0 {
			return "the cluster makes no token"
		}
		c.Add("Secret, service account token", string(b[len(b)-100:])) // of its signature
		return ""
	})
}

// talker runs a pod that prints secrets, and has them in its environment and in a file.
func talker(t *testing.T, s *stacktest.Stack, c *canary.Set) (name string) {
	t.Helper()
	name = "canary-talker-" + stacktest.Word()
	var lines strings.Builder
	// The key comes first: from the middle of it on, a log's last lines are no key that anybody knows.
	for _, shape := range []string{"pem", "github", "gitlab", "slack", "stripe", "npm", "jwt", "url", "dsn", "acme"} {
		lines.WriteString("line with <<log|" + shape + ">> in it\n")
	}
	lines.WriteString("aws_access_key_id = <<log|akia>>\naws_secret_access_key = <<log|aws>>\nAuthorization: Bearer <<log|word>>\nlogin --password=<<log|word>>\nAPI_TOKEN=<<log|word>>\n")
	s.Create(t, planted(t, c, fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"dev"},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"localhost/web:1",
		"env":[{"name":"MY_API_KEY","value":"<<environment of a container|word>>"},{"name":"LINES","value":%q}],
		"command":["sh","-c","printf '%%s' \"$LINES\" | tee /tmp/lines; exec sleep 600"]}]}}`, name, lines.String())))
	stacktest.Eventually(t, within, func() string {
		if out, n := s.Admin(t, "logs", name, "-n", "dev"), strings.Count(lines.String(), "\n"); strings.Count(out, "\n") < n {
			return "the pod has not printed its lines: " + out
		}
		return ""
	})
	return name
}
