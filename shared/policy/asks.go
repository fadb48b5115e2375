package policy

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"sallyport/shared/access"
)

// A ReviewerGroup is a list of people, known by one issuer, who may answer what a rule asks.
type ReviewerGroup struct {
	Name     string   `json:"name"`
	Issuer   string   `json:"issuer"`   // whose tokens prove who they are
	Audience string   `json:"audience"` // what those tokens carry as aud
	People   []string `json:"people"`   // their verified e-mail addresses
	// Slack is where the group is asked there; nil for nowhere.
	Slack *ReviewerSlack `json:"slack,omitempty"`
}

// A ReviewerSlack is a group's channel in Slack, and who of the group is who there.
type ReviewerSlack struct {
	Team    string `json:"team"`    // the workspace's id, T…
	Channel string `json:"channel"` // the channel's id, C…
	// Users are the people who may answer in Slack: user id, U… or W…, to e-mail address of the group's people.
	Users map[string]string `json:"users,omitempty"`
}

type grantFile struct {
	at     marks
	Scope  string `yaml:"scope"`
	Length string `yaml:"length"`
}

type escalateFile struct {
	at        marks
	After     string   `yaml:"after"`
	Reviewers []string `yaml:"reviewers"`
}

type asksFile struct {
	at        marks
	Tier      string       `yaml:"tier"`
	Reviewers []string     `yaml:"reviewers"`
	Quorum    int          `yaml:"quorum"`
	Expires   string       `yaml:"expires"`
	Remind    string       `yaml:"remind"`
	Escalate  escalateFile `yaml:"escalate"`
	Links     string       `yaml:"links"`
	Grant     grantFile    `yaml:"grant"`
}

type reviewerFile struct {
	at       marks
	Name     string    `yaml:"name"`
	Issuer   string    `yaml:"issuer"`
	Audience string    `yaml:"audience"`
	People   []string  `yaml:"people"`
	Slack    slackFile `yaml:"slack"`
}

type slackFile struct {
	at      marks
	Team    string            `yaml:"team"`
	Channel string            `yaml:"channel"`
	Users   map[string]string `yaml:"users"`
}

// Bounds of what an ask may say. A question that stands for more than a day is about another cluster than the one that
// was asked about.
const (
	defaultExpires  = 15 * time.Minute
	shortestExpires = time.Minute
	longestExpires  = 24 * time.Hour
	shortestWait    = 5 * time.Second // until a reminder or an escalation
)

// What Slack calls its workspaces, channels and people.
var (
	slackTeamRE    = regexp.MustCompile(`^[TE][A-Z0-9]{2,20}$`)
	slackChannelRE = regexp.MustCompile(`^[CG][A-Z0-9]{2,20}$`)
	slackUserRE    = regexp.MustCompile(`^[UW][A-Z0-9]{2,20}$`)
)

var mailRE = regexp.MustCompile(`^[^@\s<>,;"]+@[^@\s<>,;"]+$`)

func (f reviewerFile) group(c *checker) (ReviewerGroup, *fault) {
	g := ReviewerGroup{Name: f.Name, Issuer: f.Issuer, Audience: f.Audience, People: f.People}
	_, twice := c.people[f.Name]
	switch {
	case !nameRE.MatchString(f.Name):
		return g, faultf(f.at.of("name"), "reviewers: name %q: lower-case letters, digits and hyphens are wanted", f.Name)
	case twice:
		return g, faultf(f.at.of("name"), "reviewers %q: named twice", f.Name)
	case f.Audience == "":
		return g, faultf(f.at.of("audience"), "reviewers %q: audience is missing: name what their tokens carry as aud, such as audience: sallyport-reviews", f.Name)
	case f.Audience == c.p.Audience:
		return g, faultf(f.at.of("audience"), "reviewers %q: audience %q is the gate's, so a token that an agent uses could answer; write another, such as %s-reviews", f.Name, f.Audience, f.Audience)
	case len(f.People) == 0:
		return g, faultf(f.at.of("people"), "reviewers %q: people is empty, so nobody could answer; name at least one e-mail address", f.Name)
	}
	if err := checkURL(f.Issuer); err != nil {
		return g, faultf(f.at.of("issuer"), "reviewers %q: issuer: %w", f.Name, err)
	}
	for i, who := range f.People {
		if !mailRE.MatchString(who) {
			return g, faultf(f.at.of("people"), "reviewers %q: people: %q is no e-mail address; write one as their token's email has it", f.Name, who)
		}
		if slices.ContainsFunc(f.People[:i], func(other string) bool { return strings.EqualFold(who, other) }) {
			return g, faultf(f.at.of("people"), "reviewers %q: people: %q is named twice, and would not count twice", f.Name, who)
		}
	}
	if f.at.has("slack") {
		bad := f.Slack.check(g.People)
		if bad != nil {
			return g, faultf(bad.line, "reviewers %q: slack: %w", f.Name, bad.err)
		}
		g.Slack = &ReviewerSlack{Team: f.Slack.Team, Channel: f.Slack.Channel, Users: f.Slack.Users}
	}
	return g, nil
}

// check holds that a user of Slack is one person of the group and a person at most one user: who could answer as two would
// count twice.
func (f slackFile) check(people []string) *fault {
	switch {
	case !slackTeamRE.MatchString(f.Team):
		return faultf(f.at.of("team"), "team %q: write the workspace's id, such as T0123456789", f.Team)
	case !slackChannelRE.MatchString(f.Channel):
		return faultf(f.at.of("channel"), "channel %q: write the channel's id, such as C0123456789, and not its name", f.Channel)
	}
	seen := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(f.Users)) {
		who := f.Users[id]
		switch {
		case !slackUserRE.MatchString(id):
			return faultf(f.at.of("users"), "users: %q is no user id such as U0123456789", id)
		case !slices.ContainsFunc(people, func(p string) bool { return strings.EqualFold(p, who) }):
			return faultf(f.at.of("users"), "users: %s is %q, who is not among the group's people; add them there first", id, who)
		case seen[strings.ToLower(who)]:
			return faultf(f.at.of("users"), "users: %q has two user ids; one person is one user", who)
		}
		seen[strings.ToLower(who)] = true
	}
	return nil
}

type askFields struct {
	tier      string
	reviewers []string
	quorum    int
	expires   string
	remind    string
	escalate  escalateFile
	links     string
	grant     grantFile
}

// ask checks what an ask says and puts it over what o holds.
func (c *checker) ask(at marks, f askFields, o *access.Obligations) *fault {
	if at.has("tier") {
		if !slices.Contains(c.tiers, f.tier) {
			return faultf(at.of("tier"), "tier: there is no tier %q%s", f.tier, suggestOf("tiers", f.tier, c.tiers))
		}
		c.reached[f.tier] = true
	}
	if at.has("reviewers") {
		if len(f.reviewers) == 0 {
			return faultf(at.of("reviewers"), "reviewers: empty, so nobody could answer; name a group of reviewers")
		}
		for _, g := range f.reviewers {
			if _, there := c.people[g]; !there {
				return faultf(at.of("reviewers"), "reviewers: there is no group %q under reviewers%s", g, suggestOf("groups", g, c.groups))
			}
		}
		o.Reviewers = f.reviewers
	}
	if at.has("quorum") {
		if f.quorum < 1 {
			return faultf(at.of("quorum"), "quorum: %d; at least one person must say yes", f.quorum)
		}
		o.Quorum = f.quorum
	}
	if n := c.headcount(o.Reviewers); len(o.Reviewers) > 0 && o.Quorum > n {
		return faultf(at.of("quorum"), "quorum: %d, but %s has %d people; nobody could ever be let through", o.Quorum, strings.Join(o.Reviewers, " and "), n)
	}
	if at.has("expires") {
		d, err := length(f.expires, shortestExpires, longestExpires)
		if err != nil {
			return faultf(at.of("expires"), "expires: %w", err)
		}
		o.Expires = d
	}
	if bad := c.waits(at, f, o); bad != nil {
		return bad
	}
	if at.has("links") {
		if f.links != "login" && f.links != "alone" {
			return faultf(at.of("links"), "links: %q is neither login nor alone%s", f.links, meant(f.links, []string{"login", "alone"}))
		}
		o.Links = f.links
	}
	if at.has("grant") {
		g, bad := c.grant(f.grant)
		if bad != nil {
			return bad
		}
		o.Grant = g
	}
	return nil
}

// waits checks when reviewers are reminded and others asked as well. Both must come before the question is over, also when
// a rule shortens what asks says; and the reminder first.
func (c *checker) waits(at marks, f askFields, o *access.Obligations) *fault {
	if at.has("remind") {
		d, err := length(f.remind, shortestWait, longestExpires)
		if err != nil {
			return faultf(at.of("remind"), "remind: %w", err)
		}
		o.Remind = d
	}
	if at.has("escalate") {
		e := f.escalate
		d, err := length(e.After, shortestWait, longestExpires)
		if err != nil {
			return faultf(e.at.of("after"), "escalate: after: %w", err)
		}
		if len(e.Reviewers) == 0 {
			return faultf(e.at.of("reviewers"), "escalate: reviewers is empty; name the groups that may answer as well from then on")
		}
		for _, g := range e.Reviewers {
			if _, there := c.people[g]; !there {
				return faultf(e.at.of("reviewers"), "escalate: there is no group %q under reviewers%s", g, suggestOf("groups", g, c.groups))
			}
		}
		o.Escalate = access.Escalate{After: d, Reviewers: e.Reviewers}
	}
	switch {
	case o.Remind >= o.Expires && at.has("remind"):
		return faultf(at.of("remind"), "remind: %v is not before the question expires, after %v", o.Remind, o.Expires)
	case o.Escalate.After >= o.Expires && at.has("escalate"):
		return faultf(at.of("escalate"), "escalate: after %v is not before the question expires, after %v", o.Escalate.After, o.Expires)
	case o.Escalate.After > 0 && o.Remind >= o.Escalate.After && (at.has("escalate") || at.has("remind")):
		return faultf(at.of("escalate"), "escalate: after %v is not after the reminder, which comes after %v", o.Escalate.After, o.Remind)
	}
	// A rule that shortens the time asks gives leaves out what would come too late.
	if o.Remind >= o.Expires {
		o.Remind = 0
	}
	if o.Escalate.After >= o.Expires {
		o.Escalate = access.Escalate{}
	}
	return nil
}

// headcount is how many distinct people the groups have.
func (c *checker) headcount(groups []string) int {
	seen := map[string]bool{}
	for _, g := range groups {
		for _, who := range c.people[g] {
			seen[strings.ToLower(who)] = true
		}
	}
	return len(seen)
}

func (c *checker) grant(f grantFile) (access.Grant, *fault) {
	g := access.Grant{Scope: access.Scope(f.Scope)}
	switch g.Scope {
	case access.ScopeRequest:
		if f.at.has("length") {
			return g, faultf(f.at.of("length"), "grant: length: scope request is one request, once, and has no length; leave it out, or write scope: object")
		}
		return g, nil
	case access.ScopeObject, access.ScopeNamespace:
		if !f.at.has("length") {
			return g, faultf(f.at.begin, "grant: scope %s needs a length, such as length: 30m", g.Scope)
		}
		d, err := length(f.Length, shortestExpires, c.p.Sessions.Longest)
		if err != nil {
			return g, faultf(f.at.of("length"), "grant: length: %w", err)
		}
		g.Length = d
		return g, nil
	}
	return g, faultf(f.at.of("scope"), "grant: scope %q is not one of request, object, namespace%s", f.Scope, meant(f.Scope, []string{"request", "object", "namespace"}))
}

func length(s string, shortest, longest time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no duration; write one like 15m or 2h", s)
	case d < shortest || d > longest:
		return 0, fmt.Errorf("%s is not within %v and %v", s, shortest, longest)
	}
	return d, nil
}

func (c *checker) obliged(f ruleFile, r *Rule) *fault {
	if r.Effect != access.Ask {
		for _, field := range []string{"tier", "reviewers", "quorum", "expires", "remind", "escalate", "links", "grant"} {
			if f.at.has(field) {
				return faultf(f.at.of(field), "%s: only a rule that asks has it; this one says effect: %s", field, r.Effect)
			}
		}
	}
	if r.Effect == access.Deny {
		for _, field := range []string{"mask", "binary", "record"} {
			if f.at.has(field) {
				return faultf(f.at.of(field), "%s: what is denied has no answer to mask, block or record; it belongs to an allow or an ask", field)
			}
		}
		return nil
	}
	if f.at.has("mask") && f.Mask != "on" && f.Mask != "off" {
		return faultf(f.at.of("mask"), "mask: %q is neither on nor off", f.Mask)
	}
	if bad := binary(f); bad != nil {
		return bad
	}
	if f.at.has("record") && f.Record != "full" && f.Record != "metadata" {
		return faultf(f.at.of("record"), "record: %q is neither full nor metadata%s", f.Record, meant(f.Record, []string{"full", "metadata"}))
	}
	o := access.Obligations{}
	if r.Effect == access.Ask {
		o = c.given
		if bad := c.ask(f.at, askFields{f.Tier, f.Reviewers, f.Quorum, f.Expires, f.Remind, f.Escalate, f.Links, f.Grant}, &o); bad != nil {
			return bad
		}
		if len(o.Reviewers) == 0 {
			return faultf(f.at.begin, "reviewers is missing: it asks nobody; name a group of reviewers here or under asks")
		}
		r.Tier = cmp.Or(f.Tier, c.asks.Tier)
	}
	o.Mask, o.Binary, o.Record = cmp.Or(f.Mask, "on"), f.Binary, cmp.Or(f.Record, "full")
	r.Obligations = o
	return nil
}

// binary checks what a rule says of streams that are not text.
func binary(f ruleFile) *fault {
	switch at := f.at.of("binary"); {
	case !f.at.has("binary"):
		return nil
	case f.Binary != "pass" && f.Binary != "block":
		return faultf(at, "binary: %q is neither pass nor block%s", f.Binary, meant(f.Binary, []string{"pass", "block"}))
	case len(f.Verbs) > 0 && !slices.Contains(f.Verbs, "*") && !slices.ContainsFunc(f.Verbs, stream):
		return faultf(at, "binary: it is about what comes out of exec, attach and port-forward, none of which is among the verbs here; leave it out")
	case f.Binary == "pass":
		return nil
	case f.Mask == "off":
		return faultf(at, "binary: block is for who may see only what was looked at, and with mask: off nothing is; leave one of them out")
	case len(f.Verbs) == 1 && f.Verbs[0] == "portforward":
		return faultf(at, "binary: block leaves nothing of a port-forward, which is never looked at; write effect: deny")
	}
	return nil
}
