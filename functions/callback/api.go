package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/approval"
)

// bearer is a route for a reviewer's program: who asks is proven by their own token in every call, and by nothing else.
func (s *site) bearer(h func(http.ResponseWriter, *http.Request, visitor) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx := r.Context()
		token, err := tokenOf(r)
		if err != nil {
			return err
		}
		g, _, err := s.policies.InForce(ctx)
		if err != nil {
			return err
		}
		by, err := g.Reviewer(ctx, token)
		if err != nil {
			return err
		}
		v := visitor{gen: g}
		v.Reviewer = by
		v.Channel = "cli"
		v.groups = provenBy(g.Policy, by.Issuer, by.Audience, by.Email)
		if len(v.groups) == 0 {
			return access.Errorf(access.Denied, "%s is in no group of reviewers by today's policy", by.Email)
		}
		return h(w, r, v)
	}
}

// tokenOf is a request's one bearer (RFC 6750 §2.1).
func tokenOf(r *http.Request) (string, error) {
	all := r.Header.Values("Authorization")
	if len(all) != 1 {
		return "", access.Errorf(access.Unauthenticated, "one reviewer's token is wanted, and %d were sent", len(all))
	}
	scheme, token, _ := strings.Cut(all[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || strings.ContainsAny(token, " ,\t") {
		return "", access.Errorf(access.Unauthenticated, "the token must come as Authorization: Bearer …")
	}
	return token, nil
}

// apiLimit is how many approvals one answer lists.
const apiLimit = 100

func (s *site) apiList(w http.ResponseWriter, r *http.Request, v visitor) error {
	q := r.URL.Query()
	state := q.Get("state")
	if state != "" && state != "pending" && state != "ended" {
		return access.Errorf(access.Invalid, "state must be pending or ended")
	}
	before := s.now().Add(time.Minute)
	if text := q.Get("before"); text != "" {
		var err error
		if before, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return access.Errorf(access.Invalid, "before must be a time like 2026-03-01T12:00:00Z: when the last one listed was opened")
		}
	}
	all, err := s.approvals.List(r.Context(), state != "ended", apiLimit, before)
	if err != nil {
		return err
	}
	answer := map[string]any{}
	if len(all) == apiLimit {
		answer["before"] = all[len(all)-1].Opened // for the next call
	}
	shown := []access.Approval{}
	for _, a := range all {
		if a = standing(a, s.now()); concerns(a, v.groups) && (state != "pending" || a.State == access.StatePending) {
			shown = append(shown, a)
		}
	}
	answer["approvals"] = shown
	s.json(w, http.StatusOK, answer)
	return nil
}

// standing is an approval as it stands: one whose time is up is over, whether or not anybody wrote that down yet.
func standing(a access.Approval, now time.Time) access.Approval {
	a.State, _ = approval.Status(a, now)
	return a
}

func (s *site) apiShow(w http.ResponseWriter, r *http.Request, v visitor) error {
	a, err := s.seen(r, v)
	if err != nil {
		return err
	}
	shown, err := s.approvals.View(r.Context(), a.ID)
	if err != nil {
		return err
	}
	s.json(w, http.StatusOK, map[string]any{"approval": standing(a, s.now()), "view": shown})
	return nil
}

// An apiAnswer is the body of a decision.
type apiAnswer struct {
	Scope  access.Scope `json:"scope"`
	Length string       `json:"length"`
	Reason string       `json:"reason"`
}

func (s *site) apiApprove(w http.ResponseWriter, r *http.Request, v visitor) error {
	return s.apiChange(w, r, v, func(id string, in apiAnswer) (access.Approval, error) {
		grant, err := grantOf(in.Scope, in.Length)
		if err != nil {
			return access.Approval{}, err
		}
		reason, err := reasonOf(in.Reason, false)
		if err != nil {
			return access.Approval{}, err
		}
		return s.vote(r.Context(), v.gen, id, v.voter, access.Vote{Yes: true, Grant: grant, Reason: reason})
	})
}

func (s *site) apiDeny(w http.ResponseWriter, r *http.Request, v visitor) error {
	return s.apiChange(w, r, v, func(id string, in apiAnswer) (access.Approval, error) {
		if in.Scope != "" || in.Length != "" {
			return access.Approval{}, access.Errorf(access.Invalid, "a no gives nothing: leave scope and length out")
		}
		reason, err := reasonOf(in.Reason, true)
		if err != nil {
			return access.Approval{}, err
		}
		return s.vote(r.Context(), v.gen, id, v.voter, access.Vote{Reason: reason})
	})
}

func (s *site) apiRevoke(w http.ResponseWriter, r *http.Request, v visitor) error {
	return s.apiChange(w, r, v, func(id string, in apiAnswer) (access.Approval, error) {
		if in.Scope != "" || in.Length != "" {
			return access.Approval{}, access.Errorf(access.Invalid, "a grant is taken back whole: leave scope and length out")
		}
		reason, err := reasonOf(in.Reason, true)
		if err != nil {
			return access.Approval{}, err
		}
		return s.revoke(r.Context(), v.gen, id, v.voter, reason)
	})
}

func (s *site) apiChange(w http.ResponseWriter, r *http.Request, v visitor, change func(id string, in apiAnswer) (access.Approval, error)) error {
	id, err := idOf(r)
	if err != nil {
		return err
	}
	in, err := answerOf(w, r)
	if err != nil {
		return err
	}
	if err := s.people.PutKnown(r.Context(), v.Issuer, v.Subject, v.Email); err != nil {
		return err
	}
	got, err := change(id, in)
	if err != nil {
		return err
	}
	s.json(w, http.StatusOK, map[string]any{"approval": standing(got, s.now())})
	return nil
}

// answerOf reads a body: nothing, or one JSON object with no member that is not known.
func answerOf(w http.ResponseWriter, r *http.Request) (apiAnswer, error) {
	var in apiAnswer
	b, err := body(w, r, maxAPI)
	if err != nil {
		return in, err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return in, nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return in, access.Errorf(access.Media, "the body must be application/json")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return in, access.Errorf(access.Invalid, "the body must be one JSON object of scope, length and reason: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return in, access.Errorf(access.Invalid, "the body goes on after its JSON object")
	}
	return in, nil
}

// grantOf is what a reviewer would give; whether the rule allows that is package approval's to say.
func grantOf(scope access.Scope, length string) (access.Grant, error) {
	g := access.Grant{Scope: scope}
	switch scope {
	case "":
		g.Scope = access.ScopeRequest
	case access.ScopeRequest, access.ScopeObject, access.ScopeNamespace:
	default:
		return g, access.Errorf(access.Invalid, "scope must be request, object or namespace")
	}
	if length == "" {
		if g.Scope != access.ScopeRequest {
			return g, access.Errorf(access.Invalid, "scope %s needs a length, such as 30m", g.Scope)
		}
		return g, nil
	}
	d, err := time.ParseDuration(length)
	if err != nil || d < 0 || g.Scope != access.ScopeRequest && d == 0 {
		return g, access.Errorf(access.Invalid, "length must be a duration like 30m")
	}
	if g.Scope == access.ScopeRequest && d != 0 {
		return g, access.Errorf(access.Invalid, "scope request is one request, once, and has no length")
	}
	g.Length = d
	return g, nil
}
