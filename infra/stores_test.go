package main

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/settings"
)

func TestTables(t *testing.T) {
	tpl := stack(t)
	schema := func(hash, sort string) []any {
		return []any{map[string]any{"AttributeName": hash, "KeyType": "HASH"}, map[string]any{"AttributeName": sort, "KeyType": "RANGE"}}
	}
	for id, s := range map[string]settings.Table{"Sessions": settings.Sessions, "Approvals": settings.Approvals} {
		_, r := tpl.one(t, "AWS::DynamoDB::Table", id)
		var index any
		if i := s.Index; i != nil {
			index = []any{map[string]any{
				"IndexName": i.Name, "KeySchema": schema(i.PartitionKey, i.SortKey), "Projection": map[string]any{"ProjectionType": "ALL"},
			}}
		}
		for k, want := range map[string]any{
			"TableName": s.Name, "KeySchema": schema(s.PartitionKey, s.SortKey), "GlobalSecondaryIndexes": index,
			"TimeToLiveSpecification": map[string]any{"AttributeName": s.TTL, "Enabled": true}, "BillingMode": "PAY_PER_REQUEST",
			"PointInTimeRecoverySpecification": map[string]any{"PointInTimeRecoveryEnabled": true},
			"DeletionProtectionEnabled":        true, "SSESpecification": map[string]any{"SSEEnabled": true},
		} {
			if d := cmp.Diff(want, r.Properties[k]); d != "" {
				t.Errorf("%s %s: %s", id, k, d)
			}
		}
		for _, a := range r.Properties["AttributeDefinitions"].([]any) {
			if at(a, "AttributeType") != "S" {
				t.Errorf("%s: key %v is no string", id, a)
			}
		}
		if r.DeletionPolicy != "Retain" {
			t.Errorf("table %s goes with the stack", id)
		}
	}
}

func TestBuckets(t *testing.T) {
	tpl := stack(t)
	for _, b := range []string{"Logs", "Policies", "Recordings"} {
		id, r := tpl.one(t, "AWS::S3::Bucket", b)
		if r.DeletionPolicy != "Retain" {
			t.Errorf("bucket %s goes with the stack", b)
		}
		for k, want := range map[string]any{
			"PublicAccessBlockConfiguration": map[string]any{"BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true},
			"OwnershipControls":              map[string]any{"Rules": []any{map[string]any{"ObjectOwnership": "BucketOwnerEnforced"}}},
		} {
			if d := cmp.Diff(want, r.Properties[k]); d != "" {
				t.Errorf("bucket %s, %s: %s", b, k, d)
			}
		}
		if r.Properties["BucketEncryption"] == nil {
			t.Errorf("bucket %s is not encrypted", b)
		}
		arn := map[string]any{"Fn::GetAtt": []any{id, "Arn"}}
		ssl := map[string]any{
			"Effect": "Deny", "Principal": map[string]any{"AWS": "*"}, "Action": "s3:*",
			"Condition": map[string]any{"Bool": map[string]any{"aws:SecureTransport": "false"}},
			"Resource":  []any{arn, map[string]any{"Fn::Join": []any{"", []any{arn, "/*"}}}},
		}
		_, p := tpl.one(t, "AWS::S3::BucketPolicy", b+"Policy")
		statements := at(p.Properties, "PolicyDocument", "Statement").([]any)
		if !slices.ContainsFunc(statements, func(s any) bool { return reflect.DeepEqual(s, ssl) }) {
			t.Errorf("bucket %s can be reached without TLS", b)
		}
		if b == "Logs" {
			continue
		}
		for _, s := range statements {
			if at(s, "Effect") != "Deny" {
				t.Errorf("the policy of bucket %s gives rights: %v", b, s)
			}
		}
		if at(r.Properties, "VersioningConfiguration", "Status") != "Enabled" {
			t.Errorf("bucket %s is not versioned", b)
		}
		if spell(at(r.Properties, "LoggingConfiguration", "DestinationBucketName")) != "<Logs>" {
			t.Errorf("access to bucket %s is not logged", b)
		}
	}
	_, r := tpl.one(t, "AWS::S3::Bucket", "Recordings")
	lock := map[string]any{"ObjectLockEnabled": "Enabled", "Rule": map[string]any{"DefaultRetention": map[string]any{"Days": 365.0, "Mode": "GOVERNANCE"}}}
	if d := cmp.Diff(lock, r.Properties["ObjectLockConfiguration"]); d != "" || r.Properties["ObjectLockEnabled"] != true {
		t.Error("recordings are not locked:", d)
	}
	id, _ := tpl.one(t, "AWS::S3::Bucket", "Recordings")
	_, p := tpl.one(t, "AWS::S3::BucketPolicy", "RecordingsPolicy")
	over := map[string]any{
		"Sid": "NeverOver", "Effect": "Deny", "Principal": map[string]any{"AWS": "*"}, "Action": "s3:PutObject",
		"Condition": map[string]any{"Null": map[string]any{"s3:if-none-match": "true"}},
		"Resource":  map[string]any{"Fn::Join": []any{"", []any{map[string]any{"Fn::GetAtt": []any{id, "Arn"}}, "/*"}}},
	}
	if !slices.ContainsFunc(at(p.Properties, "PolicyDocument", "Statement").([]any), func(s any) bool { return reflect.DeepEqual(s, over) }) {
		t.Error("a recording can be put over another")
	}
}

// The policy's bytes arrive as they are: what the template would put is the file, under its digest and as the policy in
// force, with the digest as S3's checksum.
func TestPolicyArrivesExactly(t *testing.T) {
	tpl := stack(t)
	file, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for prefix, key := range map[string]string{"PolicyObject": settings.PolicyKey(digestOf(t, "policy.yaml")), "PolicyCurrent": "policy/current.yaml"} {
		_, r := tpl.one(t, "Custom::SallyportPolicy", prefix)
		var call struct {
			Service, Action string
			Parameters      struct{ Bucket, Key, Body, ChecksumSHA256 string }
		}
		if err := json.Unmarshal([]byte(spell(r.Properties["Create"])), &call); err != nil {
			t.Fatal(err)
		}
		if call.Service != "S3" || call.Action != "PutObject" || call.Parameters.Bucket != "<Policies>" || call.Parameters.Key != key {
			t.Errorf("%s: %+v", prefix, call)
		}
		if d := cmp.Diff(string(file), call.Parameters.Body); d != "" {
			t.Error(d)
		}
		if call.Parameters.ChecksumSHA256 != checksumOf(file) {
			t.Errorf("%s: checksum %s", prefix, call.Parameters.ChecksumSHA256)
		}
		if d := cmp.Diff(r.Properties["Create"], r.Properties["Update"]); d != "" {
			t.Errorf("%s: an update puts something else: %s", prefix, d)
		}
		if r.Properties["Delete"] != nil {
			t.Errorf("%s: a policy in force before is deleted", prefix)
		}
	}
}

// A policy takes effect once what it speaks of is there, and before the first task of the proxy needs one.
func TestPolicyComesInOrder(t *testing.T) {
	tpl := stack(t)
	id, current := tpl.one(t, "Custom::SallyportPolicy", "PolicyCurrent")
	object, _ := tpl.one(t, "Custom::SallyportPolicy", "PolicyObject")
	first := append([]string{object}, tpl.all("AWS::EKS::AccessEntry")...)
	for _, f := range []string{"Exchange", "Review", "Notify", "Callback"} {
		id, _ := tpl.one(t, "AWS::Lambda::Function", f)
		first = append(first, id)
	}
	for _, tier := range []string{"observe", "operate", "develop", "maintain"} {
		role, _ := tpl.one(t, "AWS::IAM::Role", "Tier"+tier)
		first = append(first, role)
	}
	for _, f := range first {
		if !slices.Contains(current.DependsOn, f) {
			t.Errorf("the policy takes effect without waiting for %s", f)
		}
	}
	if _, service := tpl.one(t, "AWS::ECS::Service", "ProxyService"); !slices.Contains(service.DependsOn, id) {
		t.Error("the proxy does not wait for a policy")
	}
}

// Another policy is put, and replaces neither function nor task: they find it while they run.
func TestAnotherPolicy(t *testing.T) {
	a := stack(t)
	c, err := LoadConfig("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.Rules.Digest = strings.Repeat("0", 64)
	b := synth(c)
	for _, w := range []struct {
		typ, prefix string
		changes     bool
	}{
		{"Custom::SallyportPolicy", "PolicyObject", true}, {"Custom::SallyportPolicy", "PolicyCurrent", true},
		{"AWS::Lambda::Function", "Exchange", false}, {"AWS::Lambda::Function", "Review", false},
		{"AWS::Lambda::Function", "Notify", false}, {"AWS::Lambda::Function", "Callback", false}, {"AWS::ECS::TaskDefinition", "ProxyTask", false},
	} {
		_, before := a.one(t, w.typ, w.prefix)
		_, after := b.one(t, w.typ, w.prefix)
		if cmp.Equal(before.Properties, after.Properties) == w.changes {
			t.Errorf("%s changes: %v, want %v", w.prefix, !w.changes, w.changes)
		}
	}
}
