package policy

import (
	"reflect"
	"strings"
)

// fieldsOf lists the YAML names of a struct's fields.
func fieldsOf(ptr any) []string {
	var names []string
	t := reflect.TypeOf(ptr).Elem()
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// suggest names the known field nearest to what was written, or lists all of them.
func suggest(word string, known []string) string { return suggestOf("fields here", word, known) }

// suggestOf is suggest for what is no field.
func suggestOf(what, word string, known []string) string {
	if near := meant(word, known); near != "" {
		return near
	}
	if len(known) == 0 {
		return "; there are no " + what
	}
	return "; the " + what + " are " + strings.Join(known, ", ")
}

// meant asks whether the nearest known word was meant, when one is near.
func meant(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if len(k) > 64 || len(word) > 64 || k == "" {
			continue
		}
		// Two changes make any short word any other: a third of it may differ.
		if d := edits(strings.ToLower(word), strings.ToLower(k)); d < distance && 3*d <= max(len(word), len(k))+2 {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// edits is the Levenshtein distance of two short words.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
