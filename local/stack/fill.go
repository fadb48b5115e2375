package stack

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sallyport/shared/settings"
)

// fill makes a policy file one of this stack: its cluster, its tiers' roles in the local account, and its issuer. An
// issuer whose url is "local" becomes the stack's; when none is, the stack's is added, with its groups claim.
func fill(file []byte, issuer, cluster string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("it is no mapping; begin with apiVersion: sallyport/v1")
	}
	root := doc.Content[0]
	found := false
	issuers := sequence(root, "issuers")
	for _, i := range issuers.Content {
		if u := value(i, "url"); u == nil || u.Value == "local" {
			found = true
			set(i, "url", scalar(issuer))
			set(i, "private", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
			if value(i, "algorithms") == nil {
				set(i, "algorithms", list("ES256", "RS256"))
			}
		}
	}
	if !found {
		i := &yaml.Node{Kind: yaml.MappingNode}
		set(i, "url", scalar(issuer))
		set(i, "private", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
		set(i, "algorithms", list("ES256", "RS256"))
		set(i, "groupsClaim", scalar("groups"))
		issuers.Content = append(issuers.Content, i)
	}
	c := &yaml.Node{Kind: yaml.MappingNode}
	set(c, "name", scalar(cluster))
	set(c, "region", scalar(Region))
	set(root, "clusters", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{c}})
	for _, t := range sequence(root, "tiers").Content {
		if name := value(t, "name"); name != nil {
			set(t, "role", scalar(roleARN(name.Value)))
		}
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

func set(m *yaml.Node, key string, v *yaml.Node) {
	if m.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content[i+1] = v
			return
		}
	}
	m.Content = append(m.Content, scalar(key), v)
}

// sequence finds or adds the list under key.
func sequence(m *yaml.Node, key string) *yaml.Node {
	if v := value(m, key); v != nil {
		return v
	}
	v := &yaml.Node{Kind: yaml.SequenceNode}
	set(m, key, v)
	return v
}
