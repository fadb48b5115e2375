package gate

import (
	"context"
	"net/http"
	"time"

	"sallyport/proxy/session"
	"sallyport/shared/access"
	"sallyport/shared/broker"
)

// redeemTime is how long the broker may take to redeem an approval.
const redeemTime = 15 * time.Second

// Redeemer exchanges an approval for the credential of its tier; invoke.Client. It is called from many goroutines and asks
// once, whatever the answer. Errors are *access.Error; one of kind unavailable or internal leaves open whether the approval
// is used up.
type Redeemer interface {
	Redeem(ctx context.Context, r broker.Redeem) (broker.Token, error)
}

// yes is what people said to a request, and what it was exchanged for. Its zero value is nothing.
type yes struct {
	broker.Approval
	heard    time.Time
	evidence broker.Evidence
	target   access.Target // the object as the redemption was told of it
	media    string        // the body's Content-Type, where the gate wrote it anew
	live     *session.Live // what the request is forwarded as
	redeemed bool
	sent     bool // it was tried to forward the request
	told     bool // how it ended
}

func (y *yes) given() bool { return y.ID != "" }

// redeem uses the approval up, for the credential this request is forwarded with. From here on the approval is this
// request's, so it does not end with the caller: an answer that nobody waits for would leave open what became of it.
func (p *pass) redeem(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		p.facts.Error = "the caller went away before its approval was redeemed; the approval stands"
		return p.pending(p.yes.Approval)
	}
	g := p.gate
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), redeemTime)
	defer cancel()
	began := g.Now()
	t, err := g.Redeemer.Redeem(ctx, broker.Redeem{
		SubjectToken: p.caller.Bearer, Cluster: p.facts.Cluster, Raw: p.raw, Evidence: p.yes.evidence, Approval: p.yes.ID,
		Session: p.live.Session.ID, Request: p.facts.ID,
	})
	g.Observer.Redeemed(g.Now().Sub(began), err)
	if err != nil {
		p.facts.Approvers = nil
		switch access.KindOf(err) {
		case access.Unavailable, access.Internal:
			p.yes.redeemed = true // perhaps; what is certain is that nothing is forwarded, and the broker is told that
		}
		refused := p.yes.Approval
		refused.State = "" // it was approved when the gate tried; what it is now the broker knows, and says
		return p.about(refused, access.AsError(err))
	}
	p.yes.redeemed = true
	if t.Approval == nil || t.Approval.ID != p.yes.ID {
		return access.Errorf(access.Internal, "the broker redeemed another approval than was asked for; nothing was forwarded")
	}
	p.yes.Approval = *t.Approval
	if len(t.Approval.Approvers) > 0 {
		p.facts.Approvers = t.Approval.Approvers
	}
	p.yes.live, err = p.live.Elevate(t, p.facts.Decision.Tier)
	return err
}

// outcome tells the broker how the request ended that the approval let through, once.
func (p *pass) outcome(code int) {
	if !p.yes.redeemed || p.yes.told {
		return
	}
	p.yes.told = true
	p.gate.Desk.Report(broker.Outcome{Approval: p.yes.ID, Request: p.facts.ID, Code: code})
}

// settle tells the outcome of a request that no answer of the cluster's told. When the cluster was sent the request, did not
// answer, and nobody heard so, nothing is told: whoever asks next must hear that the outcome is unknown.
func (p *pass) settle() {
	code := p.facts.Code
	switch {
	case p.yes.sent && (code == 0 || p.client.Err() != nil):
		return
	case code == 0:
		code = http.StatusServiceUnavailable
	}
	p.outcome(code)
}
