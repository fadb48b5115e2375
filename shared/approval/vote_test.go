package approval_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/approval"
)

// Who asked, and who answers for the agent, never decide, by whatever name, alias, spelling or channel they come; nor does
// anybody who is no reviewer today.
func TestWhoMayNotVote(t *testing.T) {
	who := func(change func(*access.Principal)) func(*approval.Ask) {
		return func(in *approval.Ask) { change(&in.Principal) }
	}
	ana := yes("ana@example.com").By
	with := func(change func(*access.Reviewer)) access.Reviewer {
		by := ana
		change(&by)
		return by
	}
	requester, owner, stranger := "nobody answers their own question", "the owner of an agent does not approve", "is not a reviewer of sre by the policy in force"
	for name, test := range map[string]struct {
		ask   func(*approval.Ask)
		by    access.Reviewer
		known []string
		says  string
	}{
		"the requester, by issuer and subject": {
			who(func(p *access.Principal) { p.Subject = "00u1" }),
			with(func(by *access.Reviewer) { by.Issuer, by.Subject = "https://ci.example.com", "00u1" }), nil, requester},
		"the requester, by a subject that is an alias": {
			who(func(p *access.Principal) { p.Subject = "svc+1@corp.example.com" }),
			with(func(by *access.Reviewer) { by.Issuer, by.Subject = "https://ci.example.com", "svc+1@corp.example.com" }), nil, requester},
		"the requester, whose subject is the address":  {who(func(p *access.Principal) { p.Subject = "ana@example.com" }), ana, nil, requester},
		"the requester, whose agent is the address":    {who(func(p *access.Principal) { p.Agent = "ANA@Example.COM" }), ana, nil, requester},
		"the requester, whose agent is the local part": {who(func(p *access.Principal) { p.Agent = "Ana" }), ana, nil, requester},
		"the requester, spelled otherwise":             {who(func(p *access.Principal) { p.Subject = "ana@example.com" }), with(func(by *access.Reviewer) { by.Email = " ANA@example.com " }), nil, requester},
		"the requester, by an alias":                   {who(func(p *access.Principal) { p.Subject = "ana+bot@example.com" }), ana, nil, requester},
		"the requester, in Slack":                      {who(func(p *access.Principal) { p.Subject = "ana@example.com" }), with(func(by *access.Reviewer) { by.Slack, by.Channel = "T1/U1", "slack" }), nil, requester},
		"the requester, by mail":                       {who(func(p *access.Principal) { p.Subject = "ana@example.com" }), with(func(by *access.Reviewer) { by.Issuer, by.Channel = "https://x", "mail" }), nil, requester},
		"the requester, in Slack, by an address their subject was seen with": {
			who(func(p *access.Principal) { p.Subject = "00u1" }), with(func(by *access.Reviewer) { by.Slack, by.Channel = "T1/U1", "slack" }), []string{"Ana@example.com"}, requester},
		"the owner, by the address":        {who(func(p *access.Principal) { p.Owner = "ana@example.com" }), ana, nil, owner},
		"the owner, in capitals":           {who(func(p *access.Principal) { p.Owner = "ANA@EXAMPLE.COM" }), ana, nil, owner},
		"the owner, by the local part":     {who(func(p *access.Principal) { p.Owner = "Ana" }), ana, nil, owner},
		"the owner, by an alias":           {who(func(p *access.Principal) { p.Owner = "ana+ci@example.com" }), ana, nil, owner},
		"the owner, by subject":            {who(func(p *access.Principal) { p.Owner = "00U1" }), with(func(by *access.Reviewer) { by.Issuer, by.Subject = "https://login.example.com", "00u1" }), nil, owner},
		"the owner, in Slack":              {who(func(p *access.Principal) { p.Owner = "ana" }), with(func(by *access.Reviewer) { by.Slack, by.Channel = "T1/U1", "slack" }), nil, owner},
		"somebody of no group":             {nil, with(func(by *access.Reviewer) { by.Email = "eve@example.com" }), nil, stranger},
		"somebody of another group":        {nil, with(func(by *access.Reviewer) { by.Email = "lea@example.com" }), nil, stranger},
		"an alias that is in no group":     {nil, with(func(by *access.Reviewer) { by.Email = "ana+x@example.com" }), nil, stranger},
		"a look-alike":                     {nil, with(func(by *access.Reviewer) { by.Email = "аna@example.com" }), nil, stranger}, // Cyrillic а
		"another domain":                   {nil, with(func(by *access.Reviewer) { by.Email = "ana@example.com.evil.net" }), nil, stranger},
		"nobody":                           {nil, access.Reviewer{Channel: "page"}, nil, stranger},
		"somebody by the link of a mail":   {nil, with(func(by *access.Reviewer) { by.Channel = "mail" }), nil, "log in"},
		"an agent with an empty name only": {who(func(p *access.Principal) { p.Agent, p.Owner, p.Subject = "", "", "" }), access.Reviewer{Email: "eve@example.com", Channel: "page"}, nil, stranger},
	} {
		for _, vote := range []bool{true, false} {
			var change []func(*approval.Ask)
			if test.ask != nil {
				change = append(change, test.ask)
			}
			a := ask(change...)
			err := approval.Vote(&a, roster, access.Vote{By: test.by, Yes: vote}, opened, test.known...)
			if access.KindOf(err) != access.Denied || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: got %v, want one that says %q", name, err, test.says)
			}
			if a.State != access.StatePending || len(a.Votes) != 0 {
				t.Errorf("%s: counts", name)
			}
			if h := last(a); h.What != "refused" || h.Text != err.Error() {
				t.Errorf("%s: the history says %+v", name, h)
			}
			if test.says != requester && test.says != owner {
				continue
			}
			if people := roster.Eligible(a, test.known...); test.by.Subject == "" && strings.Contains(strings.Join(people, " "), "ana@") {
				t.Errorf("%s: may answer: %v", name, people)
			}
		}
	}
}

func TestWhoMayVote(t *testing.T) {
	for name, by := range map[string]access.Reviewer{
		"page":                         {Email: "ana@example.com", Issuer: "https://login.example.com", Subject: "00u1", Channel: "page"},
		"cli":                          {Email: "ana@example.com", Issuer: "https://login.example.com", Subject: "00u1", Channel: "cli"},
		"slack":                        {Email: "ana@example.com", Slack: "T1/U1", Channel: "slack"},
		"capitals":                     {Email: "Ana@EXAMPLE.com", Channel: "page"},
		"capitals in the policy":       {Email: "ben@example.com", Channel: "page"},
		"the link of a mail and login": {Email: "ana@example.com", Issuer: "https://login.example.com", Subject: "00u1", Channel: "mail"},
		"another subject of the requester's issuer": {Email: "ana@example.com", Issuer: "https://ci.example.com", Subject: "00u1", Channel: "page"},
	} {
		a := ask()
		if err := approval.Vote(&a, roster, access.Vote{By: by, Yes: true}, opened); err != nil || a.State != access.StateApproved {
			t.Errorf("%s: %s, %v", name, a.State, err)
		}
		if got := a.Votes[0].By.Email; got != strings.ToLower(got) || !a.Votes[0].At.Equal(opened) {
			t.Errorf("%s: %+v", name, a.Votes[0])
		}
	}
	alone := ask(func(in *approval.Ask) { in.Decision.Obligations.Links = "alone" })
	if err := approval.Vote(&alone, roster, access.Vote{By: access.Reviewer{Email: "ana@example.com", Channel: "mail"}, Yes: true}, opened); err != nil {
		t.Error(err)
	}
}

// A group's people count when they come as the group wants, and not by what proves them to another.
func TestProof(t *testing.T) {
	proven := approval.Roster{
		{Name: "leads", Issuer: "https://other.example.com", Audience: "leads", People: []string{"ana@example.com"}, Slack: map[string]string{"T2/U2": "ana@example.com"}},
		{Name: "sre", Issuer: "https://login.example.com", Audience: "reviews", People: []string{"ana@example.com", "ben@example.com"}, Slack: map[string]string{"T1/U1": "Ana@example.com"}},
	}
	for name, test := range map[string]struct {
		by access.Reviewer
		ok bool
	}{
		"its issuer and audience":            {access.Reviewer{Issuer: "https://login.example.com", Audience: "reviews", Channel: "page"}, true},
		"another issuer":                     {access.Reviewer{Issuer: "https://ci.example.com", Audience: "reviews", Channel: "page"}, false},
		"another audience":                   {access.Reviewer{Issuer: "https://login.example.com", Audience: "sallyport", Channel: "page"}, false},
		"no audience":                        {access.Reviewer{Issuer: "https://login.example.com", Channel: "page"}, false},
		"the proof of another group":         {access.Reviewer{Issuer: "https://other.example.com", Audience: "leads", Channel: "page"}, false},
		"enrolled in Slack":                  {access.Reviewer{Slack: "T1/U1", Channel: "slack"}, true},
		"enrolled in Slack for others":       {access.Reviewer{Slack: "T2/U2", Channel: "slack"}, false},
		"the same user of another workspace": {access.Reviewer{Slack: "T9/U1", Channel: "slack"}, false},
		"no proof at all":                    {access.Reviewer{Channel: "page"}, false},
		"a mail link":                        {access.Reviewer{Channel: "mail"}, true},
	} {
		a := ask(func(in *approval.Ask) { in.Decision.Obligations.Links = "alone" })
		test.by.Email = "ana@example.com"
		err := approval.Vote(&a, proven, access.Vote{By: test.by, Yes: true}, opened)
		if (err == nil) != test.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
	a := ask()
	kind(t, approval.Vote(&a, proven, access.Vote{By: access.Reviewer{Email: "ben@example.com", Slack: "T1/U1", Channel: "slack"}, Yes: true}, opened), access.Denied)
}

func TestQuorum(t *testing.T) {
	two := func(in *approval.Ask) { in.Decision.Obligations.Quorum = 2 }
	a := ask(two)
	if err := approval.Vote(&a, roster, yes("ana@example.com"), opened); err != nil || a.State != access.StatePending {
		t.Fatal(a.State, err)
	}
	state(t, a, opened, access.StatePending, "2 people of sre (1 said yes)")
	// One person is one vote, however they come a second time.
	for name, by := range map[string]access.Reviewer{
		"again":               {Email: "ana@example.com", Channel: "page"},
		"in another spelling": {Email: "ANA@example.com", Channel: "page"},
		"in another channel":  {Email: "ana@example.com", Slack: "T1/U1", Channel: "slack"},
	} {
		kind(t, approval.Vote(&a, roster, access.Vote{By: by, Yes: true}, opened), access.Conflict, "has answered already")
		if len(a.Votes) != 1 || a.State != access.StatePending {
			t.Errorf("%s: counts", name)
		}
	}
	kind(t, approval.Vote(&a, roster, no("ana@example.com", "I changed my mind"), opened), access.Conflict)
	if d := cmp.Diff([]string{"ben@example.com", "chi@example.com"}, roster.Eligible(a)); d != "" {
		t.Error(d)
	}
	if err := approval.Vote(&a, roster, yes("ben@example.com"), opened.Add(time.Minute)); err != nil || a.State != access.StateApproved {
		t.Errorf("%s, %v", a.State, err)
	}
	if h := last(a); h.What != "approved" || h.By != "ana@example.com and ben@example.com" {
		t.Errorf("the history says %+v", h)
	}

	// Two addresses of one person, and two people of one account, are one.
	aliases := approval.Roster{{Name: "sre", People: []string{"ana@example.com", "ana+2@example.com", "ana.b@example.com"}}}
	a = ask(two)
	if d := cmp.Diff([]string{"ana@example.com", "ana.b@example.com"}, aliases.Eligible(a)); d != "" {
		t.Error(d)
	}
	first := access.Vote{By: access.Reviewer{Email: "ana@example.com", Issuer: "https://i", Subject: "1", Channel: "page"}, Yes: true}
	if err := approval.Vote(&a, aliases, first, opened); err != nil {
		t.Fatal(err)
	}
	kind(t, approval.Vote(&a, aliases, yes("ana+2@example.com"), opened), access.Conflict)
	kind(t, approval.Vote(&a, aliases, access.Vote{By: access.Reviewer{Email: "ana.b@example.com", Issuer: "https://i", Subject: "1", Channel: "cli"}, Yes: true}, opened), access.Conflict)

	a = ask(two)
	slack := access.Reviewer{Email: "ana@example.com", Slack: "T1/U1", Channel: "slack"}
	if err := approval.Vote(&a, aliases, access.Vote{By: slack, Yes: true}, opened); err != nil {
		t.Fatal(err)
	}
	slack.Email = "ana.b@example.com"
	kind(t, approval.Vote(&a, aliases, access.Vote{By: slack, Yes: true}, opened), access.Conflict)

	// Somebody who turns out to be the requester after they said yes.
	a = ask(two)
	if err := approval.Vote(&a, roster, yes("ana@example.com"), opened); err != nil {
		t.Fatal(err)
	}
	if err := approval.Vote(&a, roster, yes("ben@example.com"), opened, "ana@example.com"); err != nil || a.State != access.StatePending {
		t.Errorf("%s, %v: the requester's yes counts", a.State, err)
	}

	// One no denies, whatever others said.
	a = ask(two)
	if err := approval.Vote(&a, roster, yes("ana@example.com"), opened); err != nil {
		t.Fatal(err)
	}
	if err := approval.Vote(&a, roster, no("ben@example.com", "not on a Friday"), opened.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	state(t, a, opened.Add(time.Minute), access.StateDenied, "ben@example.com said no: not on a Friday")
	if !a.Ended.Equal(opened.Add(time.Minute)) || !a.Until.IsZero() || a.Grant != (access.Grant{}) {
		t.Errorf("got %+v", a)
	}
	kind(t, approval.Vote(&a, roster, yes("chi@example.com"), opened.Add(time.Minute)), access.Conflict, "denied", "not on a Friday")
	a = ask()
	if err := approval.Vote(&a, roster, access.Vote{By: yes("ben@example.com").By, Grant: hour}, opened); err != nil {
		t.Fatal(err)
	}
	state(t, a, opened, access.StateDenied, "ben@example.com said no")
	if a.Votes[0].Grant != (access.Grant{}) {
		t.Error("a no gives")
	}
}

// By today's policy: who left the group does not vote, and their yes of before does not count toward the quorum.
func TestRosterOfToday(t *testing.T) {
	without := approval.Roster{{Name: "sre", People: []string{"ben@example.com", "chi@example.com"}}}
	a := ask()
	kind(t, approval.Vote(&a, without, yes("ana@example.com"), opened), access.Denied, "not a reviewer of sre")
	kind(t, approval.Vote(&a, approval.Roster{}, yes("ben@example.com"), opened), access.Denied)
	if people := (approval.Roster{}).Eligible(a); len(people) != 0 {
		t.Errorf("got %v", people)
	}

	a = ask(func(in *approval.Ask) { in.Decision.Obligations.Quorum = 2 })
	if err := approval.Vote(&a, roster, yes("ana@example.com"), opened); err != nil {
		t.Fatal(err)
	}
	if err := approval.Vote(&a, without, yes("ben@example.com"), opened); err != nil || a.State != access.StatePending {
		t.Errorf("%s, %v: the yes of one who left counts", a.State, err)
	}
	if err := approval.Vote(&a, without, yes("chi@example.com"), opened); err != nil || a.State != access.StateApproved {
		t.Errorf("%s, %v", a.State, err)
	}
}

// What is given is the narrowest of what each would give.
func TestNarrowest(t *testing.T) {
	for _, test := range []struct{ ana, ben, want access.Grant }{
		{once, once, once},
		{access.Grant{}, hour, once},
		{hour, once, once},
		{object(time.Hour), once, once},
		{object(15 * time.Minute), namespace(time.Hour), object(15 * time.Minute)},
		{object(time.Hour), namespace(15 * time.Minute), object(15 * time.Minute)},
		{namespace(30 * time.Minute), namespace(15 * time.Minute), namespace(15 * time.Minute)},
		{hour, hour, hour},
	} {
		for _, votes := range [][2]access.Grant{{test.ana, test.ben}, {test.ben, test.ana}} {
			a := ask(func(in *approval.Ask) { in.Decision.Obligations.Quorum = 2 })
			for i, who := range []string{"ana@example.com", "ben@example.com"} {
				if err := approval.Vote(&a, roster, yes(who, votes[i]), opened.Add(time.Duration(i)*time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			if a.Grant != test.want {
				t.Errorf("%v: got %v, want %v", votes, a.Grant, test.want)
			}
			// The time runs from when it was approved.
			if want := opened.Add(time.Minute + test.want.Length); test.want.Length > 0 && (a.State != access.StateGranted || !a.Until.Equal(want)) {
				t.Errorf("%v: %s until %v, want %v", votes, a.State, a.Until, want)
			}
			if test.want == once && (a.State != access.StateApproved || !a.Until.IsZero()) {
				t.Errorf("%v: %s until %v", votes, a.State, a.Until)
			}
		}
	}
}

// A reviewer gives no more than the rule lets them.
func TestMost(t *testing.T) {
	narrow := func(g access.Grant) func(*approval.Ask) {
		return func(in *approval.Ask) { in.Decision.Obligations.Grant = g }
	}
	for name, test := range map[string]struct {
		ask func(*approval.Ask)
		g   access.Grant
		ok  bool
	}{
		"the most":                        {narrow(hour), hour, true},
		"less":                            {narrow(hour), object(time.Minute), true},
		"once":                            {narrow(once), once, true},
		"longer":                          {narrow(hour), namespace(time.Hour + 1), false},
		"wider":                           {narrow(object(time.Hour)), namespace(time.Minute), false},
		"a scope where there is none":     {narrow(once), object(time.Minute), false},
		"no length":                       {narrow(hour), namespace(0), false},
		"less than no length":             {narrow(hour), namespace(-time.Hour), false},
		"once, with a length":             {narrow(hour), access.Grant{Scope: access.ScopeRequest, Length: time.Hour}, false},
		"a scope nobody knows":            {narrow(hour), access.Grant{Scope: "cluster", Length: time.Minute}, false},
		"an object where none is named":   {func(in *approval.Ask) { in.Action.Name = ""; in.Action.Namespace = "" }, object(time.Minute), false},
		"a namespace where there is none": {func(in *approval.Ask) { in.Action.Namespace = "" }, namespace(time.Minute), false},
	} {
		a := ask(test.ask)
		err := approval.Vote(&a, roster, yes("ana@example.com", test.g), opened)
		if (err == nil) != test.ok || err != nil && access.KindOf(err) != access.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
		if !test.ok && (a.State != access.StatePending || len(a.Votes) != 0) {
			t.Errorf("%s: counts", name)
		}
	}
	long := no("ana@example.com", strings.Repeat("é", approval.MaxReason+1))
	a := ask()
	kind(t, approval.Vote(&a, roster, long, opened), access.Invalid, "1000")
	long.Reason = strings.Repeat("é", approval.MaxReason)
	if err := approval.Vote(&a, roster, long, opened); err != nil {
		t.Error(err)
	}
}

func TestChoices(t *testing.T) {
	min := time.Minute
	for name, test := range map[string]struct {
		a    access.Approval
		want []access.Grant
	}{
		"namespace": {ask(), []access.Grant{once, object(15 * min), object(30 * min), object(60 * min), namespace(15 * min), namespace(30 * min), namespace(60 * min)}},
		"object": {ask(func(in *approval.Ask) { in.Decision.Obligations.Grant = object(20 * min) }),
			[]access.Grant{once, object(15 * min), object(20 * min)}},
		"short":        {ask(func(in *approval.Ask) { in.Decision.Obligations.Grant = object(5 * min) }), []access.Grant{once, object(5 * min)}},
		"once":         {ask(func(in *approval.Ask) { in.Decision.Obligations.Grant = once }), []access.Grant{once}},
		"no name":      {ask(func(in *approval.Ask) { in.Action.Name = ""; in.Decision.Obligations.Grant = namespace(15 * min) }), []access.Grant{once, namespace(15 * min)}},
		"no namespace": {ask(func(in *approval.Ask) { in.Action.Namespace = ""; in.Decision.Obligations.Grant = namespace(15 * min) }), []access.Grant{once, object(15 * min)}},
	} {
		got := approval.Choices(test.a)
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		for _, g := range got {
			a := test.a
			if err := approval.Vote(&a, roster, yes("ana@example.com", g), opened); err != nil {
				t.Errorf("%s: offered and refused: %v", name, err)
			}
		}
	}
}

func TestRevoke(t *testing.T) {
	later := opened.Add(2 * time.Minute)
	for name, g := range map[string]access.Grant{"a grant": hour, "a yes that is not used": once} {
		a := approved(t, g)
		kind(t, approval.Revoke(&a, roster, access.Reviewer{Email: "eve@example.com", Channel: "page"}, "", later), access.Denied, "not a reviewer")
		if last(a).What != "refused" {
			t.Errorf("%s: the history says %+v", name, last(a))
		}
		kind(t, approval.Revoke(&a, roster, yes("ana@example.com").By, strings.Repeat("x", 1001), later), access.Invalid)
		if approval.Covers(a, a.Principal, a.Cluster, a.Action, "deletes", later) != (g == hour) {
			t.Errorf("%s: covered", name)
		}
		if err := approval.Revoke(&a, roster, access.Reviewer{Email: "BEN@example.com", Channel: "cli"}, "wrong pod", later); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		state(t, a, later, access.StateRevoked, "ben@example.com took it back: wrong pod")
		if !a.Ended.Equal(later) || last(a).What != "revoked" {
			t.Errorf("%s: %+v", name, a)
		}
		kind(t, approval.Redeem(&a, redemption(a), later), access.Denied, "took it back")
		if approval.Covers(a, a.Principal, a.Cluster, a.Action, "deletes", later) || len(a.Uses) != 0 {
			t.Errorf("%s: passes after it was revoked", name)
		}
	}
	pending := ask()
	kind(t, approval.Revoke(&pending, roster, yes("ana@example.com").By, "", later), access.Conflict, "nothing to take back")
	over := approved(t, hour)
	kind(t, approval.Revoke(&over, roster, yes("ana@example.com").By, "", over.Until), access.Conflict)
	// Taking back gives nobody anything: the owner may, when they are a reviewer.
	owned := approved(t, hour)
	owned.Principal.Owner = "chi@example.com"
	if err := approval.Revoke(&owned, roster, yes("chi@example.com").By, "", later); err != nil {
		t.Error(err)
	}
}
