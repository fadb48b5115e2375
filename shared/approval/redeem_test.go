package approval_test

import (
	"fmt"
	"testing"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/approval"
)

func TestRedeem(t *testing.T) {
	now := opened.Add(2 * time.Minute)
	for name, test := range map[string]struct {
		grant  access.Grant
		change func(*approval.Redemption)
		kind   access.Kind          // empty: it passes
		state  access.ApprovalState // after that
		says   string
	}{
		"once": {once, func(*approval.Redemption) {}, "", access.StateSpent, ""},
		"another digest": {once, func(r *approval.Redemption) { r.Digest = "d2" },
			access.Denied, access.StateApproved, "is for another request"},
		"another subject": {once, func(r *approval.Redemption) { r.Principal.Subject = "repo:acme/other" },
			access.Denied, access.StateApproved, "is another's"},
		"another issuer": {once, func(r *approval.Redemption) { r.Principal.Issuer = "https://ci.example.com/" },
			access.Denied, access.StateApproved, "is another's"},
		"another run": {once, func(r *approval.Redemption) { r.Principal.Run = map[string]string{"run_id": "2"} },
			access.Denied, access.StateApproved, "is another's"},
		"another cluster": {once, func(r *approval.Redemption) { r.Cluster = "prod" },
			access.Denied, access.StateApproved, "for another cluster"},
		"a renewed token with other groups": {once, func(r *approval.Redemption) { r.Principal.Groups, r.Principal.Owner = []string{"x"}, "y" },
			"", access.StateSpent, ""},
		"another rule": {once, func(r *approval.Redemption) { r.Decision.Rule = "deletes-2" },
			access.Denied, access.StateWithdrawn, "asked about by rule deletes-2 now, not deletes"},
		"another tier": {once, func(r *approval.Redemption) { r.Decision.Tier = "admin" },
			access.Denied, access.StateWithdrawn, "gives tier admin now, not operate"},
		"denied today": {once, func(r *approval.Redemption) { r.Decision.Effect = access.Deny },
			access.Denied, access.StateWithdrawn, "the policy changed"},
		"allowed today": {once, func(r *approval.Redemption) { r.Decision.Effect = access.Allow },
			access.Denied, access.StateWithdrawn, "does not ask about this request any more"},
		"no verdict": {once, func(r *approval.Redemption) { r.Decision.Effect = "" },
			access.Denied, access.StateWithdrawn, "the policy changed"},
		"two people wanted today": {once, func(r *approval.Redemption) { r.Decision.Obligations.Quorum = 2 },
			access.Denied, access.StateWithdrawn, "wants 2 people to say yes now, and 1 did"},
		"another policy that says the same": {once, func(r *approval.Redemption) { r.Decision.Policy, r.Decision.Message = "p2", "x" },
			"", access.StateSpent, ""},
		"another object of the name": {once, func(r *approval.Redemption) { r.Target.UID = "u2" },
			access.Conflict, access.StateWithdrawn, "another one of the same name"},
		"changed by somebody": {once, func(r *approval.Redemption) { r.Target.Generation++ },
			access.Conflict, access.StateWithdrawn, "changed by somebody"},
		"with a hash for a generation": {once, func(r *approval.Redemption) { r.Target.Generation, r.Target.Hash = 0, "h" },
			access.Conflict, access.StateWithdrawn, "changed by somebody"},
		"gone": {once, func(r *approval.Redemption) { r.Target = access.Target{} },
			access.Conflict, access.StateWithdrawn, "not there any more"},

		"granted": {hour, func(*approval.Redemption) {}, "", access.StateGranted, ""},
		"granted, another pod": {hour, func(r *approval.Redemption) {
			r.Digest, r.Action.Name, r.Target = "d2", "web-1", access.Target{UID: "u9"}
		},
			"", access.StateGranted, ""},
		"granted, another namespace": {hour, func(r *approval.Redemption) { r.Digest, r.Action.Namespace = "d2", "prod" },
			access.Denied, access.StateGranted, "outside of that"},
		"granted, another verb": {hour, func(r *approval.Redemption) { r.Digest, r.Action.Verb = "d2", "deletecollection" },
			access.Denied, access.StateGranted, "outside of that"},
		"granted, another run": {hour, func(r *approval.Redemption) { r.Principal.Run = nil },
			access.Denied, access.StateGranted, "is another's"},
		"granted, another rule for another request": {hour, func(r *approval.Redemption) { r.Digest, r.Decision.Rule = "d2", "x" },
			access.Denied, access.StateGranted, "outside of that"},
		"granted, another rule": {hour, func(r *approval.Redemption) { r.Decision.Rule = "x" },
			access.Denied, access.StateWithdrawn, "the policy changed"},
		"granted, another tier": {hour, func(r *approval.Redemption) { r.Digest, r.Decision.Tier = "d2", "admin" },
			access.Denied, access.StateWithdrawn, "the policy changed"},
		"granted, denied today": {hour, func(r *approval.Redemption) { r.Digest, r.Decision.Effect = "d2", access.Deny },
			access.Denied, access.StateWithdrawn, "the policy changed"},
		"granted, less today": {hour, func(r *approval.Redemption) { r.Decision.Obligations.Grant = namespace(time.Minute) },
			access.Denied, access.StateWithdrawn, "does not let a reviewer give so much"},
		"granted, and changed since": {hour, func(r *approval.Redemption) { r.Target.Generation++ }, "", access.StateGranted, ""},

		"an object":                    {object(time.Hour), func(*approval.Redemption) {}, "", access.StateGranted, ""},
		"an object, and changed since": {object(time.Hour), func(r *approval.Redemption) { r.Digest = "d2"; r.Target.Generation++ }, "", access.StateGranted, ""},
		"an object, another name": {object(time.Hour), func(r *approval.Redemption) { r.Digest, r.Action.Name = "d2", "web-1" },
			access.Denied, access.StateGranted, "outside of that"},
		"an object, another of the name": {object(time.Hour), func(r *approval.Redemption) { r.Digest, r.Target.UID = "d2", "u2" },
			access.Conflict, access.StateWithdrawn, "another one of the same name"},
		"an object, gone": {object(time.Hour), func(r *approval.Redemption) { r.Digest, r.Target = "d2", access.Target{} },
			access.Conflict, access.StateWithdrawn, "not there any more"},
	} {
		a := approved(t, test.grant)
		r := redemption(a)
		test.change(&r)
		err := approval.Redeem(&a, r, now)
		if test.kind == "" {
			if err != nil || len(a.Uses) != 1 || a.Uses[0] != (access.Use{Request: "r1", At: now}) {
				t.Errorf("%s: %v, uses %v", name, err, a.Uses)
			}
		} else {
			if len(a.Uses) != 0 {
				t.Errorf("%s: it passed", name)
			}
			t.Run(name, func(t *testing.T) { kind(t, err, test.kind, test.says) })
		}
		if a.State != test.state {
			t.Errorf("%s: it is %s, want %s", name, a.State, test.state)
		}
		if test.state == access.StateWithdrawn {
			state(t, a, now, access.StateWithdrawn, test.says, "again")
			if !a.Ended.Equal(now) || last(a).What != "withdrawn" {
				t.Errorf("%s: %+v", name, last(a))
			}
			// What changed back is withdrawn all the same.
			if err := approval.Redeem(&a, redemption(approved(t, test.grant)), now); err == nil {
				t.Errorf("%s: passes when it is as it was", name)
			}
		}
	}
}

func TestRedeemTwice(t *testing.T) {
	now := opened.Add(2 * time.Minute)
	a := spent(t, now)
	if a.State != access.StateSpent || !a.Ended.Equal(now) || last(a).What != "spent" {
		t.Errorf("got %+v", a)
	}
	for i := range 3 {
		r := redemption(a)
		r.Use.Request = fmt.Sprint("r", i) // the one that passed among them: it cannot pass again
		kind(t, approval.Redeem(&a, r, now), access.Conflict, "is being used by request r1")
	}
	approval.Outcome(&a, "r1", 200, now)
	kind(t, approval.Redeem(&a, redemption(a), now), access.Conflict, "used by request r1, which was answered 200")
	if len(a.Uses) != 1 {
		t.Errorf("%d uses", len(a.Uses))
	}
	pending := ask()
	kind(t, approval.Redeem(&pending, redemption(pending), now), access.Conflict, "waiting for sre")
	denied := ask()
	if err := approval.Vote(&denied, roster, no("ana@example.com", "no way"), now); err != nil {
		t.Fatal(err)
	}
	kind(t, approval.Redeem(&denied, redemption(denied), now), access.Denied, "ana@example.com said no: no way")
}

// What did not exist and still does not is as it was; what appeared is not.
func TestRedeemNothing(t *testing.T) {
	now := opened.Add(2 * time.Minute)
	nothing := func(g access.Grant) access.Approval {
		a := ask(func(in *approval.Ask) { in.Target = access.Target{} })
		if err := approval.Vote(&a, roster, yes("ana@example.com", g), opened); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := nothing(once)
	appeared := redemption(a)
	appeared.Target = access.Target{UID: "u1", Generation: 1}
	b := nothing(once)
	if err := approval.Redeem(&a, redemption(a), now); err != nil {
		t.Error(err)
	}
	kind(t, approval.Redeem(&b, appeared, now), access.Conflict, "was not there when this was approved")
	// A grant may make its object, and go on with it.
	c := nothing(object(time.Hour))
	if err := approval.Redeem(&c, appeared, now); err != nil {
		t.Error(err)
	}
}

func TestCovers(t *testing.T) {
	now := opened.Add(2 * time.Minute)
	for name, test := range map[string]struct {
		change            func(*access.Action)
		object, namespace bool
	}{
		"the request":         {func(*access.Action) {}, true, true},
		"another version":     {func(a *access.Action) { a.Version = "v2" }, true, true},
		"another name":        {func(a *access.Action) { a.Name = "web-1" }, false, true},
		"another case":        {func(a *access.Action) { a.Name = "WEB-0" }, false, true},
		"no name":             {func(a *access.Action) { a.Name = "" }, false, true},
		"another verb":        {func(a *access.Action) { a.Verb = "patch" }, false, false},
		"a collection":        {func(a *access.Action) { a.Verb, a.Name = "deletecollection", "" }, false, false},
		"another group":       {func(a *access.Action) { a.Group = "apps" }, false, false},
		"another resource":    {func(a *access.Action) { a.Resource = "services" }, false, false},
		"another subresource": {func(a *access.Action) { a.Subresource = "eviction" }, false, false},
		"another namespace":   {func(a *access.Action) { a.Namespace = "prod" }, false, false},
		"all namespaces":      {func(a *access.Action) { a.Namespace = "" }, false, false},
		"no resource":         {func(a *access.Action) { a.Resourceless = true }, false, false},
		"tried only":          {func(a *access.Action) { a.DryRun = true }, true, true},
	} {
		for g, want := range map[access.Grant]bool{object(time.Hour): test.object, hour: test.namespace, once: false} {
			a := approved(t, g)
			act := a.Action
			test.change(&act)
			if got := approval.Covers(a, a.Principal, "dev", act, "deletes", now); got != want {
				t.Errorf("%s, %s: %v, want %v", name, g.Scope, got, want)
			}
		}
	}
	a := approved(t, hour)
	other := a.Principal
	other.Run = nil
	if approval.Covers(a, other, "dev", a.Action, "deletes", now) || approval.Covers(a, a.Principal, "prod", a.Action, "deletes", now) ||
		approval.Covers(a, a.Principal, "dev", a.Action, "default", now) {
		t.Error("covers another principal, cluster or rule")
	}
	tried := ask(func(in *approval.Ask) { in.Action.DryRun = true })
	if err := approval.Vote(&tried, roster, yes("ana@example.com", hour), opened); err != nil {
		t.Fatal(err)
	}
	act := tried.Action
	act.DryRun = false
	if approval.Covers(tried, tried.Principal, "dev", act, "deletes", now) {
		t.Error("who let it be tried has let it be done")
	}
	if p := ask(); approval.Covers(p, p.Principal, "dev", p.Action, "deletes", now) {
		t.Error("a question covers")
	}
}

func TestWords(t *testing.T) {
	a := ask()
	scaled := ask(func(in *approval.Ask) {
		in.Action = access.Action{Verb: "patch", Group: "apps", Resource: "deployments", Subresource: "scale", Name: "web"}
	})
	for want, got := range map[string]string{
		"this request, once":                              approval.Words(once, a),
		"delete on pods web-0 in dev for 30m":             approval.Words(object(30*time.Minute), a),
		"delete on all pods in dev for 1h30m":             approval.Words(namespace(90*time.Minute), a),
		"patch on deployments.apps/scale web for 1h0m10s": approval.Words(object(time.Hour+10*time.Second), scaled),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
