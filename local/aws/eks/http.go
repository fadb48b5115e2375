package eks

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const maxBody = 1 << 20

type entryJSON struct {
	AccessEntryARN   string            `json:"accessEntryArn"`
	ClusterName      string            `json:"clusterName"`
	CreatedAt        float64           `json:"createdAt"`
	KubernetesGroups []string          `json:"kubernetesGroups"`
	ModifiedAt       float64           `json:"modifiedAt"`
	PrincipalARN     string            `json:"principalArn"`
	Tags             map[string]string `json:"tags"`
	Type             string            `json:"type"`
	Username         string            `json:"username"`
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (e entry) json() any {
	out := entryJSON{e.arn, e.Cluster, seconds(e.created), e.Groups, seconds(e.modified), e.PrincipalARN, e.Tags, e.Type, e.Username}
	if out.KubernetesGroups == nil {
		out.KubernetesGroups = []string{}
	}
	if out.Tags == nil {
		out.Tags = map[string]string{}
	}
	return map[string]any{"accessEntry": out}
}

// ServeHTTP answers the part of EKS's API that access needs. It verifies no signature: see the package comment.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Requestid", uuid())
	out, err := s.serve(r)
	if err != nil {
		var refused *Error
		if !errors.As(err, &refused) {
			refused = &Error{Code: "ServerException", Status: http.StatusInternalServerError, Message: err.Error()}
		}
		w.Header().Set("X-Amzn-Errortype", refused.Code)
		w.WriteHeader(refused.Status)
		_ = json.NewEncoder(w).Encode(map[string]any{"__type": refused.Code, "message": refused.Message, "clusterName": nonEmpty(refused.Cluster)})
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// serve reads the escaped path: a principal's ARN is one segment, its slashes are escaped.
func (s *Server) serve(r *http.Request) (any, error) {
	var seg []string
	for p := range strings.SplitSeq(strings.Trim(r.URL.EscapedPath(), "/"), "/") {
		u, err := url.PathUnescape(p)
		if err != nil {
			return nil, invalid("", "the path cannot be read")
		}
		seg = append(seg, u)
	}
	if seg[0] == "clusters" {
		switch {
		case len(seg) == 1 && r.Method == http.MethodGet:
			return map[string]any{"clusters": s.Clusters()}, nil
		case len(seg) == 2 && r.Method == http.MethodGet:
			return s.describeCluster(seg[1])
		case len(seg) == 3 && seg[2] == "access-entries" && r.Method == http.MethodGet:
			return s.list(seg[1], r.URL.Query())
		case len(seg) == 3 && seg[2] == "access-entries" && r.Method == http.MethodPost:
			return s.serveCreate(seg[1], r)
		case len(seg) == 4 && seg[2] == "access-entries":
			return s.serveEntry(seg[1], seg[3], r)
		}
	}
	return nil, &Error{Code: "InvalidRequestException", Status: http.StatusBadRequest,
		Message: "the local EKS has DescribeCluster, ListClusters and access entries, not " + r.Method + " " + r.URL.Path}
}

func (s *Server) describeCluster(name string) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.find(name)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"name": c.Name, "arn": "arn:aws:eks:" + s.cfg.Region + ":" + s.cfg.AccountID + ":cluster/" + c.Name,
		"createdAt": seconds(c.created), "status": c.status(), "tags": map[string]string{},
		"accessConfig": map[string]any{"authenticationMode": "API"},
	}
	if c.Version != "" {
		out["version"] = c.Version
	}
	if c.Endpoint != "" {
		out["endpoint"] = c.Endpoint
		out["certificateAuthority"] = map[string]string{"data": c.caData()}
	}
	return map[string]any{"cluster": out}, nil
}

func (s *Server) list(cluster string, q url.Values) (any, error) {
	all, err := s.ListAccessEntries(cluster)
	if err != nil {
		return nil, err
	}
	n := 100
	if m := q.Get("maxResults"); m != "" {
		if n, err = strconv.Atoi(m); err != nil || n < 1 || n > 100 {
			return nil, invalid(cluster, "maxResults must be 1 to 100")
		}
	}
	if q.Get("associatedPolicyArn") != "" {
		all = nil // access policies are not part of this stand-in
	}
	from := q.Get("nextToken") // the last principal of the page before
	out := map[string]any{}
	page := []string{}
	for _, p := range all {
		if p <= from && from != "" {
			continue
		}
		if len(page) == n {
			out["nextToken"] = page[n-1]
			break
		}
		page = append(page, p)
	}
	out["accessEntries"] = page
	return out, nil
}

func (s *Server) serveCreate(cluster string, r *http.Request) (any, error) {
	var in struct {
		ClientRequestToken string            `json:"clientRequestToken"`
		KubernetesGroups   []string          `json:"kubernetesGroups"`
		PrincipalARN       string            `json:"principalArn"`
		Tags               map[string]string `json:"tags"`
		Type               string            `json:"type"`
		Username           string            `json:"username"`
	}
	if err := read(cluster, r, &in); err != nil {
		return nil, err
	}
	e, err := s.create(AccessEntry{Cluster: cluster, PrincipalARN: in.PrincipalARN, Username: in.Username,
		Groups: in.KubernetesGroups, Tags: in.Tags, Type: in.Type}, in.ClientRequestToken)
	if err != nil {
		return nil, err
	}
	return e.json(), nil
}

func (s *Server) serveEntry(cluster, principal string, r *http.Request) (any, error) {
	switch r.Method {
	case http.MethodGet:
		s.mu.RLock()
		defer s.mu.RUnlock()
		_, _, e, err := s.findEntry(cluster, principal)
		if err != nil {
			return nil, err
		}
		return e.json(), nil
	case http.MethodDelete:
		return map[string]any{}, s.DeleteAccessEntry(cluster, principal)
	case http.MethodPost:
		var in struct {
			KubernetesGroups *[]string `json:"kubernetesGroups"`
			Username         *string   `json:"username"`
		}
		if err := read(cluster, r, &in); err != nil {
			return nil, err
		}
		e, err := s.update(cluster, principal, in.KubernetesGroups, in.Username)
		if err != nil {
			return nil, err
		}
		return e.json(), nil
	default:
		return nil, invalid(cluster, "method %s is not known here", r.Method)
	}
}

func read(cluster string, r *http.Request, v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return invalid(cluster, "the body cannot be read as JSON")
	}
	return nil
}
