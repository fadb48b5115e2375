package stacktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// transcript is what agents were shown and the tokens they used.
type transcript struct {
	mu     sync.Mutex
	shown  []exchange
	tokens []string
}

type exchange struct{ what, text string }

func newTranscript() *transcript { return &transcript{} }

func (s *transcript) show(what string, texts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range texts {
		if text != "" {
			s.shown = append(s.shown, exchange{what, text})
		}
	}
}

func (s *transcript) secret(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, token)
}

// Show adds something that an agent was shown.
func (s *Stack) Show(what string, texts ...string) { s.seen.show(what, texts...) }

// Credentials is what no agent may be shown, and no log and no record may hold: a token for EKS, an AWS access key id,
// a signature of AWS's, a session token of STS, a private key.
var Credentials = regexp.MustCompile(`k8s-aws-v1\.[A-Za-z0-9_-]{8,}|\bA[SK]IA[A-Z0-9]{12,}|(?i:X-Amz-(Signature|Credential|Security-Token))|\b(IQoJ|FwoG|FQoG)[A-Za-z0-9+/]{30,}|BEGIN [A-Z ]*PRIVATE KEY`)

// keyID is the one of them that is a name and no secret; logs of AWS, and the cluster's audit log as EKS writes it, have it.
var keyID = regexp.MustCompile(`^A[SK]IA`)

// jwt is a signed token of anybody's.
var jwt = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`)

// Sweep searches everything that was shown, logged and recorded for what must not be in it, and the cluster's audit log
// for anything that no agent may do. It returns what it found.
func (s *Stack) Sweep() []string {
	var found []string
	say := func(format string, a ...any) { found = append(found, fmt.Sprintf(format, a...)) }
	secrets := s.secrets()

	s.seen.mu.Lock()
	shown, tokens := s.seen.shown, s.seen.tokens
	s.seen.mu.Unlock()
	for _, x := range shown {
		if m := Credentials.FindString(x.text); m != "" {
			say("an agent was shown %q: %s", m, clip(x.what))
		}
		for name, secret := range secrets {
			if strings.Contains(x.text, secret) {
				say("an agent was shown %s: %s", name, clip(x.what))
			}
		}
	}
	kept, err := s.kept()
	if err != nil {
		say("%v", err)
	}
	for where, text := range kept {
		for _, m := range Credentials.FindAllString(text, -1) {
			if !keyID.MatchString(m) {
				say("%s holds %q", where, m)
				break
			}
		}
		if m := jwt.FindString(text); m != "" {
			say("%s holds the token %s…", where, m[:min(len(m), 40)])
		}
		for name, secret := range secrets {
			if strings.Contains(text, secret) {
				say("%s holds %s", where, name)
			}
		}
		for _, token := range tokens {
			// The signature alone is enough to finish a token whose claims are known.
			if sig := token[strings.LastIndexByte(token, '.')+1:]; len(sig) >= 40 && strings.Contains(text, sig) {
				say("%s holds a token that a test used", where)
				break
			}
		}
	}
	found = append(found, s.trespasses(len(shown) > 0, approved(kept))...)
	if len(found) == 0 {
		fmt.Printf("sweep: %d things shown to agents, %d files and recordings, %d tokens: nothing in them that must not be\n", len(shown), len(kept), len(tokens))
	}
	return found
}

// secrets are the long-lived ones this stack's processes hold, by what they are.
func (s *Stack) secrets() map[string]string {
	out := map[string]string{}
	pids := maps.Clone(s.PIDs)
	for i, pid := range children(s.PIDs["aws"]) {
		pids[fmt.Sprintf("function %d", i)] = pid
	}
	for name, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			continue
		}
		env := strings.Split(string(b), "\x00")
		for _, v := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
			if secret := Lookup(env, v); len(secret) >= 16 { // moto's is a word
				out[v+" of "+name] = secret
			}
		}
	}
	return out
}

// children are the processes that a process started itself.
func children(parent int) []int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	var pids []int
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, field := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// kept is what the stack keeps: logs, recordings, the cluster's audit log.
func (s *Stack) kept() (map[string]string, error) {
	kept, err := s.Logs()
	if err != nil {
		return nil, err
	}
	audit, err := os.ReadFile(s.Cluster.AuditLog)
	if err != nil {
		return kept, err
	}
	kept["the cluster's audit log"] = string(audit)
	sallyport := func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(s.Root, "bin", "sallyport"), append([]string{"sessions"}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("sallyport sessions %s: %w", strings.Join(args, " "), err)
		}
		return string(out), nil
	}
	list, err := sallyport("list", "--json", "--limit", "0")
	if err != nil {
		return kept, err
	}
	kept["sessions list"] = list
	if kept["sessions show --refused"], err = sallyport("show", "--refused", "--json"); err != nil {
		return kept, err
	}
	var listed struct{ Sessions []Session }
	if err := json.Unmarshal([]byte(list), &listed); err != nil {
		return kept, err
	}
	for _, l := range listed.Sessions {
		if kept["the recording of session "+l.ID], err = sallyport("show", l.ID, "--json"); err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// approved are the audit ids of what was recorded as let through by an approval that names who said yes.
func approved(kept map[string]string) map[types.UID]bool {
	ids := map[types.UID]bool{}
	for where, text := range kept {
		if !strings.HasPrefix(where, "the recording of session ") {
			continue
		}
		var r Recording
		if json.Unmarshal([]byte(text), &r) != nil {
			continue
		}
		for _, e := range r.Events {
			if e.Annotations["sallyport.io/approval"] != "" && e.Annotations["sallyport.io/approved-by"] != "" {
				ids[e.AuditID] = true
			}
		}
	}
	return ids
}

// trespasses are requests in the cluster's audit log that no agent may make, whatever its tier: with the privileged tier,
// all that no approval let through. Where agents were at work the log must name some, or the wrong one was looked at.
func (s *Stack) trespasses(worked bool, approved map[types.UID]bool) []string {
	events, err := s.audit()
	if err != nil {
		return []string{err.Error()}
	}
	reviews := []string{"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}
	streams := []string{"exec", "attach", "portforward"}
	var found []string
	agents := 0
	for _, e := range events {
		if !strings.Contains(e.User.Username, ":assumed-role/") {
			continue
		}
		agents++
		if e.UserAgent == PastTheGate || isObserved(e.User.Username) && e.ResponseStatus != nil && e.ResponseStatus.Code == http.StatusForbidden {
			continue
		}
		o := e.ObjectRef
		if o == nil {
			o = &auditv1.ObjectReference{}
		}
		read := e.Verb == "get" || e.Verb == "list" || e.Verb == "watch"
		switch {
		case strings.Contains(e.User.Username, ":assumed-role/maintain/"):
			if !approved[e.AuditID] {
				found = append(found, fmt.Sprintf("the cluster was asked to %s %s by %s, which no approval let through", e.Verb, e.RequestURI, e.User.Username))
			}
		case e.ImpersonatedUser != nil:
			found = append(found, fmt.Sprintf("%s impersonated %s", e.User.Username, e.ImpersonatedUser.Username))
		case read && o.Subresource != "proxy":
		case e.Verb == "create" && o.Subresource == "" && slices.Contains(reviews, o.Resource):
		case strings.HasSuffix(o.APIGroup, ".example.com"): // kinds a test brought, and a policy that names them
		case (e.Verb == "update" || e.Verb == "patch") && o.APIGroup == "apps" && strings.Contains(e.User.Username, ":assumed-role/operate/"): // scale and restart
		case o.Namespace == "dev" && strings.Contains(e.User.Username, ":assumed-role/develop/") && o.Resource != "secrets" && o.APIGroup != "rbac.authorization.k8s.io":
		case (e.Verb == "create" || e.Verb == "get") && o.Resource == "pods" && slices.Contains(streams, o.Subresource):
		default:
			found = append(found, fmt.Sprintf("the cluster was asked to %s %s by %s", e.Verb, e.RequestURI, e.User.Username))
		}
	}
	if worked && agents == 0 {
		found = append(found, "the cluster's audit log names no agent; what was looked at?")
	}
	return found
}
