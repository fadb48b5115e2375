package sts

import (
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sallyport/local/aws/sigv4"
)

const (
	version   = "2011-06-15"
	namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	maxBody   = 1 << 20
)

type metadata struct {
	RequestID string `xml:"RequestId" json:"RequestId"`
}

type identityResult struct {
	Arn     string
	UserID  string `xml:"UserId" json:"UserId"`
	Account string
}

type identityResponse struct {
	XMLName          xml.Name       `xml:"GetCallerIdentityResponse" json:"-"`
	NS               string         `xml:"xmlns,attr" json:"-"`
	Result           identityResult `xml:"GetCallerIdentityResult" json:"GetCallerIdentityResult"`
	ResponseMetadata metadata
}

type assumeResponse struct {
	XMLName xml.Name `xml:"AssumeRoleResponse" json:"-"`
	NS      string   `xml:"xmlns,attr" json:"-"`
	Result  struct {
		AssumedRoleUser struct {
			AssumedRoleID string `xml:"AssumedRoleId" json:"AssumedRoleId"`
			Arn           string
		}
		Credentials struct {
			AccessKeyID     string `xml:"AccessKeyId" json:"AccessKeyId"`
			SecretAccessKey string
			SessionToken    string
			Expiration      string
		}
		PackedPolicySize int
		SourceIdentity   string `xml:",omitempty" json:",omitempty"`
	} `xml:"AssumeRoleResult" json:"AssumeRoleResult"`
	ResponseMetadata metadata
}

type errorBody struct {
	Type    string
	Code    string
	Message string
}

type errorResponse struct {
	XMLName   xml.Name  `xml:"ErrorResponse" json:"-"`
	NS        string    `xml:"xmlns,attr" json:"-"`
	Error     errorBody `xml:"Error" json:"Error"`
	RequestID string    `xml:"RequestId" json:"RequestId"`
}

// ServeHTTP answers STS's query protocol, in JSON where the caller asks for it and in XML otherwise.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := requestID()
	w.Header().Set("X-Amzn-Requestid", id)
	out, name, err := s.serve(r, id)
	if err != nil {
		var refused *sigv4.Error
		if !errors.As(err, &refused) {
			refused = &sigv4.Error{Code: "InternalFailure", Status: http.StatusInternalServerError, Message: err.Error()}
		}
		kind := "Sender"
		if refused.Status >= 500 {
			kind = "Receiver"
		}
		write(w, r, refused.Status, "", errorResponse{NS: namespace, Error: errorBody{kind, refused.Code, refused.Message}, RequestID: id})
		return
	}
	write(w, r, http.StatusOK, name, out)
}

func (s *Server) serve(r *http.Request, id string) (any, string, error) {
	if r.URL.Path != "/" || r.Method != http.MethodGet && r.Method != http.MethodPost {
		return nil, "", &sigv4.Error{Code: "InvalidAction", Status: http.StatusNotFound, Message: "STS is served at / by GET and POST"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, "", invalid("the body cannot be read")
	}
	caller, err := s.authenticate(r, body)
	if err != nil {
		return nil, "", err
	}
	form, err := parameters(r, body)
	if err != nil {
		return nil, "", err
	}
	if v := form.Get("Version"); v != version {
		return nil, "", &sigv4.Error{Code: "InvalidAction", Status: http.StatusBadRequest, Message: fmt.Sprintf("Could not find operation %s for version %s", form.Get("Action"), v)}
	}
	switch action := form.Get("Action"); action {
	case "GetCallerIdentity":
		return identityResponse{NS: namespace, ResponseMetadata: metadata{id},
			Result: identityResult{Arn: caller.ARN, UserID: caller.UserID, Account: caller.AccountID}}, action, nil
	case "AssumeRole":
		se, refused := s.assume(caller, form)
		if refused != nil {
			return nil, "", refused
		}
		out := assumeResponse{NS: namespace, ResponseMetadata: metadata{id}}
		out.Result.AssumedRoleUser.Arn, out.Result.AssumedRoleUser.AssumedRoleID = se.ARN, se.UserID
		c := &out.Result.Credentials
		c.AccessKeyID, c.SecretAccessKey, c.SessionToken = se.credentials.AccessKeyID, se.credentials.SecretAccessKey, se.credentials.SessionToken
		// Whole seconds, rounded up would promise too much.
		c.Expiration = se.expires.UTC().Format(time.RFC3339)
		out.Result.SourceIdentity = se.SourceIdentity
		return out, action, nil
	default:
		return nil, "", &sigv4.Error{Code: "InvalidAction", Status: http.StatusBadRequest, Message: fmt.Sprintf("Could not find operation %s for version %s", action, version)}
	}
}

// parameters are the query's and, of a form, the body's; the signature's own are left out. A name in both is refused,
// so that no two readers can disagree about its value.
func parameters(r *http.Request, body []byte) (url.Values, error) {
	form, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query cannot be read")
	}
	for k := range form {
		if strings.HasPrefix(k, "X-Amz-") {
			delete(form, k)
		}
	}
	if len(body) == 0 {
		return form, nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return nil, invalid("the body must be application/x-www-form-urlencoded")
	}
	posted, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, invalid("the body cannot be read")
	}
	for k, v := range posted {
		if form.Has(k) {
			return nil, invalid("parameter %s is given twice", k)
		}
		form[k] = v
	}
	return form, nil
}

func write(w http.ResponseWriter, r *http.Request, status int, action string, v any) {
	w.Header().Set("Cache-Control", "no-store")
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		if action != "" {
			v = map[string]any{action + "Response": v}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(v)
}

func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ServeAssumed lists what Assumed returns, as JSON.
func (s *Server) ServeAssumed(w http.ResponseWriter, _ *http.Request) {
	list := s.Assumed()
	if list == nil {
		list = []Assumed{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"assumed": list})
}
