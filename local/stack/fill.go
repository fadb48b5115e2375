package stack

import (
	"bytes"
	"fmt"
	"regexp"

	"go.yaml.in/yaml/v3"

	"sallyport/shared/policy"
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

// inOriginal gives an error about a filled-in policy the line it has in the file as it was written, where that fails
// in the same way. Elsewhere the line is that of the filled-in file, and it says so.
func inOriginal(name string, file []byte, filled error) error {
	_, original := policy.Load(name, file)
	if original != nil && lines.ReplaceAllString(original.Error(), "") == lines.ReplaceAllString(filled.Error(), "") {
		return original
	}
	return fmt.Errorf("%w (the line is that of the file with issuer, roles and cluster filled in)", filled)
}

var lines = regexp.MustCompile(`line \d+: `)

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
