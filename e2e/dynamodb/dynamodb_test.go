// Package dynamodb holds the tables' contracts against Amazon's own DynamoDB Local, which, unlike moto behind the front, takes
// writes at once and refuses transactions that meet: what package store promises of conditional writes is put to the test
// there by somebody else than us.
package dynamodb

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	local "sallyport/local/aws/dynamodb"
	"sallyport/local/stack"
	"sallyport/shared/settings"
	"sallyport/shared/store"
	"sallyport/shared/store/storetest"
)

// start starts DynamoDB Local. Without Java, or where it cannot be fetched, the test is skipped with a word; CI must have both.
func start(t *testing.T) *local.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts DynamoDB Local")
	}
	missing := t.Skipf
	if os.Getenv("CI") == "true" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath("java"); err != nil && os.Getenv("JAVA_HOME") == "" {
		missing("DynamoDB Local needs Java 17 or newer, which is not here (Debian, Ubuntu: apt-get install default-jre-headless): %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	jars, err := exec.CommandContext(ctx, "../../local/aws/dynamodb/fetch.sh").Output()
	if err != nil {
		var exit *exec.ExitError
		_ = errors.As(err, &exit)
		said := ""
		if exit != nil {
			said = string(exit.Stderr)
		}
		missing("DynamoDB Local cannot be had: %v: %s", err, said)
	}
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := local.Start(ctx, strings.TrimSpace(string(jars)), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func client(s *local.Server) *dynamodb.Client {
	// It wants keys of letters and digits, and checks nothing about them.
	return dynamodb.New(dynamodb.Options{Region: stack.Region, BaseEndpoint: &s.URL, Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider("local", "local", ""))})
}

func TestContracts(t *testing.T) {
	s := start(t)
	for _, table := range []settings.Table{settings.Sessions, settings.Approvals} {
		if err := stack.CreateTable(context.Background(), client(s), table); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("sessions", func(t *testing.T) {
		storetest.Contract(t, store.NewSessions(client(s), settings.Sessions.Name))
	})
	t.Run("approvals", func(t *testing.T) {
		// Two clients are two tasks: neither knows of the other but by the table.
		for range 3 {
			storetest.ApprovalsContract(t, store.NewApprovals(client(s), settings.Approvals.Name), store.NewApprovals(client(s), settings.Approvals.Name))
		}
	})
}
