package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	wire "sallyport/shared/broker"

	"sallyport/local/aws"
	"sallyport/local/stack"
	"sallyport/shared/access"
	"sallyport/shared/settings"
	"sallyport/shared/store"
)

// A3 on the table itself: of fifty at once one passes, and the others know who.
func TestOnePassesOnDynamoDB(t *testing.T) {
	python := os.Getenv("SALLYPORT_MOTO_PYTHON")
	if python == "" || testing.Short() {
		t.Skip("needs moto: SALLYPORT_MOTO_PYTHON=$(local/aws/moto/venv.sh)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := aws.Start(ctx, aws.Config{Dir: t.TempDir(), Python: python, Region: stack.Region})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	db := dynamodb.NewFromConfig(stack.DeployerConfig(s.URL))
	if err := stack.CreateTable(ctx, db, settings.Approvals); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
	kept := store.NewApprovals(db, settings.Approvals.Name)
	f.approvals = kept
	if _, _, err := kept.Open(ctx, f.get(t, "a1"), access.View{}, func(access.Approval) bool { return false }); err != nil {
		t.Fatal(err)
	}
	token := f.token("good:bot")
	var wg sync.WaitGroup
	answers := make([]wire.Answer, 50)
	for i := range answers {
		wg.Go(func() {
			r := redeem()
			r.SubjectToken, r.Request = token, fmt.Sprint("r", i)
			answers[i], _ = f.handle(ctx, wire.Request{Redeem: &r})
		})
	}
	wg.Wait()
	passed := ""
	for i, a := range answers {
		switch {
		case a.Token != nil && passed != "":
			t.Errorf("%s passed, and r%d too", passed, i)
		case a.Token != nil:
			passed = a.Token.Approval.By
		case a.Error == nil || a.Error.Kind != access.Conflict && a.Error.Kind != access.Unavailable:
			t.Errorf("r%d: %+v", i, a.Error)
		}
	}
	a, err := kept.Get(ctx, "a1")
	if err != nil || a.State != access.StateSpent || len(a.Uses) != 1 || a.Uses[0].Request != passed || len(f.assumed) != 1 {
		t.Errorf("it is %s, used %v, %d roles were assumed, %v", a.State, a.Uses, len(f.assumed), err)
	}
	// No credential: given back on the table, and redeemed again.
	f.approved(t, "a2", "good:bot", scale(), live("u1", 7, "ok"), once)
	if _, _, err := kept.Open(ctx, f.get(t, "a2"), access.View{}, func(access.Approval) bool { return false }); err != nil {
		t.Fatal(err)
	}
	r := redeem()
	r.Approval, f.fail = "a2", access.Errorf(access.Unavailable, "STS is away")
	if got := f.use(t, r); got.Error == nil || got.Error.Description != "STS is away" {
		t.Errorf("got %+v", got)
	}
	f.fail = nil
	if got := f.use(t, r); got.Error != nil {
		t.Errorf("got %+v", got.Error)
	}
}
