package sts

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/local/aws/sigv4"
)

var (
	tagKey     = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,128}$`)
	tagValue   = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}$`)
	externalID = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
	member     = regexp.MustCompile(`^(Tags|TransitiveTagKeys|PolicyArns)\.member\.([1-9][0-9]{0,2})(?:\.(Key|Value|arn))?$`)
)

const (
	maxTags       = 50
	maxPolicyARNs = 10
	maxPolicy     = 2048
)

func invalid(format string, args ...any) *sigv4.Error {
	return &sigv4.Error{Code: "ValidationError", Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

func constraint(value, name, what string) *sigv4.Error {
	return invalid("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy %s", value, name, what)
}

func denied(format string, args ...any) *sigv4.Error {
	return &sigv4.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: fmt.Sprintf(format, args...)}
}

// ask is an AssumeRole call, read and found well-formed.
type ask struct {
	role, session, source, externalID string
	duration                          time.Duration
	tags                              map[string]string
	transitive                        []string
}

func parseAsk(form url.Values) (ask, *sigv4.Error) {
	a := ask{duration: defaultDuration, tags: map[string]string{}}
	keys, values := map[int]string{}, map[int]string{}
	for name, vs := range form {
		if len(vs) != 1 {
			return a, invalid("parameter %s is given %d times", name, len(vs))
		}
		v := vs[0]
		switch name {
		case "Action", "Version":
		case "RoleArn":
			a.role = v
		case "RoleSessionName":
			a.session = v
		case "SourceIdentity":
			if !sessionName.MatchString(v) || strings.HasPrefix(strings.ToLower(v), "aws:") {
				return a, constraint(v, "sourceIdentity", `regular expression pattern: [\w+=,.@-]*, length 2 to 64`)
			}
			a.source = v
		case "ExternalId":
			if !externalID.MatchString(v) || len(v) < 2 || len(v) > 1224 {
				return a, constraint(v, "externalId", `regular expression pattern: [\w+=,.@:\/-]*, length 2 to 1224`)
			}
			a.externalID = v
		case "DurationSeconds":
			n, err := strconv.Atoi(v)
			if err != nil {
				return a, invalid("DurationSeconds %q is not a number", v)
			}
			a.duration = time.Duration(n) * time.Second
			if a.duration < minDuration {
				return a, constraint(v, "durationSeconds", "value greater than or equal to 900")
			}
			if a.duration > maxDuration {
				return a, constraint(v, "durationSeconds", "value less than or equal to 43200")
			}
		case "Policy":
			// A session policy can only narrow what IAM allows; with no IAM here it has nothing to narrow.
			if len(v) > maxPolicy || !json.Valid([]byte(v)) {
				return a, &sigv4.Error{Code: "MalformedPolicyDocument", Status: http.StatusBadRequest, Message: "This policy contains invalid Json"}
			}
		default:
			m := member.FindStringSubmatch(name)
			if m == nil {
				return a, invalid("parameter %s is not known to this stand-in", name)
			}
			i, _ := strconv.Atoi(m[2])
			switch {
			case m[1] == "Tags" && m[3] == "Key":
				keys[i] = v
			case m[1] == "Tags" && m[3] == "Value":
				values[i] = v
			case m[1] == "TransitiveTagKeys" && m[3] == "" && i <= maxTags:
				a.transitive = append(a.transitive, v)
			case m[1] == "PolicyArns" && m[3] == "arn" && i <= maxPolicyARNs:
			default:
				return a, invalid("parameter %s cannot be read", name)
			}
		}
	}
	if m := iamARN.FindStringSubmatch(a.role); m == nil || m[2] != "role" {
		return a, invalid("%s is invalid", a.role)
	}
	if !sessionName.MatchString(a.session) {
		return a, constraint(a.session, "roleSessionName", `regular expression pattern: [\w+=,.@-]*, length 2 to 64`)
	}
	if len(keys) != len(values) || len(keys) > maxTags {
		return a, constraint(fmt.Sprint(len(keys)), "tags", "length less than or equal to 50, each with key and value")
	}
	seen := map[string]bool{}
	for i, k := range keys {
		v, ok := values[i]
		if !ok || !tagKey.MatchString(k) || !tagValue.MatchString(v) {
			return a, constraint(k, fmt.Sprintf("tags.%d.member", i), `regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+, key 1 to 128, value 0 to 256 characters`)
		}
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return a, invalid("tag keys may not begin with aws:, as %q does", k)
		}
		l := strings.ToLower(k)
		if seen[l] {
			return a, invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[l] = true
		a.tags[k] = v
	}
	slices.Sort(a.transitive)
	return a, nil
}

// assume is AssumeRole for a verified caller.
func (s *Server) assume(caller *session, form url.Values) (*session, *sigv4.Error) {
	a, err := parseAsk(form)
	now := s.now()
	entry := Assumed{
		Time: now, Caller: caller.ARN, CallerAccessKeyID: caller.AccessKeyID,
		RoleARN: a.role, RoleSessionName: a.session, SourceIdentity: a.source,
		Tags: a.tags, TransitiveTagKeys: a.transitive, DurationSeconds: int(a.duration / time.Second),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var minted *session
	if err == nil {
		minted, err = s.mint(caller, a, now, &entry)
	}
	if err != nil {
		entry.Error, entry.Message = err.Code, err.Message
	}
	s.assumed = append(s.assumed, entry)
	if over := len(s.assumed) - logLimit; over > 0 {
		s.assumed = slices.Delete(s.assumed, 0, over)
	}
	return minted, err
}

func (s *Server) mint(caller *session, a ask, now time.Time, entry *Assumed) (*session, *sigv4.Error) {
	notAuthorized := func() *sigv4.Error {
		return denied("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", caller.ARN, a.role)
	}
	role, ok := s.roles[a.role]
	if !ok {
		return nil, notAuthorized() // AWS does not tell a missing role from a closed one
	}

	// What the caller carries goes on to the new session.
	source := a.source
	if caller.SourceIdentity != "" {
		if source != "" && source != caller.SourceIdentity {
			return nil, denied("User: %s is not authorized to perform: sts:SetSourceIdentity on resource: %s: the source identity cannot be changed once it is set", caller.ARN, a.role)
		}
		source = caller.SourceIdentity
	}
	tags := maps.Clone(a.tags)
	for k := range a.tags {
		for inherited := range caller.transitive {
			if strings.EqualFold(k, inherited) {
				return nil, invalid("tag %q is already set as a transitive tag and cannot be passed again", k)
			}
		}
	}
	maps.Copy(tags, caller.transitive)
	transitive := maps.Clone(caller.transitive)
	if transitive == nil {
		transitive = map[string]string{}
	}
	for _, k := range a.transitive {
		v, ok := tags[k]
		if !ok {
			return nil, invalid("the transitive tag key %q is not a tag of this session", k)
		}
		transitive[k] = v
	}
	entry.SourceIdentity, entry.Tags = source, tags

	var why *sigv4.Error
	trusted := false
	for _, t := range role.Trust {
		if why = t.allows(caller, a, source, tags); why == nil {
			trusted = true
			break
		}
	}
	if !trusted {
		if why == nil {
			why = notAuthorized()
		}
		return nil, why
	}

	if caller.Session && a.duration > chainedDuration {
		return nil, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	if a.duration > role.MaxSessionDuration {
		return nil, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	lives := a.duration
	if s.cfg.Lifetime > 0 {
		lives = min(lives, s.cfg.Lifetime)
	}
	m := iamARN.FindStringSubmatch(role.ARN)
	c := newCredentials(true)
	se := &session{
		credentials: c, expires: now.Add(lives), transitive: transitive,
		Caller: Caller{IAM: role.ARN, AccountID: m[1], SourceIdentity: source, AccessKeyID: c.AccessKeyID},
	}
	se.become(m[1], m[4], a.session)
	s.remember(se, now)
	entry.AccessKeyID, entry.Expiration = c.AccessKeyID, se.expires
	return se, nil
}

// allows says why this statement does not allow the ask, nil when it does.
func (t Trust) allows(caller *session, a ask, source string, tags map[string]string) *sigv4.Error {
	no := func(action string) *sigv4.Error {
		return denied("User: %s is not authorized to perform: sts:%s on resource: %s", caller.ARN, action, a.role)
	}
	if !slices.Contains(t.Callers, caller.IAM) {
		return no("AssumeRole")
	}
	if t.ExternalID != "" && a.externalID != t.ExternalID {
		return no("AssumeRole")
	}
	for _, k := range t.RequireTags {
		if _, ok := tags[k]; !ok {
			return no("TagSession")
		}
	}
	for k := range tags {
		if !slices.Contains(t.RequireTags, k) && !slices.Contains(t.AllowTags, k) {
			return no("TagSession")
		}
	}
	if source == "" && t.RequireSourceIdentity || source != "" && !t.AllowSourceIdentity && !t.RequireSourceIdentity {
		return no("SetSourceIdentity")
	}
	return nil
}
