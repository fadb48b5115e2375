package forward

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"sallyport/shared/access"
)

// maxReview bounds the one answer that is read whole.
const maxReview = 1 << 20

// isWhoami says whether an action asks the cluster who it takes the caller for.
func isWhoami(a access.Action) bool {
	return a.Verb == "create" && a.Group == "authentication.k8s.io" && a.Resource == "selfsubjectreviews"
}

// withoutKeyID takes the tier credential's access key id out of a SelfSubjectReview: EKS tells it among the user's
// extra values. It opens nothing by itself, but it is half of a credential, and an agent is to hold none of it. The answer
// was asked for as plain JSON; any other form is not passed on.
func withoutKeyID(res *http.Response) error {
	if media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); media != "application/json" {
		return access.Errorf(access.Upstream, "the cluster answered a SelfSubjectReview in another form than was asked for")
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxReview+1))
	res.Body.Close()
	if err != nil || len(b) > maxReview {
		return access.Errorf(access.Upstream, "the cluster's SelfSubjectReview did not arrive whole").Because(err)
	}
	var review map[string]any
	if err := json.Unmarshal(b, &review); err != nil {
		return access.Errorf(access.Upstream, "the cluster's SelfSubjectReview cannot be read").Because(fmt.Errorf("decoding: %w", err))
	}
	if status, ok := review["status"].(map[string]any); ok {
		if user, ok := status["userInfo"].(map[string]any); ok {
			if extra, ok := user["extra"].(map[string]any); ok {
				for name := range extra {
					if strings.HasSuffix(strings.ToLower(name), "accesskeyid") {
						delete(extra, name)
					}
				}
			}
		}
	}
	if b, err = json.Marshal(review); err != nil {
		return fmt.Errorf("encoding a SelfSubjectReview: %w", err)
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	res.ContentLength = int64(len(b))
	res.Header.Set("Content-Length", strconv.Itoa(len(b)))
	return nil
}
