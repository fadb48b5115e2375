package mask

import (
	"slices"
	"strings"
)

// An error about a Secret can show what is stored in it: a json-patch copies a value to a label, a name or a uid, and
// validation says what is wrong with that. Some errors quote the value, some do not.

// fields are words of the API's errors that are no words of English.
var fields = []string{
	"metadata", "apiVersion", "resourceVersion", "stringData", "fieldManager", "labelSelector", "fieldSelector", "dryRun", "managedFields",
	"generateName", "creationTimestamp", "deletionTimestamp", "ownerReferences", "json", "JSON", "HTTP", "URL", "UID", "API", "StorageError",
	"kubernetes", "k8s", "http", "https", "base64",
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
