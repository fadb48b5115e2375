package policy_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// masked is a policy with a masking section; its first line is line 22.
func masked(section string) (*policy.Policy, error) {
	return policy.Load("policy.yaml", []byte(strings.TrimSuffix(head, "rules:\n")+"masking:\n"+section))
}

func TestMasking(t *testing.T) {
	p, err := masked(`  names: [LICENSE, '^.*_PIN$', '^(?i)otp|seed$']
  paths:
  - {apiGroups: [example.com], resources: [widgets], path: 'spec.users[].password'}
  - {apiGroups: ["*"], resources: ["*"], path: spec.a.*.b}
  - {apiGroups: [""], resources: [configmaps], path: 'data.my\.key'}
  - {apiGroups: [""], resources: [pods], path: 'metadata.annotations.example\.com/token'}
  - {apiGroups: [example.com], resources: [widgets/status], path: 'status.m[][].*[].x\\y'}
  detectors:
  - {name: acme, pattern: 'acme-([0-9a-f]{32})', keywords: [ACME-]}
  - {name: card, pattern: '\b[0-9]{16}\b', keywords: [card]}
  exempt:
  - {tiers: [operate, maintain], apiGroups: [""], resources: [configmaps], path: data.EXAMPLE_TOKEN}
  - {tiers: [maintain], apiGroups: [""], resources: [secrets], path: 'data.ca\.crt'}
`)
	if err != nil {
		t.Fatal(err)
	}
	at := func(groups, resources []string, path string, steps ...string) policy.MaskPath {
		return policy.MaskPath{APIGroups: groups, Resources: resources, Path: path, Steps: steps}
	}
	core, example := []string{""}, []string{"example.com"}
	shown := at(core, []string{"configmaps"}, "data.EXAMPLE_TOKEN", "data", "EXAMPLE_TOKEN")
	crt := at(core, []string{"secrets"}, `data.ca\.crt`, "data", "ca.crt")
	want := policy.Masking{
		Names: []string{"LICENSE", "^.*_PIN$", "^(?i)otp|seed$"},
		Paths: []policy.MaskPath{
			at(example, []string{"widgets"}, "spec.users[].password", "spec", "users", policy.EveryElement, "password"),
			at([]string{"*"}, []string{"*"}, "spec.a.*.b", "spec", "a", policy.EveryKey, "b"),
			at(core, []string{"configmaps"}, `data.my\.key`, "data", "my.key"),
			at(core, []string{"pods"}, `metadata.annotations.example\.com/token`, "metadata", "annotations", "example.com/token"),
			at(example, []string{"widgets/status"}, `status.m[][].*[].x\\y`, "status", "m", policy.EveryElement, policy.EveryElement, policy.EveryKey, policy.EveryElement, `x\y`),
		},
		Detectors: []policy.Detector{{Name: "acme", Pattern: "acme-([0-9a-f]{32})", Keywords: []string{"acme-"}}, {Name: "card", Pattern: `\b[0-9]{16}\b`, Keywords: []string{"card"}}},
		Exempt: []policy.Exemption{
			{Line: 33, Tiers: []string{"operate", "maintain"}, MaskPath: shown},
			{Line: 34, Tiers: []string{"maintain"}, MaskPath: crt},
		},
	}
	if d := cmp.Diff(want, p.Masking); d != "" {
		t.Error(d)
	}
	for tier, want := range map[string][]policy.MaskPath{"observe": nil, "operate": {shown}, "maintain": {shown, crt}, "": nil} {
		if d := cmp.Diff(want, p.Masking.Exempted(tier)); d != "" {
			t.Errorf("tier %q: %s", tier, d)
		}
	}
	// What the policy adds is on top of what is always masked, and each of its names is about whole names.
	names(t, p.Masking.NamesRE(), []string{"LICENSE", "ATM_PIN", "OTP", "otp", "seed", "DB_PASSWORD"}, []string{"license", "LICENSE_", "XLICENSE", "ATM_pin", "ATM_PIN2", "otpx", "xseed", "seeds"})
	if _, err := policy.Load("policy.yaml", []byte(strings.TrimSuffix(head, "rules:\n"))); err != nil {
		t.Errorf("without masking: %v", err)
	}
}

func names(t *testing.T, re *regexp.Regexp, secret, plain []string) {
	t.Helper()
	for _, name := range secret {
		if !re.MatchString(name) {
			t.Errorf("%s is shown", name)
		}
	}
	for _, name := range plain {
		if re.MatchString(name) {
			t.Errorf("%s is masked", name)
		}
	}
}

// What is open is ended when it would be masked otherwise; a section that only moved in the file masks alike.
func TestSameMasking(t *testing.T) {
	const shown = "  exempt: [{tiers: [operate], apiGroups: [''], resources: [configmaps], path: data.a}]\n"
	load := func(section string) policy.Masking {
		t.Helper()
		p, err := masked(section)
		if err != nil {
			t.Fatal(err)
		}
		return p.Masking
	}
	one := load(shown)
	if moved := load("\n\n" + shown); !one.Same(moved) || one.Exempt[0].Line == moved.Exempt[0].Line || one.Exempt[0].Line == 0 {
		t.Errorf("moved from %+v to %+v", one.Exempt, moved.Exempt)
	}
	for _, other := range []string{strings.Replace(shown, "data.a", "data.b", 1), shown + "  names: [LICENSE]\n", "  names: [LICENSE]\n"} {
		if one.Same(load(other)) {
			t.Errorf("%q masks as %q does", other, shown)
		}
	}
}

func TestDefaultNames(t *testing.T) {
	names(t, policy.Masking{}.NamesRE(),
		[]string{
			"PASSWORD", "DB_PASSWORD", "PGPASSWORD", "MYSQL_ROOT_PASSWORD", "password", "adminPassword", "spring.datasource.password", "REDIS_PASS", "pass", "DB_PWD", "REDIS_AUTH", "KEY_PASSPHRASE", "htpasswd",
			"CLIENT_SECRET", "clientSecret", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "accessToken", "NPM_TOKEN", "_authToken", "API_KEY", "APIKEY", "apiKey", "stripe-api-key", "api.key", "API_KEYS",
			"PRIVATE_KEY", "privateKey", "SIGNING_KEY", "ENCRYPTION_KEY", "SECRET_KEY", "secret_key_base_secret", "STORAGE_ACCOUNT_KEY", "AccountKey", "SSH_KEY", "credentials", "GOOGLE_CREDENTIAL", "SENTRY_DSN", "dsn",
			"ConnectionString", "CONNECTION_STRING", "connection-string", ".dockerconfigjson", ".dockercfg",
		},
		[]string{
			"", "PASSWORD_FILE", "PASSWORD_MIN_LENGTH", "TOKEN_TTL", "TOKEN_URL", "MAX_TOKENS", "SECRET_NAME", "secretRef", "API_KEY_HEADER", "KEY", "key", "CACHE_KEY", "PUBLIC_KEY", "PARTITION_KEY", "sort_key", "monkey", "COMPASS", "bypass", "PWD", "OLDPWD",
			"AUTHOR", "oauth", "AUTH_URL", "GRANT", "HOSTNAME", "LOG_LEVEL", "ca.crt", "tls.crt", "config.yaml", "application.properties", "DSN_HOST",
		})
}

// Each row is a masking section, and what is said of it: line, and what to write.
func TestLoadRefusesMasking(t *testing.T) {
	long := strings.Repeat("a", 1025)
	path := func(p string) string {
		return "  paths: [{apiGroups: [example.com], resources: [widgets], path: '" + p + "'}]"
	}
	detector := func(fields string) string { return "  detectors: [{name: acme, " + fields + "}]" }
	exempt := func(groups, resources, p string) string {
		return "  exempt: [{tiers: [operate], apiGroups: [" + groups + "], resources: [" + resources + "], path: '" + p + "'}]"
	}
	for _, test := range []struct{ name, section, line, says string }{
		{"unknown field", "  name: [a]", "line 22", `unknown field "name"; did you mean names?`},
		{"a list", "- a", "line 22", "a mapping is wanted here"},
		{"no names", "  names: []", "line 22", "masking: names: there is nothing in it"},
		{"no paths", "  names: [A]\n  paths: []", "line 23", "paths: there is nothing in it"},
		{"no detectors", "  detectors:", "line 22", "detectors: there is nothing in it"},
		{"no exemptions", "  exempt: []", "line 22", "exempt: there is nothing in it"},
		{"too many", "  names: [" + strings.Repeat("A,", 501) + "]", "line 22", "names: there are 501; at most 500 are read"},
		{"an empty name", "  names: ['']", "line 22", "names: an empty word matches nothing"},
		{"a name that is a half pattern", "  names: ['.*_PIN']", "line 22", `pattern ".*_PIN" is not anchored; write '^.*_PIN$'`},
		{"a name that is no pattern", "  names: ['^(a$']", "line 22", "missing closing )"},

		{"a place without groups", "  paths: [{resources: [widgets], path: spec}]", "line 22", `paths: apiGroups is missing`},
		{"a place without resources", "  paths: [{apiGroups: [example.com], path: spec}]", "line 22", `paths: resources is missing`},
		{"a misspelt resource", `  paths: [{apiGroups: [""], resources: [configmap], path: data.a}]`, "line 22", "did you mean configmaps?"},
		{"a misspelt group", `  paths: [{apiGroups: [core], resources: [configmaps], path: data.a}]`, "line 22", `did you mean ""?`},
		{"every subresource", `  paths: [{apiGroups: [example.com], resources: ["widgets/*"], path: spec.a}]`, "line 22", "a resource means its subresources too; write widgets"},
		{"an unknown field of a place", `  paths: [{apiGroup: [""]}]`, "line 22", "did you mean apiGroups?"},
		{"no path", path(""), "line 22", "paths: path: it is missing"},
		{"a path too long", path(long), "line 22", "longer than 1024"},
		{"too many steps", path("spec" + strings.Repeat(".a", 40)), "line 22", "has 41 steps; at most 32"},
		{"an empty step", path("spec..a"), "line 22", "has an empty step; write it like spec.users[].password"},
		{"a dot at the end", path("spec."), "line 22", "has an empty step"},
		{"a dot at the start", path(".spec"), "line 22", "has an empty step"},
		{"an index", path("spec.users[0].a"), "line 22", "has a bracket that is no [] behind a key"},
		{"brackets alone", path("spec.[].a"), "line 22", "has a bracket that is no [] behind a key"},
		{"brackets that end nowhere", path("spec.a["), "line 22", "has a bracket that is no [] behind a key"},
		{"a bracket", path("spec.a]"), "line 22", "has a character that no path has"},
		{"no dot behind brackets", path("spec.a[]b"), "line 22", "goes on behind a [] without a dot"},
		{"a backslash behind brackets", path(`spec.a[]\.b`), "line 22", "goes on behind a [] without a dot"},
		{"a pattern", path("spec.pass*"), "line 22", "has a * that is not the whole step"},
		{"two stars", path("spec.**.a"), "line 22", "has a * that is not the whole step"},
		{"a backslash", path(`spec.a\b`), "line 22", "has a backslash that is before no dot"},
		{"a backslash at the end", path(`spec.a\`), "line 22", "has a backslash that is before no dot"},
		{"an escaped star", path(`spec.\*`), "line 22", "has a backslash that is before no dot"},
		{"everything", path("*"), "line 22", "begins with what may be anything"},
		{"the kind", path("kind"), "line 22", "how clients tell objects apart"},
		{"the API version", path("apiVersion.a"), "line 22", "how clients tell objects apart"},
		{"metadata", path("metadata"), "line 22", "how clients tell objects apart"},
		{"the name", path("metadata.name"), "line 22", "how clients tell objects apart"},
		{"anything of metadata", path("metadata.*"), "line 22", "how clients tell objects apart"},
		{"a label", path("metadata.labels.a"), "line 22", "only metadata.annotations.KEY"},
		{"all annotations", path("metadata.annotations"), "line 22", "only metadata.annotations.KEY"},

		{"a detector without a name", "  detectors: [{pattern: abcdef}]", "line 22", `detectors: name "": lower-case letters`},
		{"a detector twice", "  detectors: [{name: a, pattern: abcdef},\n    {name: a, pattern: bcdefg}]", "line 23", `"a" is named twice`},
		{"no pattern", detector("keywords: [abc]"), "line 22", "pattern is missing"},
		{"no RE2", detector("pattern: '(?=abcd)'"), "line 22", "invalid or unsupported Perl syntax"},
		{"a pattern too long", detector("pattern: '" + long + "'"), "line 22", "longer than 1000"},
		{"anchored at the start", detector("pattern: '^acme-[0-9]+'"), "line 22", "leave out ^ and $"},
		{"anchored at the end", detector("pattern: 'acme-[0-9]+$'"), "line 22", "leave out ^ and $"},
		{"two groups", detector("pattern: '(acme)-([0-9]+)'"), "line 22", "has 2 groups; the one group is the secret"},
		{"found everywhere", detector("pattern: '.*'"), "line 22", "found everywhere; make it longer"},
		{"found nearly everywhere", detector("pattern: 'a|abcdef'"), "line 22", "found everywhere; make it longer"},
		{"repeated at most", detector("pattern: '(?:abcdef){0,9}'"), "line 22", "found everywhere; make it longer"},
		{"a group of nothing", detector("pattern: 'acme-(.*)'"), "line 22", "found everywhere; make it longer"},
		{"no keywords", detector("pattern: abcdef, keywords: []"), "line 22", "keywords: there is nothing in it"},
		{"a short keyword", detector("pattern: abcdef, keywords: [ab]"), "line 22", "a word of at least 3 letters"},
		{"a keyword with a space", detector("pattern: abcdef, keywords: ['ab cd']"), "line 22", "a word of at least 3 letters"},
		{"a keyword of other letters", detector("pattern: abcdef, keywords: [straße]"), "line 22", "a word of at least 3 letters"},

		{"a name that is taken", "  detectors: [{name: json-web-token, pattern: abcdef}]", "line 22", `a detector that is always there is called so; write another, such as my-json-web-token`},
		{"nothing fixed", "  detectors:\n  - name: acme\n    pattern: '[0-9a-f]{32}'", "line 24", `detectors: "acme": its pattern has no fixed text of 3 bytes or more that every match holds: name keywords that stand before it`},
		{"nothing fixed near", detector("pattern: '([a-z]{1,500}acme[0-9]{8})'"), "line 22", "a match may begin more than 256 bytes before its fixed text"},
		{"a case that is not ASCII's", detector("pattern: '(?i)straße-[0-9]{8}'"), "line 22", "case can only be ignored in ASCII"},
		{"a pattern too large", detector("pattern: 'acme[a-z]{1000}[0-9]{1000}[a-z]{1000}[0-9]{1000}[a-z]{1000}'"), "line 22", "its pattern is too large"},

		{"no tiers", "  exempt: [{apiGroups: [''], resources: [configmaps], path: data.a}]", "line 22", "exempt: tiers is missing"},
		{"an unknown tier", "  exempt: [{tiers: [operat], apiGroups: [''], resources: [configmaps], path: data.a}]", "line 22", `there is no tier "operat"; did you mean operate?`},
		{"every group", exempt("'*'", "widgets", "spec.a"), "line 22", `apiGroups: what is shown does not say "*"`},
		{"every resource", exempt("example.com", "'*'", "spec.a"), "line 22", `resources: what is shown does not say "*"`},
		{"every status", exempt("example.com", "'*/status'", "spec.a"), "line 22", `resources: what is shown does not say "*"`},
		{"all of a Secret", exempt("''", "secrets", "data"), "line 22", "of Secrets only one key at a time"},
		{"all keys of Secrets", exempt("'', apps", "pods, secrets", "data.*"), "line 22", "of Secrets only one key at a time"},
		{"what is below a key of Secrets", exempt("''", "secrets", "data.a.b"), "line 22", "of Secrets only one key at a time"},
		{"another field of Secrets", exempt("''", "secrets", "stringData.a"), "line 22", "of Secrets only one key at a time"},
		{"the annotation that holds all", exempt("''", "secrets", `metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration`), "line 22", "holds whole objects as well"},
		{"every annotation", exempt("apps", "deployments", "metadata.annotations.*"), "line 22", "holds whole objects as well"},
		{"an annotation of Secrets", exempt("''", "secrets", "metadata.annotations.a"), "line 22", "of Secrets only one key at a time"},
		{"a bad path", exempt("''", "configmaps", "data..a"), "line 22", "exempt: path: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := masked(test.section)
			if access.KindOf(err) != access.Invalid {
				t.Fatalf("got %v, want an invalid policy", err)
			}
			for _, want := range []string{"policy policy.yaml: " + test.line + ": ", test.says} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has several lines", err)
			}
		})
	}
}

// Whatever is written, it is refused or comes to steps that are no wider than what is written: as many as there are, and
// none that stands for everything but where a star or brackets are.
func FuzzMaskPath(f *testing.F) {
	for _, p := range []string{"spec.a", "spec.users[].password", `metadata.annotations.a\.b/c`, "data.*", "a[][]", `a\\.b`, "spec.*[]", "a..b", `a\`, "[]", "a[]b"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if strings.ContainsAny(path, "'\r\n") {
			return
		}
		p, err := masked("  paths: [{apiGroups: [example.com], resources: [widgets], path: '" + path + "'}]")
		if err != nil {
			if access.KindOf(err) != access.Invalid {
				t.Errorf("%q: %v", path, err)
			}
			return
		}
		var again strings.Builder
		for i, s := range p.Masking.Paths[0].Steps {
			switch {
			case s == policy.EveryElement && i > 0:
				again.WriteString("[]")
				continue
			case i > 0:
				again.WriteByte('.')
			}
			again.WriteString(strings.NewReplacer(`\`, `\\`, ".", `\.`).Replace(s))
		}
		if again.String() != path {
			t.Errorf("%q comes to %q", path, again.String())
		}
	})
}
