package eks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/aws-iam-authenticator/pkg/token"
)

// NewVerifier makes aws-iam-authenticator's verifier for a cluster, with its calls to STS, whatever AWS name they are
// for, dialled to the server at addr and verified against pool. Nothing it does leaves this machine.
//
// The library has no option for this: its HTTP client is in an unexported field and uses http.DefaultTransport, which
// belongs to the whole process. So the client is reached by reflection and given a transport of its own; if a new
// release moves it, this returns an error and no webhook starts. TestVerifierKeepsToItself holds both.
func NewVerifier(cluster, region, addr string, pool *x509.CertPool) (token.Verifier, error) {
	v := token.NewVerifier(cluster, "aws", region)
	field := reflect.Indirect(reflect.ValueOf(v)).FieldByName("client")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*http.Client]() || field.IsNil() {
		return nil, fmt.Errorf("the verifier %T has no *http.Client in its field client", v)
	}
	(*http.Client)(field.UnsafePointer()).Transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
		},
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
	}
	return v, nil
}

// Review says who a token is to a cluster, as EKS does.
func (s *Server) Review(cluster, tok string) (authv1.UserInfo, error) {
	s.mu.RLock()
	c, err := s.find(cluster)
	s.mu.RUnlock()
	if err != nil {
		return authv1.UserInfo{}, err
	}
	if c.verify == nil {
		return authv1.UserInfo{}, errNoVerifier
	}
	id, err := c.verify.Verify(tok)
	if err != nil {
		return authv1.UserInfo{}, safe(err)
	}
	k, ok := matchKey(id.CanonicalARN)
	if !ok {
		return authv1.UserInfo{}, fmt.Errorf("%s is neither a role nor a user", id.CanonicalARN)
	}
	s.mu.RLock()
	e := c.entries[k] // an update replaces the entry, so what it points to does not change
	s.mu.RUnlock()
	if e == nil {
		return authv1.UserInfo{}, fmt.Errorf("cluster %s has no access entry for %s", cluster, id.CanonicalARN)
	}
	u := authv1.UserInfo{
		// One pass, so that a session name can never bring in a template of its own.
		Username: strings.NewReplacer(
			"{{AccountID}}", id.AccountID,
			"{{SessionName}}", strings.ReplaceAll(id.SessionName, "@", "-"),
			"{{SessionNameRaw}}", id.SessionName,
		).Replace(e.Username),
		UID:    "aws-iam-authenticator:" + id.AccountID + ":" + id.UserID,
		Groups: e.Groups,
		Extra: map[string]authv1.ExtraValue{
			"arn":          {id.ARN},
			"canonicalArn": {id.CanonicalARN},
			"accessKeyId":  {id.AccessKeyID},
			"principalId":  {id.UserID},
			"sessionName":  {id.SessionName},
			"sigs.k8s.io/aws-iam-authenticator/principalId": {id.UserID},
		},
	}
	return u, nil
}

// safe keeps what a token holds out of logs and answers: an error of url.Parse quotes the whole URL, signature and all.
func safe(err error) error {
	if s := err.Error(); strings.Contains(s, "://") || strings.Contains(s, "parse ") || strings.Contains(strings.ToLower(s), "x-amz-signature") {
		return errors.New("input token was not properly formatted: it holds no readable URL")
	}
	return err
}

// Webhook is what the API servers call: POST /authenticate/{cluster} with a TokenReview. The log gets who was let in
// and why somebody was not, never a token.
func (s *Server) Webhook(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /authenticate/{cluster}", func(w http.ResponseWriter, r *http.Request) {
		cluster := r.PathValue("cluster")
		var in authv1.TokenReview
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(w, "the body is not a TokenReview", http.StatusBadRequest)
			return
		}
		if in.APIVersion != authv1.SchemeGroupVersion.String() || in.Kind != "TokenReview" {
			http.Error(w, "this webhook speaks authentication.k8s.io/v1 TokenReview", http.StatusBadRequest)
			return
		}
		out := authv1.TokenReview{TypeMeta: in.TypeMeta}
		u, err := s.Review(cluster, in.Spec.Token)
		if err != nil {
			log.Info("token refused", "cluster", cluster, "error", err)
			out.Status.Error = err.Error()
		} else {
			log.Debug("token accepted", "cluster", cluster, "user", u.Username, "groups", u.Groups)
			out.Status.Authenticated, out.Status.User = true, u
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
	return mux
}

// Kubeconfig is the file an API server takes by --authentication-token-webhook-config-file: how to reach the webhook of
// cluster at base, such as https://127.0.0.1:4567, verified by the PEM certificates in ca.
func Kubeconfig(cluster, base string, ca []byte) ([]byte, error) {
	type m = map[string]any
	b, err := json.MarshalIndent(m{ // JSON is YAML
		"apiVersion": "v1", "kind": "Config", "current-context": "webhook",
		"clusters": []m{{"name": "webhook", "cluster": m{"server": base + "/authenticate/" + cluster, "certificate-authority-data": ca}}},
		"users":    []m{{"name": "apiserver", "user": m{}}},
		"contexts": []m{{"name": "webhook", "context": m{"cluster": "webhook", "user": "apiserver"}}},
	}, "", "  ")
	return append(b, '\n'), err
}
