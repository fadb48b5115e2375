package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"sallyport/local/aws"
	"sallyport/local/stack"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/settings"
	"sallyport/shared/store"
	"sallyport/shared/store/storetest"
)

// The contract against DynamoDB's stand-in, in a table made from the definition that CDK uses.
func TestDynamoDB(t *testing.T) {
	python := os.Getenv("SALLYPORT_MOTO_PYTHON")
	if python == "" || testing.Short() {
		t.Skip("needs moto: SALLYPORT_MOTO_PYTHON=$(local/aws/moto/venv.sh)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := aws.Start(ctx, aws.Config{Dir: t.TempDir(), Python: python, Region: stack.Region})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	db := dynamodb.NewFromConfig(stack.DeployerConfig(s.URL))
	for _, table := range []settings.Table{settings.Sessions, settings.Approvals} {
		if err := stack.CreateTable(ctx, db, table); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("sessions", func(t *testing.T) { storetest.Contract(t, store.NewSessions(db, settings.Sessions.Name)) })
	t.Run("approvals", func(t *testing.T) {
		// Two clients are two tasks: neither knows of the other but by the table.
		other := dynamodb.NewFromConfig(stack.DeployerConfig(s.URL))
		storetest.ApprovalsContract(t, store.NewApprovals(db, settings.Approvals.Name), store.NewApprovals(other, settings.Approvals.Name))
	})
	t.Run("lost answers", func(t *testing.T) {
		lostAnswers(t, func(by http.RoundTripper) *dynamodb.Client {
			return dynamodb.NewFromConfig(stack.DeployerConfig(s.URL), func(o *dynamodb.Options) { o.HTTPClient = &http.Client{Transport: by} })
		})
	})
}

// lossy passes every request on and loses the answer to the first of an operation, as a connection that breaks does.
type lossy struct {
	operation string
	lost      atomic.Int32
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+l.operation) && l.lost.CompareAndSwap(0, 1) {
		res.Body.Close()
		return nil, errors.New("connection reset by peer")
	}
	return res, err
}

// A write whose answer is lost is sent again by the SDK, and refused, because it was made: that is success. Otherwise the
// approval would be spent by a request that was told it may not pass.
func lostAnswers(t *testing.T, db func(http.RoundTripper) *dynamodb.Client) {
	ctx, now := context.Background(), time.Now()
	const once = access.ScopeRequest
	for i, operation := range []string{"PutItem", "TransactWriteItems", "UpdateItem"} {
		l := &lossy{operation: operation}
		s := store.NewApprovals(db(l), settings.Approvals.Name)
		want := storetest.Asked(fmt.Sprintf("lost%d-%x", i, now.UnixNano()), "lost", now)
		if _, opened, err := s.Open(ctx, want, access.View{}, func(access.Approval) bool { return true }); err != nil || !opened {
			t.Errorf("%s: opened %v, %v", operation, opened, err)
		}
		if _, err := s.Update(ctx, want.ID, func(a *access.Approval) error {
			return approval.Vote(a, storetest.Sre(), storetest.Yes(0, access.Grant{Scope: once}), now)
		}); err != nil {
			t.Errorf("%s: voting: %v", operation, err)
		}
		l.lost.Store(0)
		got, err := s.Update(ctx, want.ID, func(a *access.Approval) error {
			return store.Keep(approval.Redeem(a, storetest.Redemption(*a, "q"), now))
		})
		if err != nil || got.State != access.StateSpent || len(got.Uses) != 1 {
			t.Errorf("%s: redeeming: %s %v, %v", operation, got.State, got.Uses, err)
		}
		l.lost.Store(0)
		if first, err := s.Once(ctx, want.ID, now); err != nil || !first {
			t.Errorf("%s: first %v, %v", operation, first, err)
		}
	}
}

// A table that is away is unavailable, says when to ask again, and shows nothing of itself.
func TestTableAway(t *testing.T) {
	db := dynamodb.New(dynamodb.Options{Region: "eu-west-1", BaseEndpoint: awssdk.String("http://127.0.0.1:1"), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})
	s := store.NewSessions(db, "t")
	now := time.Now()
	_, err := s.Open(context.Background(), storetest.Session("x", "bot", now), time.Hour, now)
	if e := access.AsError(err); e.Kind != access.Unavailable || e.RetryAfter == 0 || e.Cause == nil {
		t.Errorf("got %+v, want unavailable with a cause and a time to retry", e)
	}
	if _, err := s.Get(context.Background(), "x"); access.KindOf(err) != access.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	a := store.NewApprovals(db, "t")
	for name, err := range map[string]error{
		"open":    second(a.Open(context.Background(), storetest.Asked("x", "bot", now), access.View{}, nil)),
		"update":  first(a.Update(context.Background(), "x", nil)),
		"get":     first(a.Get(context.Background(), "x")),
		"get all": first(a.GetAll(context.Background(), []string{"x"})),
		"view":    first(a.View(context.Background(), "x")),
		"find":    second(a.Find(context.Background(), "x", "y")),
		"granted": first(a.Granted(context.Background(), "x", "dev")),
		"list":    first(a.List(context.Background(), true, 1, time.Time{})),
		"task":    a.PutTask(context.Background(), "x", "t"),
		"link":    a.UseLink(context.Background(), "x", now),
		"limit":   a.Limit(context.Background(), "x", now, 1),
		"once":    first(a.Once(context.Background(), "x", now)),
		"known":   second(a.Known(context.Background(), "x", "y")),
	} {
		if e := access.AsError(err); e.Kind != access.Unavailable || e.RetryAfter == 0 || e.Cause == nil {
			t.Errorf("%s: got %+v, want unavailable with a cause and a time to retry", name, e)
		}
	}
}

func first[T any](_ T, err error) error { return err }

func second[T, U any](_ T, _ U, err error) error { return err }
