// Package law holds the import law of design: who may import whom.
package law

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

type listed struct {
	ImportPath string
	Imports    []string
}

// standard says whether a package is of the standard library.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && first != "sallyport"
}

func TestImportLaw(t *testing.T) {
	// -e: packages of other modules that cannot be loaded here are none of the law's business.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "sallyport/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen[p.ImportPath] = true
		for _, i := range p.Imports {
			if why := broken(p.ImportPath, i); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, i, why)
			}
		}
	}
	for _, want := range []string{"sallyport/shared/access", "sallyport/proxy", "sallyport/functions/exchange", "sallyport/infra", "sallyport/cmd/sallyport"} {
		if !seen[want] {
			t.Errorf("%s was not looked at; did it move?", want)
		}
	}
	if seen["sallyport/local/cluster"] {
		t.Error("local/cluster is part of the module: Kubernetes' dependency tree is in go.mod")
	}
}

// awsAdapters are the packages that may hold an AWS SDK; mains may, to wire them.
var awsAdapters = []string{
	"sallyport/shared/cluster", "sallyport/shared/credential", "sallyport/shared/mail", "sallyport/shared/policystore", "sallyport/shared/recording", "sallyport/shared/store",
	"sallyport/proxy/invoke",
	"sallyport/proxy", "sallyport/functions/exchange", "sallyport/functions/review", "sallyport/functions/notify", "sallyport/functions/callback", "sallyport/cmd/sallyport",
}

// leaves may be imported by every package of shared.
var leaves = map[string]bool{"sallyport/shared/access": true, "sallyport/shared/settings": true, "sallyport/shared/detect": true}

func broken(from, to string) string {
	in := func(path string, list ...string) bool {
		for _, l := range list {
			if path == l || strings.HasPrefix(path, l+"/") {
				return true
			}
		}
		return false
	}
	switch {
	case from == "sallyport/shared/access" && !standard(to):
		return "the package of the domain's words imports only the standard library"
	case from == "sallyport/shared/settings" && !standard(to) && to != "sallyport/shared/access":
		return "settings imports only the standard library and the words"
	case from == "sallyport/shared/detect" && !standard(to):
		return "the detectors, by which a policy is checked and answers are masked, import only the standard library"
	case in(from, "sallyport/shared") && in(to, "sallyport/shared") && !leaves[to] && !strings.HasSuffix(from, "test"):
		return "packages of shared import access, settings and detect, and never one another"
	case in(from, "sallyport/shared", "sallyport/proxy", "sallyport/functions", "sallyport/cmd", "sallyport/infra") && in(to, "sallyport/local", "sallyport/e2e"):
		return "the product does not know the one-machine stack"
	case in(from, "sallyport/shared", "sallyport/functions", "sallyport/cmd") && in(to, "sallyport/proxy"):
		return "nothing but the proxy imports the proxy"
	case in(to, "sallyport/infra") && !in(from, "sallyport/infra"):
		return "nothing imports the CDK app"
	case (strings.HasPrefix(to, "github.com/aws/aws-cdk-go") || strings.HasPrefix(to, "github.com/aws/jsii-runtime-go") || strings.HasPrefix(to, "github.com/aws/constructs-go")) && !in(from, "sallyport/infra"):
		return "only infra imports the CDK"
	case strings.HasPrefix(to, "github.com/aws/aws-sdk-go-v2") && !in(from, "sallyport/local", "sallyport/e2e") && !exactly(from, awsAdapters):
		return "AWS SDKs stay in adapters"
	case in(to, "k8s.io/kubernetes"):
		return "Kubernetes itself stays in the nested module local/cluster"
	}
	return ""
}

func exactly(path string, list []string) bool {
	for _, l := range list {
		if path == l {
			return true
		}
	}
	return false
}

// The law must be able to find somebody guilty.
func TestBrokenImports(t *testing.T) {
	for _, test := range [][2]string{
		{"sallyport/shared/access", "k8s.io/api/core/v1"},
		{"sallyport/shared/store", "sallyport/shared/policy"},
		{"sallyport/shared/detect", "sallyport/shared/access"},
		{"sallyport/cmd/sallyport", "sallyport/proxy/rules"},
		{"sallyport/shared/identity", "github.com/aws/aws-sdk-go-v2/aws"},
		{"sallyport/proxy/gate", "github.com/aws/aws-sdk-go-v2/service/s3"},
		{"sallyport/proxy", "sallyport/local/issuer"},
		{"sallyport/functions/exchange", "sallyport/proxy/session"},
		{"sallyport/proxy", "github.com/aws/aws-cdk-go/awscdk/v2"},
		{"sallyport/local/stack", "k8s.io/kubernetes/cmd/kubectl"},
	} {
		if broken(test[0], test[1]) == "" {
			t.Errorf("%s may import %s", test[0], test[1])
		}
	}
	for _, test := range [][2]string{
		{"sallyport/shared/access", "time"},
		{"sallyport/shared/store", "sallyport/shared/access"},
		{"sallyport/shared/policy", "sallyport/shared/detect"},
		{"sallyport/shared/store", "github.com/aws/aws-sdk-go-v2/service/dynamodb"},
		{"sallyport/proxy", "sallyport/shared/policy"},
		{"sallyport/infra", "github.com/aws/aws-cdk-go/awscdk/v2"},
	} {
		if why := broken(test[0], test[1]); why != "" {
			t.Errorf("%s may not import %s: %s", test[0], test[1], why)
		}
	}
}
