package stack

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sallyport/shared/settings"
)

// fill makes a policy file one of this stack: its cluster, its tiers' roles in the local account, and its issuer. An
// issuer whose url is "local" becomes the stack's; when none is, the stack's is added, with its groups claim. A file that
// is of this stack already stays as it is, byte for byte, so its lines are those that whoever wrote it knows.
func fill(file []byte, issuer, cluster string) ([]byte, error) {
	return rewrite(file, cluster, func(root *yaml.Node) bool {
		changed, found := false, false
		issuers, added := sequence(root, "issuers")
		for _, i := range issuers.Content {
			if u := value(i, "url"); u == nil || u.Value == "local" || u.Value == issuer {
				found = true
				changed = set(i, "url", scalar(issuer)) || changed
				changed = set(i, "private", yes()) || changed
				if value(i, "algorithms") == nil {
					changed = set(i, "algorithms", list("ES256", "RS256")) || changed
				}
			}
		}
		if !found {
			issuers.Content = append(issuers.Content, local(issuer, ""))
		}
		for _, r := range items(root, "reviewers") {
			if u := value(r, "issuer"); u != nil && u.Value == "local" {
				changed = set(r, "issuer", scalar(issuer)) || changed
			}
		}
		return changed || added || !found
	})
}

// adopt makes the policy that is deployed to AWS the one this stack starts with: its rules and tiers as they are, but
// of its issuers the stack's own alone, who is the reviewers' too.
func adopt(file []byte, issuer, cluster string) ([]byte, error) {
	return rewrite(file, cluster, func(root *yaml.Node) bool {
		set(root, "issuers", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{local(issuer, "owner")}})
		for _, r := range items(root, "reviewers") {
			if value(r, "issuer") != nil {
				set(r, "issuer", scalar(issuer))
			}
		}
		return true
	})
}

// local is the stack's issuer.
func local(url, owner string) *yaml.Node {
	i := &yaml.Node{Kind: yaml.MappingNode}
	set(i, "url", scalar(url))
	set(i, "private", yes())
	set(i, "algorithms", list("ES256", "RS256"))
	if owner != "" {
		set(i, "owner", scalar(owner))
	}
	set(i, "groupsClaim", scalar("groups"))
	return i
}

// rewrite changes a policy file: its issuers as told, its clusters and its tiers' roles to this stack's.
func rewrite(file []byte, cluster string, issuers func(root *yaml.Node) (changed bool)) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("it is no mapping; begin with apiVersion: sallyport/v1")
	}
	root := doc.Content[0]
	changed := issuers(root)
	c := &yaml.Node{Kind: yaml.MappingNode}
	set(c, "name", scalar(cluster))
	set(c, "region", scalar(Region))
	changed = set(root, "clusters", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{c}}) || changed
	for _, t := range items(root, "tiers") {
		if name := value(t, "name"); name != nil {
			changed = set(t, "role", scalar(roleARN(name.Value))) || changed
		}
	}
	if !changed {
		return file, nil
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// inOriginal gives an error about a filled-in policy the line that the user knows: that of the same place in the file
// as it was written.
func inOriginal(file, filled []byte, err error) error {
	m := lineOf.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	var place string
	places(filled, func(path, line string) {
		if line == m[1] && place == "" {
			place = path
		}
	})
	for ; place != ""; place = place[:strings.LastIndexByte(place, '/')] {
		found := ""
		places(file, func(path, line string) {
			if path == place && found == "" {
				found = line
			}
		})
		if found != "" {
			return errors.New(strings.Replace(err.Error(), "line "+m[1]+":", "line "+found+":", 1))
		}
	}
	return err
}

var lineOf = regexp.MustCompile(`line (\d+):`)

// places tells of every key and list item of a YAML file in which line it stands.
func places(file []byte, tell func(path, line string)) {
	var doc yaml.Node
	if yaml.Unmarshal(file, &doc) != nil || len(doc.Content) == 0 {
		return
	}
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		for i, c := range n.Content {
			at := path + "/" + strconv.Itoa(i)
			if n.Kind == yaml.MappingNode {
				if i%2 == 1 {
					continue
				}
				at = path + "/" + c.Value
			}
			tell(at, strconv.Itoa(c.Line))
			if n.Kind == yaml.MappingNode {
				c = n.Content[i+1]
			}
			walk(c, at)
		}
	}
	walk(doc.Content[0], "")
}

func roleARN(tier string) string {
	return "arn:aws:iam::" + Account + ":role" + settings.RolePath + tier
}

func scalar(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func yes() *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"} }

func list(items ...string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, i := range items {
		n.Content = append(n.Content, scalar(i))
	}
	return n
}

func value(m *yaml.Node, key string) *yaml.Node {
	if m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// set puts v under key, and says whether anything else was there.
func set(m *yaml.Node, key string, v *yaml.Node) (changed bool) {
	if m.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			if same(m.Content[i+1], v) {
				return false
			}
			m.Content[i+1] = v
			return true
		}
	}
	m.Content = append(m.Content, scalar(key), v)
	return true
}

// same says whether two nodes say the same, however it is written.
func same(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	return slices.EqualFunc(a.Content, b.Content, same)
}

// sequence finds or adds the list under key.
func sequence(m *yaml.Node, key string) (list *yaml.Node, added bool) {
	if v := value(m, key); v != nil && v.Kind == yaml.SequenceNode {
		return v, false
	}
	v := &yaml.Node{Kind: yaml.SequenceNode}
	if old := value(m, key); old != nil && old.Tag != "!!null" {
		return v, false // something else, which is for the policy's own errors to name
	}
	set(m, key, v)
	return v, true
}

// items are the elements of the list under key.
func items(m *yaml.Node, key string) []*yaml.Node {
	if v := value(m, key); v != nil && v.Kind == yaml.SequenceNode {
		return v.Content
	}
	return nil
}
