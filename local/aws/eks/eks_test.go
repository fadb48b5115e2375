package eks_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	api "github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/eks/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/local/aws/eks"
)

const (
	account = "111122223333"
	region  = "eu-west-1"
	operate = "arn:aws:iam::" + account + ":role/sallyport/operate"
	develop = "arn:aws:iam::" + account + ":role/develop"
	ana     = "arn:aws:iam::" + account + ":user/ana"
)

func client(t *testing.T, s http.Handler) *api.Client {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return api.New(api.Options{Region: region, BaseEndpoint: &srv.URL, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("x", "x", "")})
}

func server(t *testing.T) *eks.Server {
	t.Helper()
	s, err := eks.New(eks.Config{AccountID: account, Region: region, Clusters: []eks.Cluster{{Name: "dev"}, {Name: "prod"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kind(err error) string {
	var (
		missing *types.ResourceNotFoundException
		inUse   *types.ResourceInUseException
		invalid *types.InvalidParameterException
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &missing):
		return "missing"
	case errors.As(err, &inUse):
		return "in use"
	case errors.As(err, &invalid):
		return "invalid"
	}
	return err.Error()
}

func TestClusterComesInTwoSteps(t *testing.T) {
	s := server(t)
	c := client(t, s)
	out, err := c.DescribeCluster(t.Context(), &api.DescribeClusterInput{Name: aws.String("dev")})
	if err != nil {
		t.Fatal(err)
	}
	if out.Cluster.Status != types.ClusterStatusCreating || out.Cluster.Endpoint != nil {
		t.Errorf("before it has an endpoint: %s %v", out.Cluster.Status, out.Cluster.Endpoint)
	}
	if _, err := s.CreateAccessEntry(eks.AccessEntry{Cluster: "dev", PrincipalARN: develop}, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.PutCluster(eks.Cluster{Name: "dev", Endpoint: "https://127.0.0.1:6443", CA: []byte("PEM"), Version: "1.35"}); err != nil {
		t.Fatal(err)
	}
	out, err = c.DescribeCluster(t.Context(), &api.DescribeClusterInput{Name: aws.String("dev")})
	if err != nil {
		t.Fatal(err)
	}
	want := &types.Cluster{Name: aws.String("dev"), Arn: aws.String("arn:aws:eks:eu-west-1:111122223333:cluster/dev"), Status: types.ClusterStatusActive,
		Endpoint: aws.String("https://127.0.0.1:6443"), Version: aws.String("1.35"), Tags: map[string]string{},
		CertificateAuthority: &types.Certificate{Data: aws.String(base64.StdEncoding.EncodeToString([]byte("PEM")))},
		AccessConfig:         &types.AccessConfigResponse{AuthenticationMode: types.AuthenticationModeApi}}
	ignore := cmp.Options{cmpopts.IgnoreFields(types.Cluster{}, "CreatedAt"), cmpopts.IgnoreUnexported(types.Cluster{}, types.Certificate{}, types.AccessConfigResponse{})}
	if diff := cmp.Diff(want, out.Cluster, ignore); diff != "" {
		t.Error(diff)
	}
	if got, _ := s.ListAccessEntries("dev"); len(got) != 1 {
		t.Errorf("entries after the change: %v", got)
	}
	if _, err := c.DescribeCluster(t.Context(), &api.DescribeClusterInput{Name: aws.String("none")}); kind(err) != "missing" {
		t.Error(err)
	}
	list, err := c.ListClusters(t.Context(), &api.ListClustersInput{})
	if err != nil || !slices.Equal(list.Clusters, []string{"dev", "prod"}) {
		t.Errorf("clusters %v %v", list, err)
	}
	for _, bad := range []eks.Cluster{{Name: "a/b"}, {Name: ""}, {Name: "x", Endpoint: "http://127.0.0.1"}} {
		if err := s.PutCluster(bad); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

func TestAccessEntries(t *testing.T) {
	c := client(t, server(t))
	in := func() *api.CreateAccessEntryInput {
		return &api.CreateAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate), KubernetesGroups: []string{"sallyport:operate"}, Tags: map[string]string{"tier": "operate"}}
	}
	made, err := c.CreateAccessEntry(t.Context(), in())
	if err != nil {
		t.Fatal(err)
	}
	want := &types.AccessEntry{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate), KubernetesGroups: []string{"sallyport:operate"}, Tags: map[string]string{"tier": "operate"},
		Type: aws.String("STANDARD"), Username: aws.String("arn:aws:sts::111122223333:assumed-role/operate/{{SessionName}}")}
	ignore := cmp.Options{cmpopts.IgnoreFields(types.AccessEntry{}, "CreatedAt", "ModifiedAt", "AccessEntryArn"), cmpopts.IgnoreUnexported(types.AccessEntry{})}
	if diff := cmp.Diff(want, made.AccessEntry, ignore); diff != "" {
		t.Error(diff)
	}
	if made.AccessEntry.CreatedAt.IsZero() || *made.AccessEntry.AccessEntryArn == "" {
		t.Errorf("entry without date or ARN: %+v", made.AccessEntry)
	}
	again := in()
	if _, err := c.CreateAccessEntry(t.Context(), again); kind(err) != "in use" {
		t.Errorf("second create: %v", err)
	}
	again.PrincipalArn = aws.String("arn:aws:iam::111122223333:role/other/operate")
	if _, err := c.CreateAccessEntry(t.Context(), again); kind(err) != "in use" {
		t.Errorf("the same role under another path: %v", err)
	}
	again.ClusterName = aws.String("prod")
	if _, err := c.CreateAccessEntry(t.Context(), again); err != nil {
		t.Errorf("another cluster: %v", err)
	}

	repeat := in()
	repeat.PrincipalArn, repeat.ClientRequestToken = aws.String(develop), aws.String("one-call")
	for range 2 {
		if _, err := c.CreateAccessEntry(t.Context(), repeat); err != nil {
			t.Errorf("the same call again: %v", err)
		}
	}

	up, err := c.UpdateAccessEntry(t.Context(), &api.UpdateAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate), KubernetesGroups: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	want.KubernetesGroups = []string{"a", "b"}
	if diff := cmp.Diff(want, up.AccessEntry, ignore); diff != "" {
		t.Error(diff)
	}
	up, err = c.UpdateAccessEntry(t.Context(), &api.UpdateAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate), Username: aws.String("op:{{SessionNameRaw}}")})
	if err != nil {
		t.Fatal(err)
	}
	want.Username = aws.String("op:{{SessionNameRaw}}")
	if diff := cmp.Diff(want, up.AccessEntry, ignore); diff != "" {
		t.Error(diff)
	}
	got, err := c.DescribeAccessEntry(t.Context(), &api.DescribeAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(up.AccessEntry, got.AccessEntry, cmpopts.IgnoreUnexported(types.AccessEntry{})); diff != "" {
		t.Error(diff)
	}

	var pages [][]string
	p := api.NewListAccessEntriesPaginator(c, &api.ListAccessEntriesInput{ClusterName: aws.String("dev"), MaxResults: aws.Int32(1)})
	for p.HasMorePages() {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, page.AccessEntries)
	}
	if diff := cmp.Diff([][]string{{develop}, {operate}}, pages); diff != "" {
		t.Error(diff)
	}

	del := &api.DeleteAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate)}
	if _, err := c.DeleteAccessEntry(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteAccessEntry(t.Context(), del); kind(err) != "missing" {
		t.Errorf("second delete: %v", err)
	}
	if _, err := c.DescribeAccessEntry(t.Context(), &api.DescribeAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate)}); kind(err) != "missing" {
		t.Errorf("describe after delete: %v", err)
	}
	if _, err := c.UpdateAccessEntry(t.Context(), &api.UpdateAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate)}); kind(err) != "missing" {
		t.Errorf("update after delete: %v", err)
	}
}

func TestEntriesRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*api.CreateAccessEntryInput)
		want   string
	}{
		{"as it should be", func(*api.CreateAccessEntryInput) {}, ""},
		{"a user", func(in *api.CreateAccessEntryInput) { in.PrincipalArn = aws.String(ana) }, ""},
		{"unknown cluster", func(in *api.CreateAccessEntryInput) { in.ClusterName = aws.String("none") }, "missing"},
		{"a session", func(in *api.CreateAccessEntryInput) {
			in.PrincipalArn = aws.String("arn:aws:sts::111122223333:assumed-role/operate/x")
		}, "invalid"},
		{"no ARN", func(in *api.CreateAccessEntryInput) { in.PrincipalArn = aws.String("operate") }, "invalid"},
		{"wildcard", func(in *api.CreateAccessEntryInput) { in.PrincipalArn = aws.String("arn:aws:iam::111122223333:role/*") }, "invalid"},
		{"type", func(in *api.CreateAccessEntryInput) { in.Type = aws.String("EC2_LINUX") }, "invalid"},
		{"name system:", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("system:admin") }, "invalid"},
		{"name System:", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("System:admin") }, "invalid"},
		{"name eks:", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("eks:x") }, "invalid"},
		{"name aws:", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("aws:x") }, "invalid"},
		{"name amazon:", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("amazon:x") }, "invalid"},
		{"name iam:", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("iam:x") }, "invalid"},
		{"template without a colon", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("{{SessionName}}") }, "invalid"},
		{"template with one", func(in *api.CreateAccessEntryInput) { in.Username = aws.String("op:{{SessionName}}") }, ""},
		{"group system:", func(in *api.CreateAccessEntryInput) { in.KubernetesGroups = []string{"a", "system:masters"} }, "invalid"},
		{"group eks:", func(in *api.CreateAccessEntryInput) { in.KubernetesGroups = []string{"EKS:x"} }, "invalid"},
		{"group with a newline", func(in *api.CreateAccessEntryInput) { in.KubernetesGroups = []string{"a\nb"} }, "invalid"},
		{"empty group", func(in *api.CreateAccessEntryInput) { in.KubernetesGroups = []string{""} }, "invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := server(t)
			in := &api.CreateAccessEntryInput{ClusterName: aws.String("dev"), PrincipalArn: aws.String(operate), KubernetesGroups: []string{"a"}}
			tt.change(in)
			if _, err := client(t, s).CreateAccessEntry(t.Context(), in); kind(err) != tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			// What create refuses, update must refuse too.
			if tt.want == "invalid" && (in.Username != nil || len(in.KubernetesGroups) != 1) {
				if _, err := s.CreateAccessEntry(eks.AccessEntry{Cluster: "dev", PrincipalARN: operate}, ""); err != nil {
					t.Fatal(err)
				}
				up := &api.UpdateAccessEntryInput{ClusterName: in.ClusterName, PrincipalArn: in.PrincipalArn, Username: in.Username, KubernetesGroups: in.KubernetesGroups}
				if _, err := client(t, s).UpdateAccessEntry(t.Context(), up); kind(err) != "invalid" {
					t.Errorf("update: got %v", err)
				}
			}
		})
	}
}

func TestUnknownOperation(t *testing.T) {
	w := httptest.NewRecorder()
	server(t).ServeHTTP(w, httptest.NewRequest("POST", "/clusters/dev/node-groups", bytes.NewReader(nil)))
	if w.Code != 400 || w.Header().Get("X-Amzn-Errortype") != "InvalidRequestException" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}
