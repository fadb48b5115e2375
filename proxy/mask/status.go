package mask

import (
	"slices"
	"strings"
)

// An error can show what is stored. What a patch makes of an object is quoted whole when it is no object of its kind any more.
// Of a Secret single values are shown too: a json-patch copies one to a label, a name or a uid, and validation says what is
// wrong with that. Some errors quote the value, some do not.

// fields are words of the API's errors that are no words of English.
var fields = []string{
	"metadata", "apiVersion", "resourceVersion", "stringData", "fieldManager", "labelSelector", "fieldSelector", "dryRun", "managedFields",
	"generateName", "creationTimestamp", "deletionTimestamp", "ownerReferences", "json", "JSON", "HTTP", "URL", "UID", "API", "StorageError",
	"kubernetes", "k8s", "http", "https", "base64",
}

// quoted masks the objects that a sentence quotes: in quotes or without, in JSON or as Go prints it, or as a diff of two. Where
// quotes begin and end is not counted: a stray one must hide nothing.
func quoted(s string) string {
	if i := strings.Index(s, "\n@@ "); i >= 0 {
		s = s[:i+1] + Constant
	}
	for i := 0; i < len(s); i++ {
		begin, end := i, i
		switch {
		case s[i] == '"' && prefixed(s[i+1:], "{", "[", "map[", "&"):
			begin, end = i+1, closing(s, i)
		case s[i] == '{' && (prefixed(s[i+1:], `"`) || i > 0 && typed(s[i-1])), s[i] == '[' && prefixed(s[i+1:], "{", "[", `"`):
			end = balanced(s, i)
		case s[i] == '[' && strings.HasSuffix(s[:i], "map"):
			if end = balanced(s, i); !strings.Contains(s[i:end], ":") { // a type
				end = i
			}
		}
		if begin < end {
			s = s[:begin] + Constant + s[end:]
			i = begin + len(Constant) - 1
		}
	}
	return s
}

func prefixed(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// typed says whether a brace behind a character begins a value of a Go type: core.EnvVar{, []string{, &{.
func typed(c byte) bool { return wordly(c) || c == ']' || c == '&' }

// balanced is where the object or list that begins at i ends. What is not closed, or goes over lines, ends with the text.
func balanced(s string, i int) int {
	depth := 0
	for ; i < len(s) && s[i] != '\n'; i++ {
		switch s[i] {
		case '"':
			i = closing(s, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// sentence masks, in the words of an error about Secrets, what may be a value: what is quoted, unless it is what was asked
// for, and what looks like no word.
func (r *Rules) sentence(s string) string {
	known := append([]string{"", r.request.Name, r.request.Namespace, r.request.Resource, r.request.Group, r.request.Version, "Secret"}, fields...)
	var b strings.Builder
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '`' || c == '\'' && (i == 0 || !wordly(s[i-1])):
			end := closing(s, i)
			inside := s[i+1 : end]
			if !slices.Contains(known, inside) {
				inside = Constant
			}
			b.WriteByte(c)
			b.WriteString(inside)
			b.WriteByte(c)
			i = end + 1
		case c <= ' ':
			b.WriteByte(c)
			i++
		default:
			end := i + 1
			for end < len(s) && s[end] > ' ' && s[end] != '"' && s[end] != '`' {
				end++
			}
			b.WriteString(r.word(s[i:end], known))
			i = end
		}
	}
	return b.String()
}

// closing is where what is quoted from i on ends: at the same quote, as Go quotes, or with the text.
func closing(s string, i int) int {
	for j := i + 1; j < len(s); j++ {
		switch {
		case s[j] == '\\' && s[i] == '"':
			j++
		case s[j] == s[i] && (s[i] != '\'' || j+1 == len(s) || !wordly(s[j+1])):
			return j
		}
	}
	return len(s)
}

const around = "()[]{}<>,.;:!?'"

// word masks what lies between spaces, unless it is made of words.
func (r *Rules) word(s string, known []string) string {
	core := strings.Trim(s, around)
	if slices.Contains(known, core) {
		return s
	}
	for _, w := range strings.FieldsFunc(core, func(c rune) bool { return strings.ContainsRune(around+"/-*=", c) }) {
		if !slices.Contains(known, w) && !english(w) {
			return strings.Replace(s, core, Constant, 1)
		}
	}
	return s
}

// english says whether letters look like a word: a capital at most in front. Nearly no base64 of any length looks so. What is
// shorter than the shortest base64 of anything may be a number.
func english(w string) bool {
	if len(w) < 4 {
		return true
	}
	for i := range len(w) {
		c := w[i]
		if i == 0 {
			c |= 0x20
		}
		if c < 'a' || c > 'z' {
			return false
		}
	}
	return true
}

func wordly(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c >= 0x80
}
