package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
	"sallyport/shared/recording"
)

func sessionsCommand() *command {
	return &command{
		name:    "sessions",
		summary: "sessions of agents and what was recorded of them",
		group: []*command{
			{
				name:    "list",
				summary: "list the sessions of a cluster, the one heard of last first",
				help:    "It reads the recordings of every session it shows.",
				setup:   setupList,
			},
			{
				name:    "show",
				args:    "ID",
				summary: "show what a session did",
				help: "ID may be shortened while it is still the id of one session only.\n" +
					"A request is open while its stream is; its code is unknown when it was forwarded and its end was not recorded.\n" +
					"With --refused, and without ID, it shows requests that were refused before they had a session.",
				setup: setupShow,
			},
		},
	}
}

func setupList(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	p := placeFlags(env, fs)
	asJSON := fs.Bool("json", false, `print JSON: {"sessions": [...]}`)
	since := fs.String("since", "", "only sessions heard of in this `TIME`, such as 90m, 24h or 7d")
	limit := fs.Int("limit", 50, "show at most `N` sessions; 0 shows all")
	return func(ctx context.Context, args []string) error {
		if len(args) > 0 {
			return usageError("sallyport sessions show ID shows one session", "sallyport sessions list takes no arguments, got %q", args[0])
		}
		if *limit < 0 {
			return usageError("--limit 0 shows all", "--limit %d is less than nothing", *limit)
		}
		from, err := ago(env, *since)
		if err != nil {
			return err
		}
		archive, cluster, err := p.archive(ctx)
		if err != nil {
			return err
		}
		return list(ctx, env, &recording.Reader{Archive: archive}, cluster, from, *limit, *asJSON)
	}
}

func setupShow(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	p := placeFlags(env, fs)
	asJSON := fs.Bool("json", false, `print JSON: {"session": {...}, "events": [audit.k8s.io/v1 events]}`)
	refused := fs.Bool("refused", false, "show requests that were refused before they had a session")
	since := fs.String("since", "", "with --refused: only those of this `TIME`; 24h by default")
	return func(ctx context.Context, args []string) error {
		switch {
		case *refused && len(args) > 0:
			return usageError("leave out ID: these requests have no session", "sallyport sessions show --refused takes no arguments, got %q", args[0])
		case !*refused && len(args) != 1:
			return usageError("sallyport sessions list shows the ids there are", "sallyport sessions show needs one ID, got %d", len(args))
		case !*refused && *since != "":
			return usageError("leave it out: a session is shown whole", "--since goes with --refused")
		}
		from, err := ago(env, cmp.Or(*since, "24h"))
		if err != nil {
			return err
		}
		archive, cluster, err := p.archive(ctx)
		if err != nil {
			return err
		}
		reader := &recording.Reader{Archive: archive}
		progress := newProgress(env, "segments")
		reader.Progress = progress.at
		if *refused {
			return showRefused(ctx, env, reader, progress, cluster, from, *asJSON)
		}
		return show(ctx, env, reader, progress, cluster, args[0], *asJSON)
	}
}

// ago is the time that long ago, and zero for "".
func ago(env environment, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	text := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n < 1e5 {
			text = strconv.Itoa(24*n) + "h"
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return time.Time{}, usageError("write it as 90m, 24h or 7d", "--since %q is no length of time", s)
	}
	return env.now().Add(-d), nil
}

// A summary is what a session's events say about it.
type summary struct {
	ID          string            `json:"id"`
	Cluster     string            `json:"cluster"`
	Agent       string            `json:"agent"`
	Issuer      string            `json:"issuer"`
	Subject     string            `json:"subject"`
	Run         map[string]string `json:"run"`
	Owner       string            `json:"owner"`
	Groups      []string          `json:"groups"`
	Tier        string            `json:"tier"`
	RoleSession string            `json:"role_session"`
	Policies    []string          `json:"policies"` // digests, in the order they came into force
	Started     time.Time         `json:"started"`  // the first request
	LastEvent   time.Time         `json:"last_event"`
	Requests    int               `json:"requests"`
	Refused     int               `json:"refused"` // by the gate
}

func summarize(cluster, id string, events []recording.Recorded, requests []request) summary {
	s := summary{ID: id, Cluster: cluster, Run: map[string]string{}, Groups: []string{}, Policies: []string{}, Requests: len(requests)}
	for _, r := range requests {
		if r.refused() {
			s.Refused++
		}
		if s.Started.IsZero() || r.received.Before(s.Started) {
			s.Started = r.received
		}
	}
	for _, e := range events {
		extra := e.Event.User.Extra
		first := func(key string) string {
			if v := extra[key]; len(v) > 0 {
				return v[0]
			}
			return ""
		}
		if s.Issuer == "" {
			s.Agent = e.Event.User.Username
			s.Issuer, s.Subject, s.Owner = first(recording.ExtraIssuer), first(recording.ExtraSubject), first(recording.ExtraOwner)
			s.Groups = append(s.Groups, e.Event.User.Groups...)
			for key := range extra {
				if claim, ok := strings.CutPrefix(key, recording.ExtraRun); ok {
					s.Run[claim] = first(key)
				}
			}
		}
		s.Tier = cmp.Or(s.Tier, e.Event.Annotations[recording.AnnotationTier])
		s.RoleSession = cmp.Or(s.RoleSession, e.Event.Annotations[recording.AnnotationRoleSession])
		if policy := e.Event.Annotations[recording.AnnotationPolicy]; policy != "" && !slices.Contains(s.Policies, policy) {
			s.Policies = append(s.Policies, policy)
		}
		if at := e.Event.StageTimestamp.Time; at.After(s.LastEvent) {
			s.LastEvent = at
		}
	}
	return s
}

// A request is what the events of one auditID come to.
type request struct {
	received time.Time
	event    *auditv1.Event // of the latest stage
}

// requests merges events by auditID, in the order in which the requests were received. An event that was stored twice
// counts once.
func requests(events []recording.Recorded) []request {
	stages := map[auditv1.Stage]int{auditv1.StageRequestReceived: 1, auditv1.StageResponseStarted: 2, auditv1.StageResponseComplete: 3, auditv1.StagePanic: 4}
	var all []request
	index := map[string]int{}
	for _, e := range events {
		id := string(e.Event.AuditID)
		i, ok := index[id]
		if !ok {
			i = len(all)
			index[id] = i
			all = append(all, request{received: e.Event.RequestReceivedTimestamp.Time, event: e.Event})
		}
		if stages[e.Event.Stage] > stages[all[i].event.Stage] {
			all[i].event = e.Event
		}
	}
	slices.SortStableFunc(all, func(a, b request) int { return a.received.Compare(b.received) })
	return all
}

// refused reports whether the gate refused the request. What the cluster refuses was let through, and so was what people
// said yes to.
func (r request) refused() bool {
	return r.event.Annotations[recording.AnnotationDecision] != string(access.Allow) && r.approvers() == ""
}

func (r request) approvers() string { return r.event.Annotations[recording.AnnotationApprovedBy] }

func (r request) code() string {
	switch {
	case r.event.Stage == auditv1.StageResponseStarted:
		return "open"
	case r.event.Stage == auditv1.StageRequestReceived:
		return "unknown"
	case r.event.ResponseStatus != nil && r.event.ResponseStatus.Code != 0:
		return strconv.Itoa(int(r.event.ResponseStatus.Code))
	case r.event.Stage == auditv1.StagePanic:
		return "panic"
	}
	return "-"
}

// resource is what the request was for, as kubectl would name it: deployments.apps/web/scale -n shop.
func (r request) resource() string {
	o := r.event.ObjectRef
	if o == nil {
		path, _, _ := strings.Cut(r.event.RequestURI, "?")
		return cmp.Or(path, "-")
	}
	s := o.Resource
	if o.APIGroup != "" {
		s += "." + o.APIGroup
	}
	if o.Name != "" {
		s += "/" + o.Name
	}
	if o.Subresource != "" {
		s += "/" + o.Subresource
	}
	if o.Namespace != "" {
		s += " -n " + o.Namespace
	}
	return s
}

func (r request) duration() string {
	ms, err := strconv.ParseInt(r.event.Annotations[recording.AnnotationDuration], 10, 64)
	if err != nil || r.code() == "open" {
		return "-"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func (r request) bytes() string {
	return cmp.Or(r.event.Annotations[recording.AnnotationBytesSent], "-")
}

func (r request) decision() string {
	if by := r.approvers(); by != "" {
		return "approved by " + safe(by)
	}
	return cmp.Or(r.event.Annotations[recording.AnnotationDecision], "refused")
}

func list(ctx context.Context, env environment, reader *recording.Reader, cluster string, since time.Time, limit int, asJSON bool) error {
	found, err := reader.Sessions(ctx, cluster, since)
	if err != nil {
		return err
	}
	all := len(found)
	if limit > 0 && all > limit {
		found = found[:limit]
	}
	progress := newProgress(env, "sessions")
	summaries := make([]summary, 0, len(found))
	var damage []error
	for i, l := range found {
		events, err := reader.Listed(ctx, l)
		if err != nil && ctx.Err() != nil {
			return err
		}
		damage = append(damage, err)
		summaries = append(summaries, summarize(cluster, l.Session, events, requests(events)))
		progress.at(i+1, len(found))
	}
	progress.end()

	if asJSON {
		if err := printJSON(env.stdout, map[string]any{"sessions": summaries}); err != nil {
			return err
		}
	} else {
		table(env.stdout, []string{"SESSION", "AGENT", "OWNER", "TIER", "STARTED", "LAST EVENT", "REQUESTS", "REFUSED"}, func(row func(...string)) {
			for _, s := range summaries {
				row(s.ID, s.Agent, s.Owner, s.Tier, when(s.Started), when(s.LastEvent), strconv.Itoa(s.Requests), strconv.Itoa(s.Refused))
			}
		})
	}
	switch {
	case all == 0:
		fmt.Fprintf(env.stderr, "sallyport: cluster %s has no recorded sessions%s\n", safe(cluster), inThatTime(since))
	case all > len(found):
		fmt.Fprintf(env.stderr, "sallyport: %d of %d sessions; --limit 0 shows all\n", len(found), all)
	}
	return incomplete(errors.Join(damage...))
}

func inThatTime(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return " since " + when(since)
}

func show(ctx context.Context, env environment, reader *recording.Reader, progress *progress, cluster, prefix string, asJSON bool) error {
	id, err := reader.Find(ctx, cluster, prefix)
	if err != nil {
		switch access.KindOf(err) {
		case access.NotFound, access.Invalid:
			return hint(err, "sallyport sessions list shows the sessions there are; --cluster NAME looks in another cluster")
		}
		return err
	}
	events, damage := reader.Session(ctx, cluster, id)
	progress.end()
	if len(events) == 0 && damage != nil {
		return incomplete(damage)
	}
	merged := requests(events)
	s := summarize(cluster, id, events, merged)
	if asJSON {
		if err := printJSON(env.stdout, struct {
			Session summary           `json:"session"`
			Events  []json.RawMessage `json:"events"`
		}{s, lines(events)}); err != nil {
			return err
		}
		return incomplete(damage)
	}
	var run []string
	for claim, value := range s.Run {
		run = append(run, claim+"="+value)
	}
	slices.Sort(run)
	head := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	for _, field := range [][2]string{
		{"session", s.ID},
		{"cluster", s.Cluster},
		{"agent", s.Agent},
		{"issuer", s.Issuer},
		{"subject", s.Subject},
		{"run", strings.Join(run, " ")},
		{"owner", s.Owner},
		{"groups", strings.Join(s.Groups, " ")},
		{"tier", s.Tier},
		{"role session", s.RoleSession},
		{"policy", strings.Join(s.Policies, " ")},
		{"started", when(s.Started)},
		{"last event", when(s.LastEvent)},
		{"requests", fmt.Sprintf("%d, %d refused", s.Requests, s.Refused)},
	} {
		fmt.Fprintf(head, "%s:\t%s\n", field[0], safe(cmp.Or(field[1], "-")))
	}
	head.Flush()
	fmt.Fprintln(env.stdout)
	table(env.stdout, []string{"TIME", "VERB", "RESOURCE", "CODE", "DECISION", "DURATION", "BYTES"}, func(row func(...string)) {
		for _, r := range merged {
			row(whenExactly(r.received), r.event.Verb, r.resource(), r.code(), r.decision(), r.duration(), r.bytes())
		}
	})
	return incomplete(damage)
}

func showRefused(ctx context.Context, env environment, reader *recording.Reader, progress *progress, cluster string, since time.Time, asJSON bool) error {
	events, damage := reader.Refused(ctx, cluster, since)
	unnamed, more := reader.Refused(ctx, "", since) // those that named no cluster of ours
	progress.end()
	damage = errors.Join(damage, more)
	events = append(events, unnamed...)
	slices.SortStableFunc(events, func(a, b recording.Recorded) int {
		return a.Event.StageTimestamp.Compare(b.Event.StageTimestamp.Time)
	})
	if len(events) == 0 && damage != nil {
		return incomplete(damage)
	}
	if asJSON {
		if err := printJSON(env.stdout, map[string]any{"events": lines(events)}); err != nil {
			return err
		}
		return incomplete(damage)
	}
	table(env.stdout, []string{"TIME", "FROM", "AGENT", "VERB", "PATH", "CODE", "MESSAGE"}, func(row func(...string)) {
		for _, r := range requests(events) {
			path, _, _ := strings.Cut(r.event.RequestURI, "?")
			message := ""
			if s := r.event.ResponseStatus; s != nil {
				message = s.Message
			}
			row(whenExactly(r.received), strings.Join(r.event.SourceIPs, ","), r.event.User.Username, r.event.Verb, path, r.code(), message)
		}
	})
	if len(events) == 0 {
		fmt.Fprintf(env.stderr, "sallyport: no refused requests are recorded for cluster %s%s\n", safe(cluster), inThatTime(since))
	}
	return incomplete(damage)
}

func lines(events []recording.Recorded) []json.RawMessage {
	raw := make([]json.RawMessage, 0, len(events))
	for _, e := range events {
		raw = append(raw, e.Line)
	}
	return raw
}

// incomplete is the error of what could not be read, when damage is some.
func incomplete(damage error) error {
	var d *recording.Damage
	if damage == nil || !errors.As(damage, &d) {
		return damage
	}
	return hint(fmt.Errorf("what is shown is not everything; these segments could not be read whole:\n%w", damage),
		"somebody may have altered them: compare with the versions the bucket keeps")
}

// table prints rows, under a head if there is one, every cell safe.
func table(w io.Writer, head []string, rows func(row func(cells ...string))) {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = safe(cmp.Or(c, "-"))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if len(head) > 0 {
		row(head...)
	}
	rows(row)
	t.Flush()
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

func whenExactly(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
