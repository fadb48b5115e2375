// Package approval answers "who said yes?": it holds the rules by which an approval is asked for, answered and used.
//
// It promises that a yes lets through what it was said to and nothing else. It is bound to the bytes of one request by its
// [Digest], to the object those were about by its [Target], and to the rule and tier of the policy; what changed since
// withdraws it. One request passes, once, until the approval expires. A scope that was granted is bound to the verb, the
// resource and the rule instead of the bytes, and ends at its own time. Whoever may answer is in a group that today's policy
// lets answer, and is neither the requester, nor the agent's owner, nor somebody who answered already, by whatever name or
// channel they come.
//
// Everything is a pure function of an approval, what is asked of it, and the time: no clock, no table. The rules hold against
// many at once only because package store makes each transition one conditional write; whoever calls them otherwise has two
// answers. A mistake here is an elevated credential that no human meant to give: there is no wall behind it but the tier's
// RBAC.
//
// It does not check signatures: that a vote, or a request, comes from whom it says was proven by the caller. It makes no text
// safe to show: words of others must have passed package view before they come here.
package approval

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/shared/access"
)

// MaxReason is how many characters a reason may have, an agent's or a reviewer's.
const MaxReason = 1000

const (
	keptHistory = 100 // entries; the whole approval is one item of at most 400 KB
	keptUses    = 20
	// usedFor is how long a request that an approval let through may take to be answered before nobody knows how it ended.
	usedFor = 2 * time.Minute
	// unaskedFor is how long a denial stands that no reviewer spoke: nobody could be asked, and that can be mended.
	unaskedFor = time.Minute
)

// An Ask is what an approval is made of. All words in it are safe to show.
type Ask struct {
	ID        string // 26 characters of lower-case base32
	Digest    string
	Principal access.Principal
	Session   string
	Request   string // the audit id of the request that asks
	Cluster   string
	Reason    string // the agent's own words
	Action    access.Action
	Decision  access.Decision
	Kubectl   string
	Sentence  string
	Target    access.Target
	Now       time.Time
}

// New is a pending approval. What its rule lets reviewers give is narrowed to what there is of the request: one that names
// no object has no scope of an object.
func New(in Ask) access.Approval {
	now := in.Now.UTC()
	d := in.Decision
	d.Obligations.Grant = widest(d.Obligations.Grant, in.Action)
	a := access.Approval{
		ID: in.ID, Digest: in.Digest, State: access.StatePending, Principal: in.Principal, Session: in.Session, Request: in.Request,
		Cluster: in.Cluster, Action: in.Action, Decision: d, Kubectl: in.Kubectl, Sentence: in.Sentence, Reason: in.Reason,
		Target: in.Target, Opened: now, Expires: now.Add(d.Obligations.Expires), Reviewers: slices.Clone(d.Obligations.Reviewers),
	}
	Note(&a, "opened", in.Principal.Agent, "", now)
	return a
}

// Joins says whether a request that is a's to the byte gets a's answer, rather than an approval of its own.
func Joins(a access.Approval, now time.Time) bool {
	switch state, _ := Status(a, now); state {
	case access.StatePending, access.StateApproved, access.StateGranted:
		return true
	case access.StateDenied:
		if spoken(a) {
			return now.Before(a.Expires)
		}
		return now.Before(a.Ended.Add(unaskedFor))
	case access.StateSpent:
		return unknown(a) && !told(a)
	}
	return false
}

// Tell marks that the agent was told that nobody knows how its request ended. It is true the first time, and false when
// that is known or may yet come to be known.
func Tell(a *access.Approval, now time.Time) bool {
	if a.State != access.StateSpent || !unknown(*a) || using(*a, now) || told(*a) {
		return false
	}
	Note(a, "told", "", "the outcome of request "+a.Uses[0].Request+" is not known", now)
	return true
}

// Expire ends what was not answered, or not used, in time, and a grant that is over. It says whether it did.
func Expire(a *access.Approval, now time.Time) bool {
	state, why := Status(*a, now)
	if state != access.StateExpired || a.State == access.StateExpired {
		return false
	}
	at := end(*a)
	a.State, a.Message, a.Ended = state, why, at
	Note(a, "expired", "", why, now)
	return true
}

// Withdraw ends an approval because what it is about is not the same any more; why is a sentence for the agent.
func Withdraw(a *access.Approval, why string, now time.Time) bool {
	switch state, _ := Status(*a, now); state {
	case access.StatePending, access.StateApproved, access.StateGranted:
	default:
		return false
	}
	a.State, a.Message, a.Ended = access.StateWithdrawn, why, now.UTC()
	Note(a, "withdrawn", "", why, now)
	return true
}

// Deny ends a question that nobody can be asked; why is a sentence for the agent.
func Deny(a *access.Approval, why string, now time.Time) bool {
	if state, _ := Status(*a, now); state != access.StatePending {
		return false
	}
	a.State, a.Message, a.Ended = access.StateDenied, why, now.UTC()
	Note(a, "denied", "", why, now)
	return true
}

// Escalate lets the rule's further groups answer too. It says whether that is anything new.
func Escalate(a *access.Approval, now time.Time) bool {
	if state, _ := Status(*a, now); state != access.StatePending {
		return false
	}
	var added []string
	for _, g := range a.Decision.Obligations.Escalate.Reviewers {
		if !slices.Contains(a.Reviewers, g) {
			a.Reviewers = append(a.Reviewers, g)
			added = append(added, g)
		}
	}
	if len(added) == 0 {
		return false
	}
	Note(a, "escalated", "", "to "+list(added), now)
	return true
}

// Outcome keeps how a request ended that the approval let through. It says whether that was not known before.
func Outcome(a *access.Approval, request string, code int, now time.Time) bool {
	if code <= 0 {
		return false
	}
	for i := range a.Uses {
		if a.Uses[i].Request == request && a.Uses[i].Code == 0 {
			a.Uses[i].Code = code
			if a.State == access.StateSpent {
				Note(a, "outcome", "", fmt.Sprintf("request %s was answered %d", request, code), now)
			}
			return true
		}
	}
	return false
}

// Refused keeps that somebody tried what they may not.
func Refused(a *access.Approval, by, why string, now time.Time) { Note(a, "refused", by, why, now) }

// dull are entries of a history that somebody can make as many of as they like.
var dull = []string{"refused", "joined"}

// Note adds to the history what has no transition of its own, such as joined, notified and reminded. Of the dull entries
// the oldest make way, so that nobody can push out what was decided, or fill the item.
func Note(a *access.Approval, what, by, text string, now time.Time) {
	if len(a.History) >= keptHistory {
		i := slices.IndexFunc(a.History, func(h access.History) bool { return slices.Contains(dull, h.What) })
		if i < 0 && slices.Contains(dull, what) {
			return
		}
		if i >= 0 {
			a.History = slices.Delete(a.History, i, i+1)
		}
	}
	a.History = append(a.History, access.History{At: now.UTC(), What: what, By: by, Text: text})
}

// NewLink makes the secret of a mail link, and the hash it is kept under.
func NewLink() (token, hash string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	token = base64.RawURLEncoding.EncodeToString(b)
	return token, LinkHash(token)
}

// LinkHash is what a link is kept under: whoever reads the table cannot follow it.
func LinkHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// end is when the approval is over if nothing happens.
func end(a access.Approval) time.Time {
	if a.State == access.StateGranted {
		return a.Until
	}
	return a.Expires
}

// spoken says whether a reviewer said no, rather than that nobody could be asked.
func spoken(a access.Approval) bool {
	return slices.ContainsFunc(a.Votes, func(v access.Vote) bool { return !v.Yes })
}

// unknown says whether a request passed and nobody knows yet how it ended.
func unknown(a access.Approval) bool { return len(a.Uses) > 0 && a.Uses[0].Code == 0 }

func using(a access.Approval, now time.Time) bool {
	return unknown(a) && now.Before(a.Uses[0].At.Add(usedFor))
}

func told(a access.Approval) bool {
	return slices.ContainsFunc(a.History, func(h access.History) bool { return h.What == "told" })
}

func list(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
