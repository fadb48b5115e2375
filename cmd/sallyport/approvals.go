package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/shared/access"
)

func approvalsCommand() *command {
	return &command{
		name:    "approvals",
		summary: "what agents ask people about, and the answers",
		group: []*command{
			{
				name:    "list",
				summary: "list what waits for an answer, the newest first",
				help:    "With --all it lists what was answered, too: the grants that are open, and what is over.",
				setup:   setupApprovals,
			},
			{
				name:    "show",
				args:    "ID",
				summary: "show what an agent asks, and what became of it",
				help:    idHelp,
				setup:   setupApproval,
			},
			{
				name:    "approve",
				args:    "ID",
				summary: "say yes, to this request once or to a scope for a time",
				help: "Without --for the yes is for exactly this request, once. With --for it is for what --scope says, for that long:\n" +
					"object is the same verb on this object, namespace the same verb on this kind in the namespace. The policy's rule\n" +
					"says how much may be given. Where several people must say yes, what is given is the least any of them would give.\n" + idHelp,
				setup: setupApprove,
			},
			{
				name:    "deny",
				args:    "ID",
				summary: "say no; the agent is told why",
				help:    idHelp,
				setup:   setupDeny,
			},
			{
				name:    "revoke",
				args:    "ID",
				summary: "take back a yes that is not used up; what is open under it ends",
				help:    idHelp,
				setup:   setupRevoke,
			},
		},
	}
}

const idHelp = "ID may be shortened while it is still the id of one approval only of those that are listed."

func setupApprovals(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	r := reviewsFlags(env, fs)
	asJSON := fs.Bool("json", false, `print JSON: {"approvals": [...]}`)
	all := fs.Bool("all", false, "list those that are over, too")
	limit := fs.Int("limit", 100, "list at most `N`; 0 lists all")
	return func(ctx context.Context, args []string) error {
		switch {
		case len(args) > 0:
			return usageError("sallyport approvals show ID shows one", "sallyport approvals list takes no arguments, got %q", args[0])
		case *limit < 0:
			return usageError("--limit 0 lists all", "--limit %d is less than nothing", *limit)
		}
		d, err := r.desk()
		if err != nil {
			return err
		}
		found, more, err := d.list(ctx, *all, *limit)
		if err != nil {
			return err
		}
		if *asJSON {
			if err := printJSON(env.stdout, map[string]any{"approvals": found}); err != nil {
				return err
			}
		} else if len(found) > 0 {
			now := env.now()
			table(env.stdout, []string{"APPROVAL", "STATE", "AGENT", "OWNER", "OPENED", "ENDS", "REQUEST"}, func(row func(...string)) {
				for _, a := range found {
					row(a.ID, string(a.State), a.Principal.Agent, a.Principal.Owner, when(a.Opened), ends(a, now), a.Kubectl)
				}
			})
		}
		switch {
		case len(found) == 0 && *all:
			fmt.Fprintln(env.stderr, "sallyport: nobody was asked anything that you may answer")
		case len(found) == 0:
			fmt.Fprintln(env.stderr, "sallyport: nothing waits for your answer; --all lists what was answered")
		case more:
			fmt.Fprintf(env.stderr, "sallyport: the newest %d; --limit 0 lists all\n", len(found))
		}
		return nil
	}
}

func setupApproval(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	r := reviewsFlags(env, fs)
	asJSON := fs.Bool("json", false, `print JSON: {"approval": {...}, "view": {...}}`)
	return func(ctx context.Context, args []string) error {
		d, id, err := r.one(ctx, "show", args)
		if err != nil {
			return err
		}
		var got struct {
			Approval access.Approval `json:"approval"`
			View     access.View     `json:"view"`
		}
		if err := d.call(ctx, http.MethodGet, "/api/approvals/"+id, nil, &got); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(env.stdout, got)
		}
		showApproval(env, got.Approval, got.View)
		return nil
	}
}

func setupApprove(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	r := reviewsFlags(env, fs)
	asJSON := fs.Bool("json", false, `print JSON: {"approval": {...}}`)
	length := fs.String("for", "", "give a scope for this `TIME`, such as 30m")
	scope := fs.String("scope", "", "what --for is about, a `SCOPE`: object (the default) or namespace")
	reason := fs.String("reason", "", "`TEXT` that is kept with your answer")
	return func(ctx context.Context, args []string) error {
		grant, err := grantFlags(*scope, *length)
		if err != nil {
			return err
		}
		answer := map[string]string{"scope": string(grant.Scope), "length": "", "reason": *reason}
		if grant.Length > 0 {
			answer["length"] = grant.Length.String()
		}
		return r.answer(ctx, env, "approve", args, answer, *asJSON, func(a access.Approval) (string, error) {
			switch a.State {
			case access.StateApproved:
				return "approved: " + a.ID + " may pass once, until " + when(a.Expires), nil
			case access.StateGranted:
				return "approved: " + a.ID + " gives " + granted(a.Grant) + ", until " + when(a.Until), nil
			case access.StateSpent:
				return "approved: " + a.ID + " passed", nil
			case access.StatePending:
				yes := 0
				for _, v := range a.Votes {
					if v.Yes {
						yes++
					}
				}
				if yes > 0 {
					return fmt.Sprintf("your yes counts: %s has %d of the %d it needs", a.ID, yes, max(1, a.Decision.Obligations.Quorum)), nil
				}
			}
			return "", fmt.Errorf("approval %s is %s, and not approved", a.ID, a.State)
		})
	}
}

// grantFlags is what --scope and --for would give.
func grantFlags(scope, length string) (access.Grant, error) {
	g := access.Grant{Scope: access.Scope(cmp.Or(scope, string(access.ScopeRequest)))}
	switch g.Scope {
	case access.ScopeRequest, access.ScopeObject, access.ScopeNamespace:
	default:
		return g, usageError("scopes are request, object and namespace", "--scope %q is none", scope)
	}
	switch {
	case length == "" && g.Scope != access.ScopeRequest:
		return g, usageError("say for how long, such as --for 30m", "--scope %s needs --for", g.Scope)
	case length == "":
		return g, nil
	case scope == "":
		g.Scope = access.ScopeObject
	case g.Scope == access.ScopeRequest:
		return g, usageError("leave --for out: it is this request, once", "--scope request has no length of time")
	}
	d, err := time.ParseDuration(length)
	if err != nil || d <= 0 {
		return g, usageError("write it as 30m or 1h30m", "--for %q is no length of time", length)
	}
	g.Length = d
	return g, nil
}

func setupDeny(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	r := reviewsFlags(env, fs)
	asJSON := fs.Bool("json", false, `print JSON: {"approval": {...}}`)
	reason := fs.String("reason", "", "`TEXT` that the agent is told")
	return func(ctx context.Context, args []string) error {
		if strings.TrimSpace(*reason) == "" {
			return usageError(`say why, with --reason "…": the agent is told`, "sallyport approvals deny needs --reason")
		}
		return r.answer(ctx, env, "deny", args, map[string]string{"reason": *reason}, *asJSON, func(a access.Approval) (string, error) {
			if a.State != access.StateDenied {
				return "", fmt.Errorf("approval %s is %s, and not denied", a.ID, a.State)
			}
			return "denied: " + a.ID, nil
		})
	}
}

func setupRevoke(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	r := reviewsFlags(env, fs)
	asJSON := fs.Bool("json", false, `print JSON: {"approval": {...}}`)
	reason := fs.String("reason", "", "`TEXT` that the agent is told")
	return func(ctx context.Context, args []string) error {
		if strings.TrimSpace(*reason) == "" {
			return usageError(`say why, with --reason "…": the agent is told`, "sallyport approvals revoke needs --reason")
		}
		return r.answer(ctx, env, "revoke", args, map[string]string{"reason": *reason}, *asJSON, func(a access.Approval) (string, error) {
			if a.State != access.StateRevoked {
				return "", fmt.Errorf("approval %s is %s, and not revoked", a.ID, a.State)
			}
			return "revoked: " + a.ID, nil
		})
	}
}

// one opens the API and finds the one approval that args name.
func (r *reviews) one(ctx context.Context, what string, args []string) (*desk, string, error) {
	if len(args) != 1 || args[0] == "" {
		return nil, "", usageError("sallyport approvals list shows the ids there are", "sallyport approvals %s needs one ID, got %d", what, len(args))
	}
	d, err := r.desk()
	if err != nil {
		return nil, "", err
	}
	id, err := d.find(ctx, args[0])
	return d, id, err
}

// answer gives one answer and prints what came of it. done is the sentence of success, or says why it is none.
func (r *reviews) answer(ctx context.Context, env environment, what string, args []string, in any, asJSON bool, done func(access.Approval) (string, error)) error {
	d, id, err := r.one(ctx, what, args)
	if err != nil {
		return err
	}
	var got struct {
		Approval access.Approval `json:"approval"`
	}
	if err := d.call(ctx, http.MethodPost, "/api/approvals/"+id+"/"+what, in, &got); err != nil {
		return err
	}
	said, err := done(got.Approval)
	if asJSON {
		if e := printJSON(env.stdout, got); e != nil {
			return e
		}
	}
	if err != nil {
		return hint(err, "sallyport approvals show %s tells what became of it", id)
	}
	if !asJSON {
		fmt.Fprintln(env.stdout, safe(said))
	}
	return nil
}

// list are approvals, the newest first: those that stand, and with all those that are over; limit of them, or all for 0.
// more says that there are others.
func (d *desk) list(ctx context.Context, all bool, limit int) (found []access.Approval, more bool, err error) {
	found = []access.Approval{}
	states := []string{"pending"}
	if all {
		states = append(states, "ended")
	}
	for _, state := range states {
		before, n := "", 0
		for {
			q := url.Values{"state": {state}}
			if before != "" {
				q.Set("before", before)
			}
			var page struct {
				Approvals []access.Approval `json:"approvals"`
				Before    string            `json:"before"`
			}
			if err := d.call(ctx, http.MethodGet, "/api/approvals?"+q.Encode(), nil, &page); err != nil {
				return nil, false, err
			}
			found, n = append(found, page.Approvals...), n+len(page.Approvals)
			if page.Before == "" || page.Before == before {
				break
			}
			if before = page.Before; limit > 0 && n >= limit {
				more = true
				break
			}
		}
	}
	slices.SortStableFunc(found, func(a, b access.Approval) int { return b.Opened.Compare(a.Opened) })
	if limit > 0 && len(found) > limit {
		found, more = found[:limit], true
	}
	return found, more, nil
}

const idLength = 26

// find is the whole id that begins with prefix.
func (d *desk) find(ctx context.Context, prefix string) (string, error) {
	if strings.ContainsFunc(prefix, func(c rune) bool { return c < '0' || c > 'z' || c > '9' && c < 'a' }) || len(prefix) > idLength {
		return "", hint(fmt.Errorf("%s is no id of an approval", prefix), "sallyport approvals list shows the ids there are")
	}
	if len(prefix) == idLength {
		return prefix, nil
	}
	all, _, err := d.list(ctx, true, 500)
	if err != nil {
		return "", err
	}
	ids := map[string]bool{}
	for _, a := range all {
		if strings.HasPrefix(a.ID, prefix) {
			ids[a.ID] = true
		}
	}
	switch len(ids) {
	case 1:
		for id := range ids {
			return id, nil
		}
	case 0:
		return "", hint(fmt.Errorf("no approval has an id that begins with %s", prefix), "sallyport approvals list --all shows the ids there are")
	}
	return "", hint(fmt.Errorf("%d approvals have an id that begins with %s", len(ids), prefix), "write more of it")
}

// ends is when an approval stops standing, or what it came to.
func ends(a access.Approval, now time.Time) string {
	switch a.State {
	case access.StatePending, access.StateApproved:
		return left(a.Expires, now)
	case access.StateGranted:
		return left(a.Until, now)
	}
	return when(a.Ended)
}

func left(t, now time.Time) string {
	d := t.Sub(now).Truncate(time.Second)
	if t.IsZero() || d <= 0 {
		return when(t)
	}
	if d > time.Minute {
		d = d.Truncate(time.Minute)
		return "in " + strings.TrimSuffix(d.String(), "0s")
	}
	return "in " + d.String()
}

// granted is a grant in words.
func granted(g access.Grant) string {
	scope := map[access.Scope]string{access.ScopeObject: "the verb on this object", access.ScopeNamespace: "the verb on this kind in the namespace"}[g.Scope]
	if scope == "" {
		return "this request once"
	}
	return fmt.Sprintf("%s for %s", scope, short(g.Length))
}

// short is a duration without its zeros.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func showApproval(env environment, a access.Approval, v access.View) {
	out, now := env.stdout, env.now()
	state := string(a.State)
	switch a.State {
	case access.StatePending:
		state += ", ends " + left(a.Expires, now)
	case access.StateApproved:
		state += ", to be used by " + when(a.Expires)
	case access.StateGranted:
		state += ", " + granted(a.Grant) + ", ends " + left(a.Until, now)
	}
	var run []string
	for claim, value := range a.Principal.Run {
		run = append(run, claim+"="+value)
	}
	slices.Sort(run)
	o := a.Decision.Obligations
	fields(out, [][2]string{
		{"approval", a.ID},
		{"state", state},
		{"message", a.Message},
		{"request", a.Kubectl},
		{"it would", a.Sentence},
		{"reason", reasonText(a.Reason)},
		{"agent", a.Principal.Agent},
		{"subject", a.Principal.Subject},
		{"issuer", a.Principal.Issuer},
		{"owner", a.Principal.Owner},
		{"run", strings.Join(run, " ")},
		{"run link", a.Principal.RunLink},
		{"cluster", a.Cluster},
		{"session", a.Session},
		{"rule", a.Decision.Rule},
		{"tier", a.Decision.Tier},
		{"opened", when(a.Opened)},
		{"reviewers", strings.Join(a.Reviewers, " ")},
		{"needs", "the yes of " + plural(max(1, o.Quorum), "person")},
		{"may give", most(o.Grant)},
	}...)
	for _, n := range v.Notes {
		fmt.Fprintf(out, "note: %s\n", safe(n))
	}
	if len(v.Argv) > 0 {
		fmt.Fprintln(out, "\nThe command, a word on each line:")
		for _, w := range v.Argv {
			fmt.Fprintf(out, "  %s\n", safe(w))
		}
	}
	if v.Diff != "" {
		fmt.Fprintln(out, "\nThe change:")
		if v.Approximate != "" {
			fmt.Fprintf(out, "(approximate: %s)\n", safe(v.Approximate))
		}
		if v.Live {
			fmt.Fprintln(out, "(what is there now is as the gate saw it)")
		}
		showDiff(out, v.Diff, env.colour)
	}
	if n := len(v.Affected) + v.More; n > 0 {
		fmt.Fprintf(out, "\nIt takes along %s, as the gate saw it:\n", plural(n, "object"))
		table(out, []string{"KIND", "NAMESPACE", "NAME", "CONTROLLED BY"}, func(row func(...string)) {
			for _, o := range v.Affected {
				row(o.Kind, o.Namespace, o.Name, o.Owner)
			}
		})
		if v.More > 0 {
			fmt.Fprintf(out, "and %d more\n", v.More)
		}
	}
	if len(a.Uses) > 0 {
		fmt.Fprintln(out, "\nIt let through:")
		table(out, []string{"TIME", "REQUEST", "CODE"}, func(row func(...string)) {
			for _, u := range a.Uses {
				code := "unknown"
				if u.Code > 0 {
					code = fmt.Sprint(u.Code)
				}
				row(when(u.At), u.Request, code)
			}
		})
	}
	if len(a.History) > 0 {
		fmt.Fprintln(out, "\nWhat happened:")
		table(out, []string{"TIME", "WHAT", "BY", "MORE"}, func(row func(...string)) {
			for _, h := range a.History {
				row(when(h.At), h.What, h.By, h.Text)
			}
		})
	}
}

// reasonText is the agent's reason, marked as nobody else's words.
func reasonText(s string) string {
	if s == "" {
		return ""
	}
	return `"` + s + `" (the agent's own words)`
}

func most(g access.Grant) string {
	if g.Length == 0 || g.Scope == "" || g.Scope == access.ScopeRequest {
		return "this request, once"
	}
	scopes := "object"
	if g.Scope == access.ScopeNamespace {
		scopes = "object or namespace"
	}
	return "this request once, or a scope (" + scopes + ") for at most " + short(g.Length)
}

// showDiff prints a unified diff, with colours for a person.
func showDiff(w io.Writer, diff string, colour bool) {
	for line := range strings.Lines(diff) {
		line = safe(strings.TrimSuffix(line, "\n"))
		code := ""
		switch {
		case !colour || line == "":
		case strings.HasPrefix(line, "+++ "), strings.HasPrefix(line, "--- "):
			code = "1"
		case line[0] == '+':
			code = "32"
		case line[0] == '-':
			code = "31"
		case strings.HasPrefix(line, "@@"):
			code = "36"
		}
		if code != "" {
			line = "\x1b[" + code + "m" + line + "\x1b[0m"
		}
		fmt.Fprintln(w, line)
	}
}
