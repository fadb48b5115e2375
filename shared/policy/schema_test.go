package policy

import (
	"encoding/json"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sallyport/shared/access"
)

// A schema is as much of JSON Schema as the test needs.
type schema struct {
	Description          string             `json:"description"`
	Ref                  string             `json:"$ref"`
	Defs                 map[string]*schema `json:"$defs"`
	Properties           map[string]*schema `json:"properties"`
	Items                *schema            `json:"items"`
	Enum                 []string           `json:"enum"`
	AdditionalProperties *bool              `json:"additionalProperties"`
}

// Editors offer exactly the fields the gate reads, at every level, each with a description.
func TestSchema(t *testing.T) {
	b, err := os.ReadFile("../../docs/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(b, &root); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	resolve := func(s *schema) *schema {
		for s != nil && s.Ref != "" {
			name := path.Base(s.Ref)
			used[name] = true
			if root.Defs[name] == nil {
				t.Fatalf("%s refers to nothing", s.Ref)
			}
			s = root.Defs[name]
		}
		return s
	}
	var compare func(where string, of reflect.Type, s *schema)
	compare = func(where string, of reflect.Type, s *schema) {
		for of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		s = resolve(s)
		if s == nil {
			t.Errorf("%s: nothing is said of it", where)
			return
		}
		switch {
		case of.Kind() == reflect.Slice:
			compare(where+"[]", of.Elem(), s.Items)
		case of.Kind() == reflect.Struct && strings.HasSuffix(of.Name(), "File") || of.Name() == "document":
			if s.AdditionalProperties == nil || *s.AdditionalProperties {
				t.Errorf("%s: unknown fields are not refused", where)
			}
			fields := fieldsOf(reflect.New(of).Interface())
			slices.Sort(fields)
			if props := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(fields, props) {
				t.Errorf("%s: the gate reads %v, the schema has %v", where, fields, props)
			}
			for i := range of.NumField() {
				if name := of.Field(i).Tag.Get("yaml"); name != "" {
					p := s.Properties[name]
					if p == nil {
						continue
					}
					if p.Description == "" && resolve(p).Description == "" {
						t.Errorf("%s.%s has no description", where, name)
					}
					compare(where+"."+name, of.Field(i).Type, p)
				}
			}
		}
	}
	compare("policy", reflect.TypeFor[document](), &root)
	for name := range root.Defs {
		if !used[name] && name != "trait" {
			t.Errorf("nothing refers to %s", name)
		}
	}
	if got := root.Defs["rule"].Properties["verbs"].Items.Enum; !slices.Equal(got, verbs) {
		t.Errorf("the schema's verbs are %v, the gate's %v", got, verbs)
	}
	var traits []access.Trait
	for _, x := range root.Defs["trait"].Enum {
		traits = append(traits, access.Trait(x))
	}
	if !slices.Equal(traits, access.Traits) {
		t.Errorf("the schema's traits are %v, the gate's %v", traits, access.Traits)
	}
	if got := root.Defs["issuer"].Properties["algorithms"].Items.Enum; !slices.Equal(got, algorithms) {
		t.Errorf("the schema's algorithms are %v, the gate's %v", got, algorithms)
	}
}
