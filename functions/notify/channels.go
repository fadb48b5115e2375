package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/mail"
	"sallyport/shared/policy"
	"sallyport/shared/slack"
)

// atOnce is how many messages are on their way at the same time: SES lets a new account send 14 a second.
const atOnce = 12

// chat is Slack, with a secret that may change.
type chat struct {
	secrets *slack.Secrets
	url     string
}

// call calls Slack, and once more with what the secret says now when the bot token was not taken.
func (c *chat) call(ctx context.Context, do func(*slack.Client) error) error {
	held, err := c.secrets.Get(ctx)
	if err != nil {
		return err
	}
	if err = do(slack.New(held.BotToken, c.url)); access.KindOf(err) != access.Unauthenticated {
		return err
	}
	c.secrets.Failed()
	now, again := c.secrets.Get(ctx)
	if again != nil || now == held {
		return err
	}
	return do(slack.New(now.BotToken, c.url))
}

// A job is one message to one place.
type job struct {
	by     string // the channel, as history names it
	text   string // whom it reaches
	before bool   // it was sent before
	absent bool   // the channel is not there: worth a word only when no other reaches anybody
	run    func(context.Context) (ref string, err error)
	key    string // what is stored as sent; empty for nothing
}

// A result is how a channel went.
type result struct {
	by, text       string
	before, absent bool
	err            error
}

// jobs are the messages of a step. Channels that the policy names and that are not configured are jobs that fail.
func (n *notifier) jobs(ctx context.Context, a access.Approval, kind string) ([]job, error) {
	in, _, err := n.policies.InForce(ctx)
	if err != nil {
		return nil, err
	}
	v, err := n.approvals.View(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	sent, err := n.approvals.Sent(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	var known []string
	if email, found, err := n.approvals.Known(ctx, a.Principal.Issuer, a.Principal.Subject); err != nil {
		return nil, err
	} else if found {
		known = append(known, email)
	}
	var groups []policy.ReviewerGroup
	for _, g := range in.Policy.Reviewers {
		if slices.Contains(a.Reviewers, g.Name) {
			groups = append(groups, g)
		}
	}
	q := n.question(a, v)
	var jobs []job
	for _, c := range channels(groups) {
		jobs = append(jobs, n.slackJob(q, kind, c, sent))
	}
	if people := in.Roster().Eligible(a, known...); n.post == nil {
		jobs = append(jobs, absent("mail", "no mail was sent: %s is not set", mail.Setting))
	} else if len(people) == 0 {
		jobs = append(jobs, absent("mail", "nobody of %s is left who may answer", strings.Join(a.Reviewers, ", ")))
	} else {
		for _, to := range people {
			jobs = append(jobs, n.mailJob(q, kind, to, sent))
		}
	}
	switch {
	case len(channels(groups)) > 0:
	case n.chat == nil:
		jobs = append(jobs, absent("slack", "nothing was sent: %s is not set", slack.Setting))
	default:
		jobs = append(jobs, absent("slack", "nothing was sent: the policy names no slack channel for %s", strings.Join(a.Reviewers, ", ")))
	}
	return jobs, nil
}

// absent is a channel that is not there.
func absent(by, format string, a ...any) job {
	return job{by: by, absent: true, run: func(context.Context) (string, error) { return "", access.Errorf(access.Unavailable, format, a...) }}
}

// channel is a channel in Slack, and whose it is.
type channel struct {
	id     string
	groups []string
}

// channels are the groups' channels, each once.
func channels(groups []policy.ReviewerGroup) []channel {
	var out []channel
	for _, g := range groups {
		if g.Slack == nil || g.Slack.Channel == "" {
			continue
		}
		i := slices.IndexFunc(out, func(c channel) bool { return c.id == g.Slack.Channel })
		if i < 0 {
			i, out = len(out), append(out, channel{id: g.Slack.Channel})
		}
		out[i].groups = append(out[i].groups, g.Name)
	}
	return out
}

// slackJob puts the question into a channel, once; what stands there already is brought up to date. A reminder answers it.
func (n *notifier) slackJob(q slack.Question, kind string, c channel, sent map[string]string) job {
	key := "slack:" + c.id
	ts, there := sent[key]
	j := job{by: "slack " + c.id, text: strings.Join(c.groups, ", "), key: key}
	if n.chat == nil {
		j.run = func(context.Context) (string, error) {
			return "", access.Errorf(access.Unavailable, "nothing was sent: %s is not set", slack.Setting)
		}
		return j
	}
	post := func(ctx context.Context) (ref string, err error) {
		err = n.chat.call(ctx, func(s *slack.Client) error {
			ref, err = s.Post(ctx, c.id, q.Message())
			return err
		})
		return ref, err
	}
	if !there {
		j.run = post
		return j
	}
	if kind == wire.StepRemind {
		j.key = "remind:" + key
		if _, done := sent[j.key]; done {
			j.before, j.run = true, func(context.Context) (string, error) { return "", nil }
			return j
		}
		m := slack.Announce("Still waiting for an answer", q.Remaining())
		j.run = func(ctx context.Context) (ref string, err error) {
			err = n.chat.call(ctx, func(s *slack.Client) error {
				ref, err = s.Reply(ctx, c.id, ts, m)
				return err
			})
			return ref, err
		}
		return j
	}
	j.before = true
	j.run = func(ctx context.Context) (string, error) {
		err := n.chat.call(ctx, func(s *slack.Client) error { return s.Update(ctx, c.id, ts, q.Message()) })
		if access.KindOf(err) == access.NotFound {
			return post(ctx)
		}
		return ts, err
	}
	return j
}

// mailJob sends one person a mail with a link of their own, once a step.
func (n *notifier) mailJob(q slack.Question, kind, to string, sent map[string]string) job {
	a := q.Approval
	j := job{by: "mail", text: to, key: "mail:" + to}
	_, asked := sent[j.key]
	again := kind == wire.StepRemind && asked
	if again {
		j.key = "remind:" + j.key
	}
	if _, done := sent[j.key]; done {
		j.before, j.run = true, func(context.Context) (string, error) { return "", nil }
		return j
	}
	j.run = func(ctx context.Context) (string, error) {
		token, hash := approval.NewLink()
		if err := n.approvals.PutLink(ctx, hash, a.ID, to, a.Expires); err != nil {
			return "", err
		}
		return n.post.Send(ctx, mail.Question{Approval: a, View: q.View, To: to, Link: n.pages + "/link/" + token,
			Again: again, Others: kind == wire.StepEscalate, Now: q.Now}.Message())
	}
	return j
}

// send does all jobs at once, and writes down at once what was sent: a try that is lost after that sends nothing twice. It
// returns how each channel went, all of a channel's jobs together; one that reached anybody has reached.
func (n *notifier) send(ctx context.Context, a access.Approval, jobs []job) []result {
	limit, cancel := context.WithTimeout(ctx, sending)
	defer cancel()
	type done struct {
		i   int
		err error
	}
	ended := make(chan done, len(jobs))
	gate := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			ref, err := j.run(limit)
			if err == nil && j.key != "" && !j.before {
				// Not to be told that something was sent may send it twice, which is better than never.
				if err := n.approvals.PutSent(ctx, a.ID, j.key, ref); err != nil {
					n.log.WarnContext(ctx, "what was sent could not be written down", append([]any{"approval", a.ID, "channel", j.by}, inforce.Why(err)...)...)
				}
			}
			if err != nil && !j.absent {
				n.log.WarnContext(ctx, "a channel failed", append([]any{"approval", a.ID, "channel", j.by}, inforce.Why(err)...)...)
			}
			ended <- done{i, err}
		})
	}
	errs := make([]error, len(jobs))
	var early <-chan time.Time
	for left := len(jobs); left > 0; {
		select {
		case d := <-ended:
			left--
			errs[d.i] = d.err
			if d.err == nil && early == nil && a.Notified.IsZero() {
				early = time.After(soon)
			}
		case <-early:
			if _, err := n.approvals.Update(ctx, a.ID, func(a *access.Approval) error {
				if a.Notified.IsZero() {
					a.Notified = n.clock()
				}
				return nil
			}); err != nil {
				n.log.WarnContext(ctx, "that somebody was reached could not be written down yet", append([]any{"approval", a.ID}, inforce.Why(err)...)...)
			}
		}
	}
	wg.Wait()
	return together(jobs, errs)
}

// together makes one result of a channel's jobs that went the same way.
func together(jobs []job, errs []error) []result {
	var out []result
	for i, j := range jobs {
		why := ""
		if errs[i] != nil {
			why = sentence(errs[i])
		}
		at := slices.IndexFunc(out, func(r result) bool {
			return r.by == j.by && r.before == j.before && (r.err == nil) == (errs[i] == nil) && (r.err == nil || sentence(r.err) == why)
		})
		if at < 0 {
			out = append(out, result{by: j.by, text: j.text, before: j.before, absent: j.absent, err: errs[i]})
		} else {
			out[at].text += ", " + j.text
		}
	}
	return out
}
