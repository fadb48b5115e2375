package sts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	api "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/local/aws/sts"
)

const (
	account  = "111122223333"
	region   = "eu-west-1"
	iam      = "arn:aws:iam::" + account + ":"
	exchange = iam + "role/sallyport/exchange"
	ana      = iam + "user/ana"
	operate  = iam + "role/sallyport/operate"
	develop  = iam + "role/sallyport/develop"
	plain    = iam + "role/plain"
)

func key(n int, token string) sts.Credentials {
	return sts.Credentials{AccessKeyID: fmt.Sprintf("ASIATEST%012d", n), SecretAccessKey: fmt.Sprintf("secret%034d", n), SessionToken: token}
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time      { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }
func creds(c sts.Credentials) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
}

type stand struct {
	*sts.Server
	clock *clock
	url   string
}

func start(t *testing.T, change func(*sts.Config)) *stand {
	t.Helper()
	s := &stand{clock: &clock{t: time.Now()}}
	cfg := sts.Config{
		AccountID: account, Region: region, Now: s.clock.now,
		Principals: []sts.Principal{
			{ARN: exchange, Session: "exchange", Credentials: key(1, "token+of/exchange==")},
			{ARN: ana, Credentials: sts.Credentials{AccessKeyID: "AKIATEST000000000002", SecretAccessKey: "secret of ana"}},
			{ARN: plain, Session: "stranger", Credentials: key(3, "token of a stranger")},
			{ARN: exchange, Session: "tagged", Credentials: key(4, "t"), SourceIdentity: "mia"},
		},
		Roles: []sts.Role{
			{ARN: operate, Trust: []sts.Trust{{Callers: []string{exchange}, RequireTags: []string{"session"}, AllowTags: []string{"run"}, RequireSourceIdentity: true}}, MaxSessionDuration: 2 * time.Hour},
			{ARN: develop, Trust: []sts.Trust{{Callers: []string{operate}, AllowTags: []string{"session", "run"}, AllowSourceIdentity: true}}},
			{ARN: plain, Trust: []sts.Trust{{Callers: []string{exchange, ana}}, {Callers: []string{ana}, ExternalID: "contract-7", AllowTags: []string{"a"}, AllowSourceIdentity: true}}, MaxSessionDuration: 12 * time.Hour},
			{ARN: iam + "role/short", Trust: []sts.Trust{{Callers: []string{ana}}}},
		},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if s.Server, err = sts.New(cfg); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *stand) client(c aws.CredentialsProvider) *api.Client {
	return api.New(api.Options{Region: region, BaseEndpoint: &s.url, Credentials: c, RetryMaxAttempts: 1})
}

func code(err error) string {
	if err == nil {
		return ""
	}
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return err.Error()
}

func status(err error) int {
	var e *smithyhttp.ResponseError
	if errors.As(err, &e) {
		return e.HTTPStatusCode()
	}
	return 0
}

func tags(kv ...string) []types.Tag {
	var out []types.Tag
	for i := 0; i < len(kv); i += 2 {
		out = append(out, types.Tag{Key: &kv[i], Value: &kv[i+1]})
	}
	return out
}

func TestCallerIdentity(t *testing.T) {
	s := start(t, nil)
	for _, tt := range []struct {
		name string
		c    sts.Credentials
		arn  string
		user string // what UserId ends with
		code string
	}{
		{name: "role session, path dropped", c: key(1, "token+of/exchange=="), arn: "arn:aws:sts::111122223333:assumed-role/exchange/exchange", user: ":exchange"},
		{name: "user", c: sts.Credentials{AccessKeyID: "AKIATEST000000000002", SecretAccessKey: "secret of ana"}, arn: ana},
		{name: "unknown key", c: key(9, ""), code: "InvalidClientTokenId"},
		{name: "wrong secret", c: sts.Credentials{AccessKeyID: key(1, "").AccessKeyID, SecretAccessKey: "x", SessionToken: "token+of/exchange=="}, code: "SignatureDoesNotMatch"},
		{name: "no token", c: key(1, ""), code: "InvalidClientTokenId"},
		{name: "another's token", c: key(1, "token of a stranger"), code: "InvalidClientTokenId"},
		{name: "token where none belongs", c: sts.Credentials{AccessKeyID: "AKIATEST000000000002", SecretAccessKey: "secret of ana", SessionToken: "x"}, code: "InvalidClientTokenId"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := s.client(creds(tt.c)).GetCallerIdentity(t.Context(), &api.GetCallerIdentityInput{})
			if code(err) != tt.code {
				t.Fatalf("got %v, want %q", err, tt.code)
			}
			if err != nil {
				if status(err) != 403 {
					t.Errorf("status %d", status(err))
				}
				return
			}
			if *out.Arn != tt.arn || *out.Account != account || !strings.HasSuffix(*out.UserId, tt.user) {
				t.Errorf("got %s %s %s", *out.Arn, *out.Account, *out.UserId)
			}
		})
	}
}

func TestAssumeRole(t *testing.T) {
	ok := func() *api.AssumeRoleInput {
		return &api.AssumeRoleInput{RoleArn: aws.String(operate), RoleSessionName: aws.String("agent-7.f00d"), SourceIdentity: aws.String("agent-7"), Tags: tags("session", "s-1")}
	}
	asPlain := func(in *api.AssumeRoleInput) { in.RoleArn, in.Tags, in.SourceIdentity = aws.String(plain), nil, nil }
	const fromExchange, fromAna, fromStranger, fromTagged = 0, 1, 2, 3
	many := func(n int) (out []types.Tag) {
		for i := range n {
			out = append(out, tags(fmt.Sprint("k", i), "v")...)
		}
		return out
	}
	for _, tt := range []struct {
		name   string
		caller int
		change func(*api.AssumeRoleInput)
		code   string
	}{
		{name: "as it should be"},
		{name: "another caller", caller: fromStranger, code: "AccessDenied"},
		{name: "a user where a role is trusted", caller: fromAna, code: "AccessDenied"},
		{name: "unknown role", change: func(in *api.AssumeRoleInput) { in.RoleArn = aws.String(iam + "role/nothing") }, code: "AccessDenied"},
		{name: "role without its path", change: func(in *api.AssumeRoleInput) { in.RoleArn = aws.String(iam + "role/operate") }, code: "AccessDenied"},
		{name: "not a role", change: func(in *api.AssumeRoleInput) { in.RoleArn = aws.String(ana) }, code: "ValidationError"},
		{name: "not an ARN", change: func(in *api.AssumeRoleInput) { in.RoleArn = aws.String("operate-operate-operate") }, code: "ValidationError"},
		{name: "session name too short", change: func(in *api.AssumeRoleInput) { in.RoleSessionName = aws.String("a") }, code: "ValidationError"},
		{name: "session name too long", change: func(in *api.AssumeRoleInput) { in.RoleSessionName = aws.String(strings.Repeat("a", 65)) }, code: "ValidationError"},
		{name: "session name with a slash", change: func(in *api.AssumeRoleInput) { in.RoleSessionName = aws.String("repo/x") }, code: "ValidationError"},
		{name: "session name with a newline", change: func(in *api.AssumeRoleInput) { in.RoleSessionName = aws.String("repo\n") }, code: "ValidationError"},
		{name: "session name with an accent", change: func(in *api.AssumeRoleInput) { in.RoleSessionName = aws.String("anné") }, code: "ValidationError"},
		{name: "session name with all that is allowed", change: func(in *api.AssumeRoleInput) { in.RoleSessionName = aws.String("aZ0_+=,.@-") }},
		{name: "no source identity", change: func(in *api.AssumeRoleInput) { in.SourceIdentity = nil }, code: "AccessDenied"},
		{name: "source identity of a bad shape", change: func(in *api.AssumeRoleInput) { in.SourceIdentity = aws.String("a b") }, code: "ValidationError"},
		{name: "source identity aws:", change: func(in *api.AssumeRoleInput) { in.SourceIdentity = aws.String("aws:x") }, code: "ValidationError"},
		{name: "source identity not allowed", change: func(in *api.AssumeRoleInput) { asPlain(in); in.SourceIdentity = aws.String("mia") }, code: "AccessDenied"},
		{name: "source identity changed", caller: fromTagged, change: func(in *api.AssumeRoleInput) { in.SourceIdentity = aws.String("eve") }, code: "AccessDenied"},
		{name: "source identity kept", caller: fromTagged, change: func(in *api.AssumeRoleInput) { in.SourceIdentity = aws.String("mia") }},
		{name: "source identity inherited", caller: fromTagged, change: func(in *api.AssumeRoleInput) { in.SourceIdentity = nil }},
		{name: "source identity inherited where none is allowed", caller: fromTagged, change: asPlain, code: "AccessDenied"},
		{name: "required tag missing", change: func(in *api.AssumeRoleInput) { in.Tags = tags("run", "1") }, code: "AccessDenied"},
		{name: "allowed tag", change: func(in *api.AssumeRoleInput) { in.Tags = tags("session", "1", "run", "ü/:=+-@ 1") }},
		{name: "foreign tag", change: func(in *api.AssumeRoleInput) { in.Tags = tags("session", "1", "admin", "yes") }, code: "AccessDenied"},
		{name: "tag twice", change: func(in *api.AssumeRoleInput) { in.Tags = tags("session", "1", "Session", "2") }, code: "ValidationError"},
		{name: "tag aws:", change: func(in *api.AssumeRoleInput) { in.Tags = tags("session", "1", "aws:x", "2") }, code: "ValidationError"},
		{name: "tag of a bad shape", change: func(in *api.AssumeRoleInput) { in.Tags = tags("session", "a;b") }, code: "ValidationError"},
		{name: "tag value too long", change: func(in *api.AssumeRoleInput) { in.Tags = tags("session", strings.Repeat("x", 257)) }, code: "ValidationError"},
		{name: "tag key too long", change: func(in *api.AssumeRoleInput) { in.Tags = tags(strings.Repeat("x", 129), "1") }, code: "ValidationError"},
		{name: "51 tags", change: func(in *api.AssumeRoleInput) { in.Tags = many(51) }, code: "ValidationError"},
		{name: "transitive tag that is none", change: func(in *api.AssumeRoleInput) { in.TransitiveTagKeys = []string{"run"} }, code: "ValidationError"},
		{name: "899 s", change: func(in *api.AssumeRoleInput) { in.DurationSeconds = aws.Int32(899) }, code: "ValidationError"},
		{name: "900 s", change: func(in *api.AssumeRoleInput) { in.DurationSeconds = aws.Int32(900) }},
		{name: "chained, an hour", change: func(in *api.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3600) }},
		{name: "chained, longer", change: func(in *api.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3601) }, code: "ValidationError"},
		{name: "a user, twelve hours", caller: fromAna, change: func(in *api.AssumeRoleInput) { asPlain(in); in.DurationSeconds = aws.Int32(43200) }},
		{name: "a user, longer", caller: fromAna, change: func(in *api.AssumeRoleInput) { asPlain(in); in.DurationSeconds = aws.Int32(43201) }, code: "ValidationError"},
		{name: "longer than the role allows", caller: fromAna, change: func(in *api.AssumeRoleInput) {
			asPlain(in)
			in.RoleArn, in.DurationSeconds = aws.String(iam+"role/short"), aws.Int32(3601)
		}, code: "ValidationError"},
		{name: "external id given", caller: fromAna, change: func(in *api.AssumeRoleInput) {
			asPlain(in)
			in.Tags, in.ExternalId = tags("a", "1"), aws.String("contract-7")
		}},
		{name: "external id wrong", caller: fromAna, change: func(in *api.AssumeRoleInput) {
			asPlain(in)
			in.Tags, in.ExternalId = tags("a", "1"), aws.String("contract-8")
		}, code: "AccessDenied"},
		{name: "external id missing", caller: fromAna, change: func(in *api.AssumeRoleInput) { asPlain(in); in.Tags = tags("a", "1") }, code: "AccessDenied"},
		{name: "session policy", change: func(in *api.AssumeRoleInput) { in.Policy = aws.String(`{"Version":"2012-10-17"}`) }},
		{name: "session policy unreadable", change: func(in *api.AssumeRoleInput) { in.Policy = aws.String(`{`) }, code: "MalformedPolicyDocument"},
		{name: "MFA", change: func(in *api.AssumeRoleInput) { in.SerialNumber = aws.String("arn:aws:iam::111122223333:mfa/x") }, code: "ValidationError"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, nil)
			c := []sts.Credentials{key(1, "token+of/exchange=="), {AccessKeyID: "AKIATEST000000000002", SecretAccessKey: "secret of ana"}, key(3, "token of a stranger"), key(4, "t")}[tt.caller]
			in := ok()
			if tt.change != nil {
				tt.change(in)
			}
			out, err := s.client(creds(c)).AssumeRole(t.Context(), in)
			if code(err) != tt.code {
				t.Fatalf("got %v, want %q", err, tt.code)
			}
			logged := s.Assumed()
			if len(logged) != 1 || logged[0].Error != tt.code {
				t.Fatalf("log %+v", logged)
			}
			if err != nil {
				if want := map[bool]int{true: 403, false: 400}[tt.code == "AccessDenied"]; status(err) != want {
					t.Errorf("status %d, want %d", status(err), want)
				}
				return
			}
			role := (*in.RoleArn)[strings.LastIndex(*in.RoleArn, "/")+1:]
			arn := "arn:aws:sts::111122223333:assumed-role/" + role + "/" + *in.RoleSessionName
			if *out.AssumedRoleUser.Arn != arn {
				t.Errorf("arn %s, want %s", *out.AssumedRoleUser.Arn, arn)
			}
			minted := credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
			who, err := s.client(minted).GetCallerIdentity(t.Context(), &api.GetCallerIdentityInput{})
			if err != nil {
				t.Fatal(err)
			}
			if *who.Arn != arn || *who.UserId != *out.AssumedRoleUser.AssumedRoleId || !strings.HasPrefix(*who.UserId, "AROA") || !strings.HasSuffix(*who.UserId, ":"+*in.RoleSessionName) {
				t.Errorf("minted credentials are %s %s", *who.Arn, *who.UserId)
			}
		})
	}
}

func TestChainCarriesIdentity(t *testing.T) {
	s := start(t, nil)
	first, err := s.client(creds(key(1, "token+of/exchange=="))).AssumeRole(t.Context(), &api.AssumeRoleInput{
		RoleArn: aws.String(operate), RoleSessionName: aws.String("agent-7"), SourceIdentity: aws.String("mia"),
		Tags: tags("session", "s-1", "run", "9"), TransitiveTagKeys: []string{"session"}})
	if err != nil {
		t.Fatal(err)
	}
	second := s.client(credentials.NewStaticCredentialsProvider(*first.Credentials.AccessKeyId, *first.Credentials.SecretAccessKey, *first.Credentials.SessionToken))
	out, err := second.AssumeRole(t.Context(), &api.AssumeRoleInput{RoleArn: aws.String(develop), RoleSessionName: aws.String("agent-7")})
	if err != nil {
		t.Fatal(err)
	}
	if got := aws.ToString(out.SourceIdentity); got != "mia" {
		t.Errorf("source identity %q", got)
	}
	for name, in := range map[string]*api.AssumeRoleInput{
		"AccessDenied":    {SourceIdentity: aws.String("eve")},
		"ValidationError": {Tags: tags("SESSION", "other")},
	} {
		in.RoleArn, in.RoleSessionName = aws.String(develop), aws.String("agent-7")
		if _, err := second.AssumeRole(t.Context(), in); code(err) != name {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	want := []sts.Assumed{
		{Caller: "arn:aws:sts::111122223333:assumed-role/exchange/exchange", CallerAccessKeyID: key(1, "").AccessKeyID, RoleARN: operate, RoleSessionName: "agent-7", SourceIdentity: "mia",
			Tags: map[string]string{"session": "s-1", "run": "9"}, TransitiveTagKeys: []string{"session"}, DurationSeconds: 3600},
		{Caller: "arn:aws:sts::111122223333:assumed-role/operate/agent-7", CallerAccessKeyID: *first.Credentials.AccessKeyId, RoleARN: develop, RoleSessionName: "agent-7", SourceIdentity: "mia",
			Tags: map[string]string{"session": "s-1"}, DurationSeconds: 3600},
	}
	got := s.Assumed()[:2]
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(sts.Assumed{}, "Time", "AccessKeyID", "Expiration")); diff != "" {
		t.Error(diff)
	}

	w := httptest.NewRecorder()
	s.ServeAssumed(w, nil)
	for _, secret := range []string{*first.Credentials.SecretAccessKey, *first.Credentials.SessionToken, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken, key(1, "").SecretAccessKey} {
		quoted, _ := json.Marshal(secret)
		if strings.Contains(w.Body.String(), strings.Trim(string(quoted), `"`)) {
			t.Error("the log holds a secret")
		}
	}
	if !strings.Contains(w.Body.String(), `"roleSessionName":"agent-7"`) {
		t.Errorf("log: %s", w.Body)
	}
}

func TestExpiry(t *testing.T) {
	for _, tt := range []struct {
		name     string
		lifetime time.Duration
		lives    time.Duration
	}{
		{"as asked", 0, 15 * time.Minute},
		{"shortened", 5 * time.Second, 5 * time.Second},
		{"never lengthened", 2 * time.Hour, 15 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, func(c *sts.Config) { c.Lifetime = tt.lifetime })
			out, err := s.client(creds(key(1, "token+of/exchange=="))).AssumeRole(t.Context(), &api.AssumeRoleInput{
				RoleArn: aws.String(plain), RoleSessionName: aws.String("short"), DurationSeconds: aws.Int32(900)})
			if err != nil {
				t.Fatal(err)
			}
			if got := out.Credentials.Expiration.Sub(s.clock.now()); got > tt.lives || got < tt.lives-time.Second {
				t.Errorf("says it lives %v, want %v", got, tt.lives)
			}
			c := s.client(credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken))
			s.clock.add(tt.lives - time.Millisecond)
			if tt.lives < time.Minute { // the SDK signs with the real clock
				if _, err := c.GetCallerIdentity(t.Context(), &api.GetCallerIdentityInput{}); err != nil {
					t.Errorf("before its end: %v", err)
				}
				s.clock.add(time.Millisecond)
				if _, err := c.GetCallerIdentity(t.Context(), &api.GetCallerIdentityInput{}); code(err) != "ExpiredToken" {
					t.Errorf("after its end: %v", err)
				}
			}
		})
	}
}

// TestForms sends what the SDK would not.
func TestForms(t *testing.T) {
	s := start(t, nil)
	presign := func() string {
		out, err := api.NewPresignClient(s.client(creds(key(1, "token+of/exchange==")))).PresignGetCallerIdentity(context.Background(), &api.GetCallerIdentityInput{})
		if err != nil {
			t.Fatal(err)
		}
		return out.URL
	}
	do := func(method, url, accept, body string) (int, string) {
		r, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, tt := range []struct {
		name, method, url, accept, body string
		status                          int
		want                            string
	}{
		{"presigned, JSON", "GET", presign(), "application/json", "", 200, `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Arn":"arn:aws:sts::111122223333:assumed-role/exchange/exchange"`},
		{"presigned, XML", "GET", presign(), "", "", 200, `<GetCallerIdentityResult><Arn>arn:aws:sts::111122223333:assumed-role/exchange/exchange</Arn>`},
		{"presigned, another method", "POST", presign(), "", "", 403, "SignatureDoesNotMatch"},
		{"presigned, a body", "GET", presign(), "", "Action=AssumeRole", 403, "SignatureDoesNotMatch"},
		{"presigned, another action", "GET", strings.Replace(presign(), "GetCallerIdentity", "AssumeRole", 1), "application/json", "", 403, `{"Error":{"Type":"Sender","Code":"SignatureDoesNotMatch"`},
		{"unsigned", "GET", s.url + "/?Action=GetCallerIdentity&Version=2011-06-15", "", "", 403, "<Code>MissingAuthenticationToken</Code>"},
		{"another path", "GET", s.url + "/x?Action=GetCallerIdentity", "", "", 404, "InvalidAction"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, body := do(tt.method, tt.url, tt.accept, tt.body)
			if got != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s; want %d %s", got, body, tt.status, tt.want)
			}
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*sts.Config){
		"account":            func(c *sts.Config) { c.AccountID = "1" },
		"region":             func(c *sts.Config) { c.Region = "" },
		"principal's ARN":    func(c *sts.Config) { c.Principals[0].ARN = "arn:aws:sts::111122223333:assumed-role/a/b" },
		"role's session":     func(c *sts.Config) { c.Principals[0].Session = "" },
		"user's session":     func(c *sts.Config) { c.Principals[1].Session = "xx" },
		"half credentials":   func(c *sts.Config) { c.Principals[0].Credentials.SecretAccessKey = "" },
		"role's ARN":         func(c *sts.Config) { c.Roles[0].ARN = ana },
		"role's duration":    func(c *sts.Config) { c.Roles[0].MaxSessionDuration = 13 * time.Hour },
		"trust in nobody":    func(c *sts.Config) { c.Roles[0].Trust[0].Callers = nil },
		"trust in everybody": func(c *sts.Config) { c.Roles[0].Trust[0].Callers = []string{"*"} },
	} {
		cfg := sts.Config{AccountID: account, Region: region,
			Principals: []sts.Principal{{ARN: exchange, Session: "exchange", Credentials: key(1, "t")}, {ARN: ana}},
			Roles:      []sts.Role{{ARN: operate, Trust: []sts.Trust{{Callers: []string{exchange}}}}}}
		if _, err := sts.New(cfg); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if _, err := sts.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
