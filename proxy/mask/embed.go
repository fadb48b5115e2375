package mask

import (
	"bytes"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"sallyport/proxy/mask/helm"
)

// embedded puts out a string that holds an object or a release, masked inside; where that cannot be looked into, its mask.
func (s *scanner) embedded(act action, text []byte) {
	if act == object {
		if !s.object(text) {
			s.masked(act, text)
		}
		return
	}
	layers := helm.SecretLayers
	if act == helm1 {
		layers = helm.ConfigMapLayers
	}
	out, ours, err := helm.Mask(text, layers, s.options())
	switch {
	case err != nil:
		s.masked(act, text)
	case ours:
		s.quoted(out)
	case act == helm2 || s.alike([]byte("release")):
		s.masked(act, text)
	case s.detect != nil: // a ConfigMap's value like any other
		s.found(text, s.detect.Find(text))
	default:
		s.quoted(text)
	}
}

// object puts out an object in a string. It puts out nothing and returns false when that cannot be looked into.
func (s *scanner) object(text []byte) bool {
	if s.level == maxNested || len(text) > maxObject || !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return false
	}
	if s.nested == nil {
		s.nested = &scanner{}
	}
	n := s.nested
	n.reset(s.rules, s.key)
	n.level, n.limit, n.watch, n.words = s.level+1, 4*maxObject, false, s.words
	n.ns, n.known, n.fixed = append(n.ns[:0], s.ns...), s.known, true // what the string says of itself does not count
	read, err := n.scan(text, true)
	s.words = n.words
	if err != nil || read < len(text) {
		return false
	}
	s.quoted(n.out)
	return true
}

// options are how a release is masked inside: like the objects it deploys would be.
func (s *scanner) options() helm.Options {
	c := s.rules.config
	o := helm.Options{
		Plain:   func(v []byte) string { return string(s.mark(plain, v)) },
		Encoded: func(v []byte) string { return string(s.mark(encoded, v)) },
		Secret:  func(name string) bool { return s.alike([]byte(name)) },
		Paths: func(apiVersion, kind string) [][]string {
			gvk := schema.FromAPIVersionAndKind(apiVersion, kind)
			resource, _ := meta.UnsafeGuessKindToResource(gvk) // right for all of the API's own kinds
			var paths [][]string
			for _, p := range c.Paths {
				if p.of(Request{Group: gvk.Group, Resource: resource.Resource}) {
					paths = append(paths, p.Steps)
				}
			}
			return paths
		},
	}
	if c.Detect != nil {
		o.Text = func(text string) string { return string(c.Detect.Mask([]byte(text))) }
	}
	return o
}
