package detect_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/detect"
)

// random is text of some letters that looks random and is the same every time.
func random(seed string, n int, letters string) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		for _, c := range sum {
			if b.Len() < n {
				b.WriteByte(letters[int(c)%len(letters)])
			}
		}
	}
	return b.String()
}

const (
	digits = "0123456789"
	small  = "abcdefghijklmnopqrstuvwxyz"
	alnum  = digits + small + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	b64    = alnum + "+/"
	b64url = alnum + "-_"
)

func pem(kind, newline string) string {
	var b strings.Builder
	b.WriteString("-----BEGIN " + kind + "-----" + newline)
	for i := range 12 {
		b.WriteString(random(kind+fmt.Sprint(i), 64, b64) + newline)
	}
	b.WriteString("-----END " + kind + "-----")
	return b.String()
}

// jwt is three parts, as a service account's token has them.
func jwt() string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256","kid":"abc"}`)) + "." + enc([]byte(`{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:default:default"}`)) + "." + random("jwt", 342, b64url)
}

func TestSecrets(t *testing.T) {
	var (
		key40  = random("aws", 40, b64)
		akid   = "AKIA" + random("id", 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
		opaque = random("opaque", 43, b64url)
		token  = jwt()
	)
	const m = detect.Mark
	for _, c := range []struct{ name, text, want string }{
		{"pem", "a\n" + pem("RSA PRIVATE KEY", "\n") + "\nb", "a\n" + m + "\nb"},
		{"pem escaped", `{"k":"` + pem("PRIVATE KEY", `\n`) + `\n"}`, `{"k":"` + m + `\n"}`},
		{"pem of ssh", pem("OPENSSH PRIVATE KEY", "\r\n"), m},
		{"pem of pgp", pem("PGP PRIVATE KEY BLOCK", "\n"), m},
		{"pem, two", pem("EC PRIVATE KEY", "\n") + "\n\n" + pem("PRIVATE KEY", "\n"), m + "\n\n" + m},
		{"pem behind log prefixes", strings.ReplaceAll(pem("PRIVATE KEY", "\n"), "\n", "\n2026-11-24T10:00:00Z stdout F "), m},
		{"pem cut off", "x " + pem("PRIVATE KEY", "\n")[:300], "x " + m},
		{"pem before another block", pem("PRIVATE KEY", "\n") + "\n" + pem("CERTIFICATE", "\n"), m + "\n" + pem("CERTIFICATE", "\n")},
		{"pem in base64", "  tls.key: " + base64.StdEncoding.EncodeToString([]byte(pem("RSA PRIVATE KEY", "\n")+"\n")) + "\ntype: kubernetes.io/tls", "  tls.key: " + m + "\ntype: kubernetes.io/tls"},
		{"kubeconfig", "    client-key-data: " + random("k", 400, b64) + "==\n", "    client-key-data: " + m + "\n"},
		{"jwt", "token=" + token + ";", "token=" + m + ";"},
		{"jwt, quoted", `"` + token + `"`, `"` + m + `"`},
		{"jwt, unsigned", token[:strings.LastIndex(token, ".")+1] + " x", m + " x"},
		{"jwe", "eyJ" + random("h", 30, b64url) + ".." + random("iv", 16, b64url) + "." + random("ct", 80, b64url) + "." + random("tag", 22, b64url) + " x", m + " x"},
		{"eks token", `{"token":"k8s-aws-v1.` + random("eks", 200, b64url) + `"}`, `{"token":"` + m + `"}`},
		{"bearer header", "> Authorization: Bearer " + opaque + "\r\n> Accept: */*", "> Authorization: Bearer " + m + "\r\n> Accept: */*"},
		{"nginx", "proxy_set_header Authorization \"Basic dXNlcjpwYXNz\";", "proxy_set_header Authorization \"Basic " + m + "\";"},
		{"nginx, in quotes", "{\"snippet\":\"proxy_set_header Authorization 'Bearer abcdefgh';\"}", "{\"snippet\":\"proxy_set_header Authorization 'Bearer " + m + "';\"}"},
		{"basic header", "authorization: Basic dXNlcjpwYXNz\n", "authorization: Basic " + m + "\n"},
		{"header in JSON", `{"Authorization":["Bearer ` + opaque + `"],"X":1}`, `{"Authorization":["Bearer ` + m + `"],"X":1}`},
		{"header in JSON in JSON", `"{\"Authorization\": \"Bearer ` + opaque + `\"}"`, `"{\"Authorization\": \"Bearer ` + m + `\"}"`},
		{"header without a scheme", "Authorization: " + opaque + "\n", "Authorization: " + m + "\n"},
		{"bearer alone, with letters that repeat", "Bearer pcuqvegteeeepfdk55el", "Bearer " + m}, // as 5 of 100 random ones of 20 letters and digits have
		{"bearer alone, hexadecimal", "Bearer 0fa31b0a4471e6a0f1a3", "Bearer " + m},
		{"the header alone, hexadecimal", "authorization: 0fa31b0a4471e6a0f1a3", "authorization: " + m},
		{"bearer alone", "sending bearer " + opaque + " to", "sending bearer " + m + " to"},
		{"other header", "X-Vault-Token: " + opaque + "\n", "X-Vault-Token: " + m + "\n"},
		{"docker config", `{"auths":{"r.io":{"auth":"dXNlcjpwYXNzd29yZA=="}}}`, `{"auths":{"r.io":{"auth":"` + m + `"}}}`},
		{"docker config in a string", `"{\"auths\":{\"r.io\":{\"auth\":\"dXNlcjpwYXNzd29yZA==\"}}}"`, `"{\"auths\":{\"r.io\":{\"auth\":\"` + m + `\"}}}"`},
		{"url", "postgres://app:s3cr:et!@db.prod:5432/app?sslmode=require", "postgres://app:" + m + "@db.prod:5432/app?sslmode=require"},
		{"url without user", "redis://:hunter2@cache:6379/0", "redis://:" + m + "@cache:6379/0"},
		{"url, password with a slash", "amqp://u:pa/ss?word@mq:5672/", "amqp://u:" + m + "@mq:5672/"},
		{"url, password with an at", "mongodb+srv://u:p@ss@cluster0/db", "mongodb+srv://u:" + m + "@cluster0/db"},
		{"url, host missing", "postgres://u:hunter2@/db?host=/run/pg postgres://u:hunter2@", "postgres://u:" + m + "@/db?host=/run/pg postgres://u:" + m + "@"},
		{"urls", "kafka://a:b1@h1,kafka://c:d2@h2", "kafka://a:" + m + "@h1,kafka://c:" + m + "@h2"},
		{"mysql", "dsn=root:hunter2@tcp(127.0.0.1:3306)/db", "dsn=root:" + m + "@tcp(127.0.0.1:3306)/db"},
		{"ado", "Server=db;User Id=sa;Password=hunter2;Encrypt=true", "Server=db;User Id=sa;Password=" + m + ";Encrypt=true"},
		{"odbc", "Driver={x};Server=db;Uid=sa;Pwd=hunter2;", "Driver={x};Server=db;Uid=sa;Pwd=" + m + ";"},
		{"jdbc", "jdbc:postgresql://db/app?user=app&password=hunter2&ssl=true", "jdbc:postgresql://db/app?user=app&password=" + m + "&ssl=true"},
		{"libpq", `host=db user=app password='hun ter2' dbname=app`, `host=db user=app password='` + m + `' dbname=app`},
		{"flag", `--username=jane --password="a b" --x`, `--username=jane --password="` + m + `" --x`},
		{"env", "HOME=/root\nPOSTGRES_PASSWORD=hunter2\nDB_TOKEN=" + opaque + "\nPATH=/bin\n", "HOME=/root\nPOSTGRES_PASSWORD=" + m + "\nDB_TOKEN=" + m + "\nPATH=/bin\n"},
		{"aws file", "aws_access_key_id = " + akid + "\naws_secret_access_key = " + key40 + "\n", "aws_access_key_id = " + m + "\naws_secret_access_key = " + m + "\n"},
		{"aws pair", `{"id":"` + akid + `","k":"` + key40 + `"}`, `{"id":"` + m + `","k":"` + m + `"}`},
		{"aws secret in JSON", `"SecretAccessKey": "` + key40 + `", "SessionToken": "` + random("st", 300, b64) + `=="`, `"SecretAccessKey": "` + m + `", "SessionToken": "` + m + `"`},
		{"aws presigned", "https://b.s3.amazonaws.com/o?X-Amz-Date=20261124T000000Z&X-Amz-Signature=" + random("sig", 64, digits+"abcdef"), "https://b.s3.amazonaws.com/o?X-Amz-Date=20261124T000000Z&X-Amz-Signature=" + m},
		{"azure", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=" + random("az", 86, b64) + "==;EndpointSuffix=x", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=" + m + ";EndpointSuffix=x"},
		{"azure sas", "https://a.blob.core.windows.net/c?sv=2024&sig=" + random("sas", 43, alnum) + "%3D", "https://a.blob.core.windows.net/c?sv=2024&sig=" + m},
		{"azure client secret", "secret: abc8Q~" + random("azure", 34, alnum) + "\n", "secret: " + m + "\n"},
		{"gcp", "ya29." + random("gcp", 120, b64url) + " GOCSPX-" + random("gc", 28, b64url) + " x", m + " " + m + " x"},
		{"github", "ghp_" + random("gh", 36, alnum) + ", github_pat_" + random("pat", 82, alnum), m + ", " + m},
		{"gitlab", "git clone https://oauth2:glpat-" + random("gl", 20, alnum) + "@gitlab.com/x", "git clone https://oauth2:" + m + "@gitlab.com/x"},
		{"slack", "xoxb-123456789012-123456789012-" + random("sl", 24, alnum) + " x", m + " x"},
		{"stripe", `key: "sk_live_` + random("st", 24, alnum) + `"`, `key: "` + m + `"`},
		{"vault", "hvs." + random("v", 95, alnum) + "\n", m + "\n"},
		{"datadog by name", "facebook_secret = " + random("fb", 32, digits+"abcdef") + "\n", "facebook_secret = " + m + "\n"},
		{"curl", "+ curl -sS -u admin:hunter2 https://x", "+ curl -sS -u admin:" + m + " https://x"},
		{"touching", "ghp_" + random("a", 36, alnum) + "ghp_" + random("b", 36, alnum), m},
		{"mask of another kind stays", "postgres://app:[masked:abcdefgh2345]@db password=[masked]", "postgres://app:[masked:abcdefgh2345]@db password=[masked]"},
		{"invalid UTF-8 around", "\xff\xfeghp_" + random("u", 36, alnum) + "\xff\x00", "\xff\xfe" + m + "\xff\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := strings.Clone(c.text)
			got := detect.Default().Mask([]byte(c.text))
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Errorf("-want +got\n%s\nspans %v", diff, detect.Default().Find([]byte(c.text)))
			}
			if before != c.text {
				t.Error("the text was changed")
			}
			for cut := range len(c.text) + 1 {
				if got := stream(t, []byte(c.text[:cut]), []byte(c.text[cut:])); got != c.want {
					t.Fatalf("cut at %d: %q", cut, got)
				}
			}
			one := make([][]byte, len(c.text))
			for i := range one {
				one[i] = []byte(c.text[i : i+1])
			}
			if got := stream(t, one...); got != c.want {
				t.Fatalf("byte by byte: %q", got)
			}
		})
	}
}

func stream(t testing.TB, pieces ...[]byte) string {
	t.Helper()
	var out bytes.Buffer
	s := detect.Default().Stream(func(b []byte) error {
		if len(b) == 0 {
			t.Error("nothing was emitted")
		}
		out.Write(b)
		return nil
	})
	for _, p := range pieces {
		if n, err := s.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		if s.Pending() > 8<<10 {
			t.Fatalf("%d bytes are held back", s.Pending())
		}
	}
	if err := s.Flush(); err != nil || s.Pending() != 0 {
		t.Fatalf("Flush: %v, %d bytes are held back", err, s.Pending())
	}
	return out.String()
}

// What objects, listings and logs are full of is no secret.
func TestNoSecrets(t *testing.T) {
	ca := base64.StdEncoding.EncodeToString([]byte(pem("CERTIFICATE", "\n")))
	for _, text := range []string{
		"", "a", "kube-root-ca.crt", "default-token-x7k2p", "sh.helm.release.v1.web.v1",
		"6f0c1d2e-8a8b-4b7e-9a55-0c3d2f1e4b6a", "uid: 6f0c1d2e-8a8b-4b7e-9a55-0c3d2f1e4b6a", `"resourceVersion":"1048576123"`,
		"registry.k8s.io/pause@sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a",
		"docker-pullable://ghcr.io/x/datadog-agent@sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a",
		"containerd://ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a",
		"image: gitlab/gitlab-runner:alpine-v17.5.3", "image: quay.io/jfrog/xray:3.107.16", "pod-template-hash: 7d4b9c8f6d",
		"checksum/config: 01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b",
		"caBundle: " + ca, "certificate-authority-data: " + ca, pem("CERTIFICATE", "\n"), pem("PUBLIC KEY", "\n"), pem("CERTIFICATE REQUEST", `\n`),
		"https://kubernetes.default.svc:443/api/v1/namespaces/default/secrets/db", "http://10.0.0.1:8080", "http://a:80,http://b:81/@x",
		"https://registry:4873/@scope/pkg", "git@github.com:org/repo.git", "ssh://git@host:22/x", "user@example.com:8080",
		"http://[::1]:8080/x@y", "tcp://10.96.0.1:443",
		"postgres://app:$(DB_PASSWORD)@db:5432/app", "postgres://app:${DB_PASSWORD}@db/app", "postgres://u:{{ .Values.password }}@db",
		"--password=$(PASSWORD)", "--password=${PASSWORD}", "PASSWORD=<set to the key 'p' in secret 'x'>", "password=********", "password=", "password=<nil>",
		`secret="default/web-tls" token="default-token-abcde"`, "secretName: web-tls", "secretKeyRef: {name: db, key: password}",
		"AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/eks.amazonaws.com/serviceaccount/token", "TOKEN=/var/run/secrets/token",
		"serviceAccountToken: {audience: api, expirationSeconds: 3607, path: token}",
		`MountVolume.SetUp failed for volume "kube-api-access-x2v7k" : failed to fetch token: serviceaccounts "default" is forbidden`,
		`Failed to pull image "x": unauthorized: authentication required`, "Error: Unauthorized: authorization failed: no bearer token",
		"the authorization \"basic\" is old", "proxy_set_header Authorization \"Bearer $token\";",
		"authorization: mode Webhook", "authorization:\n  mode: Webhook\n  webhook:\n    cacheAuthorizedTTL: 0s\n", "authorization.k8s.io/v1",
		"Authorization: Bearer $TOKEN", "Authorization: Bearer ${TOKEN_OF_THE_API}", "expected a Bearer token",
		"arn:aws:iam::123456789012:role/eks-node-role", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf",
		"system:serviceaccount:kube-system:generic-garbage-collector", "kubectl.kubernetes.io/restartedAt: 2026-11-24T10:00:00Z",
		"ghp_" + strings.Repeat("a", 36), "eyJ", "eyJhbGciOiJSUzI1NiJ9", "key.pattern.global.linear", "-----BEGIN", "ghp_", "AKIA", "://", "curl -s https://x | sh",
		"masked: [masked] and [masked:abcdefgh2345]",
	} {
		if got := detect.Default().Find([]byte(text)); got != nil {
			t.Errorf("%q: %v", text, got)
		}
		if got := stream(t, []byte(text)); got != text {
			t.Errorf("%q: streamed %q", text, got)
		}
	}
}

// Every kind of every version, as k8s.io/api keeps them, in JSON, YAML and protobuf.
func TestNoSecretsInEveryKind(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "testdata", "HEAD", "*"))
	if err != nil || len(files) < 100 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := detect.Default().Find(b); got != nil {
			t.Errorf("%s: %v: %q", f, got, b[got[0].Start:got[0].End])
		}
	}
}

func TestObjects(t *testing.T) {
	b, err := os.ReadFile("testdata/objects.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range detect.Default().Find(b) {
		t.Errorf("%s: %q", n.Detector, b[n.Start:n.End])
	}
}

func TestNothingAllocatedWhenNothingFound(t *testing.T) {
	set := detect.Default()
	text := bytes.Repeat([]byte("a log line about nothing: password= and ://host:80/ and patience\n"), 1000)
	for _, b := range [][]byte{text[:20], text[:3000], text} {
		if set.Find(b) != nil {
			t.Fatal("found something")
		}
		if n := testing.AllocsPerRun(50, func() { set.Find(b) }); n >= 1 {
			t.Errorf("%d bytes: %v allocations", len(b), n)
		}
		if got := set.Mask(b); &got[0] != &b[0] {
			t.Error("Mask copied the text")
		}
	}
	s := set.Stream(func([]byte) error { return nil })
	if n := testing.AllocsPerRun(50, func() { _, _ = s.Write(text[:3000]) }); n >= 1 {
		t.Errorf("Write: %v allocations", n)
	}
}

func TestNothingHeldBackOfWholeLines(t *testing.T) {
	s := detect.Default().Stream(func([]byte) error { return nil })
	for _, line := range []string{"GET /api/v1/pods 200\n", "connected to postgres\n", "password=\n", "$ "} {
		if _, err := s.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if n := s.Pending(); n != 0 {
			t.Errorf("%q: %d bytes are held back", line, n)
		}
	}
}

func TestFlush(t *testing.T) {
	secret := "ghp_" + random("flush", 36, alnum)
	key := pem("PRIVATE KEY", "\n")
	for _, c := range []struct {
		name   string
		pieces []string // flushed after each
		want   string
	}{
		{"in a secret", []string{"a " + secret[:10], secret[10:] + " b"}, "a " + secret[:10] + "[masked] b"},
		{"twice in a secret", []string{secret[:10], secret[10:20], secret[20:] + " b"}, secret[:20] + "[masked] b"},
		{"in a keyword", []string{"gh", secret[2:]}, "gh[masked]"},
		{"behind a secret", []string{secret, " b"}, "[masked] b"},
		{"between keyword and secret", []string{"Authorization: Bea", "rer " + secret + "\n"}, "Authorization: Bearer [masked]\n"},
		{"in a secret that is whole but goes on", []string{"password=hunt", "er2\n"}, "password=[masked]\n"},
		{"in a key", []string{key[:200], key[200:300], key[300:] + "\nb"}, "[masked]\nb"},
		{"in the header of a key", []string{key[:12], key[12:] + "\nb"}, key[:12] + "[masked]\nb"},
		{"at a place that looks like an end", []string{"xgithub_pat", "_" + random("gp", 82, alnum) + "\n"}, "xgithub_pat[masked]\n"},
		{"nothing", []string{"", "a", "", "b"}, "ab"},
		{"a port", []string{"http://host:80", "80/x"}, "http://host:8080/x"},
	} {
		var out bytes.Buffer
		s := detect.Default().Stream(func(b []byte) error { out.Write(b); return nil })
		for _, p := range c.pieces {
			if _, err := s.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(); err != nil || s.Pending() != 0 {
				t.Fatalf("%s: %v, %d bytes are held back", c.name, err, s.Pending())
			}
		}
		if got := out.String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// What has no end is masked, and holds little back.
func TestBounds(t *testing.T) {
	body := func(n int) string { return random("body", n, b64url) }
	for _, c := range []struct{ name, text, want string }{
		{"token longer than the bound", "x eyJ" + body(20_000) + ".eyJ" + body(9_000) + "." + body(300) + " y", "x [masked] y"},
		{"token that is none", "x eyJ" + body(20_000) + " y", "x [masked] y"},
		{"short token that is none", "x eyJ" + body(5_000) + " y", "x eyJ" + body(5_000) + " y"},
		{"key without an end", "x -----BEGIN PRIVATE KEY-----\n" + strings.Repeat(body(63)+"\n", 150), "x [masked]"},
		{"key without an end, then more", "x -----BEGIN PRIVATE KEY-----\n" + strings.Repeat(body(63)+"\n", 255) + strings.Repeat("log line\n", 500), ""},
	} {
		got := string(detect.Default().Mask([]byte(c.text)))
		if c.want == "" {
			if !strings.HasPrefix(got, "x [masked]") || !strings.HasSuffix(got, strings.Repeat("log line\n", 400)) || strings.Contains(got, body(20)) {
				t.Errorf("%s: %d bytes: %.40q", c.name, len(got), got)
			}
		} else if got != c.want {
			t.Errorf("%s: %d bytes: %.80q", c.name, len(got), got)
		}
		for _, size := range []int{1, 7, 512, 1000, 40_000} {
			var pieces [][]byte
			for b := []byte(c.text); len(b) > 0; {
				n := min(size, len(b))
				pieces, b = append(pieces, b[:n]), b[n:]
			}
			if s := stream(t, pieces...); s != got {
				t.Errorf("%s: in pieces of %d: %d bytes: %.80q", c.name, size, len(s), s)
			}
		}
	}
}

// What only counts by what comes far behind it does not wait for that.
func TestEndBehindBound(t *testing.T) {
	set, err := detect.Default().With([]detect.Detector{{Name: "far", Pattern: `far=(\d+) (?s:.*) end`}})
	if err != nil {
		t.Fatal(err)
	}
	near, far := strings.Repeat("a ", 1000), strings.Repeat("a ", 10_000)
	for _, c := range []struct{ text, want string }{
		{"far=123 " + near, "far=123 " + near},
		{"far=123 " + near + " end", "far=[masked] " + near + " end"},
		{"far=123 " + far, "far=[masked] " + far},
	} {
		var out bytes.Buffer
		s := set.Stream(func(b []byte) error { out.Write(b); return nil })
		for i := range len(c.text) {
			if _, err := s.Write([]byte(c.text[i : i+1])); err != nil || s.Pending() > 8<<10 {
				t.Fatalf("%v, %d bytes are held back", err, s.Pending())
			}
		}
		if err := s.Flush(); err != nil || out.String() != c.want || string(set.Mask([]byte(c.text))) != c.want {
			t.Errorf("%v: %.40q, want %.40q", err, out.String(), c.want)
		}
	}
}

func TestEmitFails(t *testing.T) {
	broken := fmt.Errorf("broken")
	calls := 0
	s := detect.Default().Stream(func([]byte) error { calls++; return broken })
	if _, err := s.Write([]byte("a\n")); !errors.Is(err, broken) {
		t.Fatalf("Write: %v", err)
	}
	if _, err := s.Write([]byte("b\n")); !errors.Is(err, broken) {
		t.Fatalf("Write: %v", err)
	}
	if err := s.Flush(); !errors.Is(err, broken) || calls != 1 {
		t.Fatalf("Flush: %v, %d calls", err, calls)
	}
}

func TestWith(t *testing.T) {
	set, err := detect.Default().With([]detect.Detector{
		{Name: "acme", Pattern: `\bacme_[0-9a-f]{16}\b`},
		{Name: "acme-part", Pattern: `tenant:(\w+):x`},
		{Name: "hex", Pattern: `\b[0-9a-f]{24}\b`, Keywords: []string{"Legacy Key"}},
		{Name: "cyrillic", Pattern: `пароль: (\S+)`},
		{Name: "two", Pattern: `login:(\w+)/(\w+)`},
		{Name: "any letter", Pattern: `name~([^\s]+)`},
		{Name: "at line start", Pattern: `(?m)^pin# ?(\d+)$`},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{"acme_0123456789abcdef", "[masked]"},
		{"xacme_0123456789abcdef", "xacme_0123456789abcdef"},
		{"tenant:abc:x", "tenant:[masked]:x"},
		{"login:abc/def.", "login:[masked]."},
		{"the legacy key is 0123456789abcdef01234567.", "the legacy key is [masked]."},
		{"the key is 0123456789abcdef01234567.", "the key is 0123456789abcdef01234567."},
		{"legacy key" + strings.Repeat(" ", 200) + "0123456789abcdef01234567", "legacy key" + strings.Repeat(" ", 200) + "0123456789abcdef01234567"},
		{"пароль: секрет да", "пароль: [masked] да"},
		{"name~müller x", "name~[masked] x"},
		{"пароль:  секрет", "пароль:  секрет"},
		{"the legacy key — ключ — is 0123456789abcdef01234567.", "the legacy key — ключ — is [masked]."},
		{"a\npin# 1234\nb pin# 5678\n", "a\npin# [masked]\nb pin# 5678\n"},
		{"ghp_" + random("with", 36, alnum), "[masked]"},
	} {
		if got := string(set.Mask([]byte(c.text))); got != c.want || !utf8.ValidString(got) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
	if got := detect.Default().Find([]byte("acme_0123456789abcdef")); got != nil {
		t.Errorf("the set it came from found %v", got)
	}
	for _, c := range []struct {
		d    detect.Detector
		want string
	}{
		{detect.Detector{Pattern: `abcd`}, "without a name"},
		{detect.Detector{Name: "a", Pattern: `(`}, `"a"`},
		{detect.Detector{Name: "a", Pattern: `(?=abcd)`}, `"a"`},
		{detect.Detector{Name: "a", Pattern: `[0-9a-f]{32}`}, "no fixed text"},
		{detect.Detector{Name: "a", Pattern: ``}, "no fixed text"},
		{detect.Detector{Name: "a", Pattern: `ab`}, "no fixed text"},
		{detect.Detector{Name: "a", Pattern: `abcd|[0-9]{20}`}, "no fixed text"},
		{detect.Detector{Name: "a", Pattern: `[0-9]{20}`, Keywords: []string{"ab"}}, "less than 3"},
		{detect.Detector{Name: "a", Pattern: `[0-9]{20}`, Keywords: []string{"ключ"}}, "not ASCII"},
		{detect.Detector{Name: "a", Pattern: `.{300}abcd`}, "more than 256"},
		{detect.Detector{Name: "a", Pattern: `.*abcd`}, "more than 256"},
		{detect.Detector{Name: "a", Pattern: `(?i)пароль=(\w+)`}, "case can only be ignored in ASCII"},
		{detect.Detector{Name: "a", Pattern: `abcd(?:x{900}y{900}){1}z{999}[a-z]{999}[0-9]{999}`}, "too large"},
		{detect.Detector{Name: "github-pat", Pattern: `abcd`}, "two of this name"},
	} {
		if _, err := detect.Default().With([]detect.Detector{c.d}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.d, err, c.want)
		}
	}
}

func TestEmbeddedRulesAreTheReleasedOnes(t *testing.T) {
	b, err := os.ReadFile("gitleaks.toml")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); got != "e163e53b9e7e8a8511e77271e2b323ed057759542a6d988258afe3a1fa329caf" {
		t.Errorf("sha256 %s: rules.go says another", got)
	}
	names := detect.Default().Names()
	if len(names) < 180 {
		t.Errorf("only %d detectors", len(names))
	}
	for name, why := range detect.LeftOut() {
		if why == "" {
			t.Errorf("%s: left out without a reason", name)
		}
	}
}

// FuzzStream: a stream gives what the whole text gives however it is cut. With flushes in between it gives the text with
// parts of it masked, in order.
func FuzzStream(f *testing.F) {
	f.Add([]byte("ghp_"+random("f", 36, alnum)+" postgres://a:b@c -----BEGIN PRIVATE KEY-----\nabc"), []byte{3, 200, 1}, []byte("x"))
	f.Add([]byte(jwt()), []byte{1}, []byte("\n"))
	f.Add([]byte(pem("PRIVATE KEY", "\n")), []byte{64, 3}, []byte("\x00\xff"))
	f.Add([]byte("u:p@tcp(h) 0q~ abc8Q~"+random("azure", 34, alnum)+" AKIAABCDEFGHIJKLMNOP"), []byte{9, 2}, []byte("é"))
	f.Fuzz(func(t *testing.T, text, cuts, filler []byte) {
		if len(text) > 20_000 || len(cuts) > 1000 || len(filler) > 1000 {
			return
		}
		set := detect.Default()
		if len(filler) > 0 && len(text) > 0 && len(text)*len(filler) < 100_000 {
			text = append(text, bytes.Repeat(append(filler, text[len(text)/2:]...), 1+len(cuts)%8)...)
		}
		copied := bytes.Clone(text)
		spans := set.Find(text)
		end := -1
		for _, n := range spans {
			if n.Start <= end || n.End <= n.Start || n.End > len(text) {
				t.Fatalf("spans %v", spans)
			}
			end = n.End
		}
		if !set.Maybe(text) && len(spans) > 0 {
			t.Fatal("Maybe says no")
		}
		want := string(set.Mask(text))
		if utf8.Valid(text) && !utf8.ValidString(want) {
			t.Fatalf("%q became %q", text, want)
		}
		if !bytes.Equal(copied, text) {
			t.Fatal("the text was changed")
		}
		var pieces [][]byte
		for i, rest := 0, text; len(rest) > 0; i++ {
			n := len(rest)
			if len(cuts) > 0 {
				n = min(n, int(cuts[i%len(cuts)])+1)
			}
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if got := stream(t, pieces...); got != want {
			t.Fatalf("in pieces %q\nwhole     %q", got, want)
		}
		// With flushes in between, all that is outside of secrets still comes, in order.
		var out bytes.Buffer
		s := set.Stream(func(b []byte) error { out.Write(b); return nil })
		for i, p := range pieces {
			_, _ = s.Write(p)
			if len(cuts) > 0 && cuts[i%len(cuts)]%3 == 0 {
				_ = s.Flush()
			}
		}
		_ = s.Flush()
		if bytes.Contains(text, []byte("[masked")) {
			return
		}
		parts, rest := strings.Split(out.String(), detect.Mark), string(text)
		if !strings.HasPrefix(rest, parts[0]) || !strings.HasSuffix(rest, parts[len(parts)-1]) {
			t.Fatalf("flushed %q, of %q", out.String(), text)
		}
		for _, part := range parts {
			i := strings.Index(rest, part)
			if i < 0 {
				t.Fatalf("flushed %q, of %q", out.String(), text)
			}
			rest = rest[i+len(part):]
		}
	})
}

func FuzzWith(f *testing.F) {
	f.Add(`\bacme_([0-9a-f]{16})\b`, "acme", []byte("acme_0123456789abcdef"))
	f.Add(`(?i)(a|b)+key[^x]*?(y|$)`, "abc", []byte("ABkeyzzzy"))
	f.Add(`[^ -~]{3}`, "pass", []byte("pass ÄÖÜ"))
	f.Add(`(?s:x.*)?abcd`, "", []byte("x abcd"))
	f.Fuzz(func(t *testing.T, pattern, keyword string, text []byte) {
		if len(pattern) > 200 || len(text) > 2000 {
			return
		}
		base, err := detect.Default().With(nil)
		if err != nil {
			t.Fatal(err)
		}
		set, err := base.With([]detect.Detector{{Name: "fuzz", Pattern: pattern, Keywords: []string{keyword}}})
		if err != nil {
			return
		}
		want := string(set.Mask(text))
		if utf8.Valid(text) && !utf8.ValidString(want) {
			t.Fatalf("%q became %q", text, want)
		}
		var out bytes.Buffer
		s := set.Stream(func(b []byte) error { out.Write(b); return nil })
		for i := range text {
			if _, err := s.Write(text[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil || out.String() != want {
			t.Fatalf("byte by byte %q, whole %q, %v", out.String(), want, err)
		}
	})
}
