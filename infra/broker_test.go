package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTiers(t *testing.T) {
	tpl := stack(t)
	for _, tier := range []string{"observe", "operate", "develop", "maintain"} {
		id, role := tpl.one(t, "AWS::IAM::Role", "Tier"+tier)
		tags := []any{"sallyport:approval", "sallyport:principal", "sallyport:session", "sallyport:tier"}
		who := map[string]any{"AWS": map[string]any{"Fn::GetAtt": []any{exchangeRole(t, tpl), "Arn"}}}
		statement := func(sid, action string, identity, tagged bool) map[string]any {
			like, c := map[string]any{}, map[string]any{}
			if tagged {
				like["aws:RequestTag/sallyport:principal"], like["aws:RequestTag/sallyport:session"] = "?*", "?*"
				c["StringEquals"] = map[string]any{"aws:RequestTag/sallyport:tier": tier}
				c["ForAllValues:StringEquals"] = map[string]any{"aws:TagKeys": tags}
			}
			if tagged && tier == "maintain" { // nobody's base tier: not without an approval
				like["aws:RequestTag/sallyport:approval"] = "?*"
			}
			if identity {
				like["sts:SourceIdentity"] = "?*"
			}
			c["StringLike"] = like
			return map[string]any{"Sid": sid, "Effect": "Allow", "Principal": who, "Action": action, "Condition": c}
		}
		want := map[string]any{
			"RoleName": tier, "Path": "/sallyport/", "MaxSessionDuration": 3600.0,
			"Description": "Tier " + tier + ": Kubernetes group sallyport:" + tier + ", and nothing in AWS",
			"AssumeRolePolicyDocument": map[string]any{"Version": "2012-10-17", "Statement": []any{
				statement("Assume", "sts:AssumeRole", true, true),
				statement("Tag", "sts:TagSession", false, true),
				statement("Name", "sts:SetSourceIdentity", true, false),
			}},
		}
		if d := cmp.Diff(want, role.Properties); d != "" {
			t.Errorf("role %s: %s", tier, d)
		}
		for _, p := range tpl.all("AWS::IAM::Policy") {
			if strings.Contains(spell(tpl.Resources[p].Properties["Roles"]), name(id)) {
				t.Errorf("%s gives rights to tier %s", p, tier)
			}
		}
	}
}

func exchangeRole(t *testing.T, tpl template) string {
	id, _ := tpl.one(t, "AWS::IAM::Role", "ExchangeRole")
	return id
}

func TestAccessEntries(t *testing.T) {
	tpl := stack(t)
	var got []string
	for _, id := range tpl.all("AWS::EKS::AccessEntry") {
		p := tpl.Resources[id].Properties
		if p["AccessPolicies"] != nil || p["Username"] != nil {
			t.Errorf("%s has more than groups", id)
		}
		got = append(got, fmt.Sprint(p["ClusterName"], " ", spell(p["PrincipalArn"]), " ", p["Type"], " ", p["KubernetesGroups"]))
	}
	want := []string{
		"dev <Tierdevelop> STANDARD [sallyport:develop]",
		"dev <Tiermaintain> STANDARD [sallyport:maintain]",
		"dev <Tierobserve> STANDARD [sallyport:observe]",
		"dev <Tieroperate> STANDARD [sallyport:operate]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
