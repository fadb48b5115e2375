package store_test

import (
	"context"
	"os"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"sallyport/local/aws"
	"sallyport/local/stack"
	"sallyport/shared/access"
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
	if err := stack.CreateTable(ctx, db, settings.Sessions); err != nil {
		t.Fatal(err)
	}
	storetest.Contract(t, store.NewSessions(db, settings.Sessions.Name))
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
}
