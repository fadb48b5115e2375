package view

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"sallyport/shared/access"
)

// command shows the words of an exec.
func (b *builder) command() error {
	a := b.in.Action
	switch a.Verb {
	case "exec", "attach":
	case "portforward":
		b.note("What passes through the forwarded ports is neither approved nor looked at.")
		return nil
	default:
		return nil
	}
	size := 0
	for i, word := range a.Argv {
		size += len(word)
		before := ""
		if i > 0 {
			before = strings.TrimLeft(a.Argv[i-1], "-")
		}
		if strings.Contains(before, "=") { // the word before brought its own value
			before = ""
		}
		found := secrets(before, word)
		for _, s := range held(word, found) {
			b.masked = true
			b.note(fmt.Sprintf("Word %d of the command holds a secret of %d characters, which is masked.", i+1, len([]rune(s))))
		}
		b.view.Argv = append(b.view.Argv, b.line(b.show(word, found, masked)))
		if strings.ContainsFunc(word, func(r rune) bool { return r > unicode.MaxASCII }) {
			b.note("The command has characters that are not ASCII; they may look like others.")
		}
	}
	if size > maxArgv {
		return tooMuch("the command is %d KiB long; %d KiB is the limit", size>>10, maxArgv>>10)
	}
	if a.Verb == "exec" && runsShell(a.Argv) {
		if a.Stdin {
			b.note("It opens a shell that runs whatever is typed into it.")
		} else {
			b.note("It runs a shell: its words are a program, and may do more than one thing.")
		}
	}
	if a.Stdin {
		b.note("What is typed into it (stdin) is not shown here, and not approved.")
	}
	return nil
}

var shells = []string{"sh", "bash", "ash", "dash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "pwsh", "powershell", "cmd", "cmd.exe", "powershell.exe"}

// runsShell says whether a shell is among the words before the first that could be its program's. It is a hint: any program
// may run a shell.
func runsShell(argv []string) bool {
	for _, word := range argv {
		if slices.Contains(shells, path.Base(strings.ReplaceAll(word, `\`, "/"))) {
			return true
		}
	}
	return false
}

// effects notes what a request does beside what it stores.
func (b *builder) effects() {
	a := b.in.Action
	switch {
	case a.Verb == "delete" || a.Verb == "deletecollection":
		b.deletion()
	case a.Verb == "reveal":
		b.note("The agent sees the value of this key, once, and may keep it. It is not shown here; the values of all other keys stay masked.")
		if data, _ := b.in.Live["data"].(map[string]any); b.in.Live != nil {
			if _, has := data[a.Reveal]; !has {
				b.note("The Secret has no key of this name.")
			}
		}
	case a.Verb == "create" && a.Subresource == "eviction":
		b.note("It evicts the pod: the pod is deleted once its disruption budget allows it, and what controls it may start another.")
		b.options(evictionOptions(b.in.Object))
	case a.Subresource == "proxy" || a.Verb == "proxy":
		b.note("The request goes to a program in the cluster; what that makes of it is not known here.")
	case a.Subresource == "scale" && b.in.Object != nil && !b.in.Object.Partial:
		if to := number(b.in.Object.Value, "spec", "replicas"); to != "" {
			from := number(b.in.Live, "spec", "replicas")
			if from == "" {
				from = "unknown"
			}
			b.note("Replicas: " + from + " → " + to + ".")
		}
	case a.Subresource == "status" && a.Changes():
		b.note("The cluster takes only the status of it.")
	}
	if a.DryRun {
		b.note("It is a dry run: the cluster stores nothing.")
	}
}

// deletion notes how a delete goes about it.
func (b *builder) deletion() {
	var options map[string]any
	if o := b.in.Object; o != nil && len(o.Value) > 0 { // the body replaces the options of the query altogether
		options = o.Value
	} else {
		options = map[string]any{}
		for _, k := range []string{"propagationPolicy", "gracePeriodSeconds", "orphanDependents"} {
			if v := query(b.in.Query)[k]; len(v) > 0 {
				options[k] = v[0]
			}
		}
	}
	if b.in.Action.Verb == "deletecollection" {
		if a := b.in.Action; a.LabelSelector == "" && a.FieldSelector == "" {
			b.note("It has no selector: it deletes all there are.")
		}
		b.note("It deletes what matches when it runs, which may be more than matches now.")
	}
	b.options(options)
}

func evictionOptions(o *access.Object) map[string]any {
	if o == nil {
		return nil
	}
	options, _ := o.Value["deleteOptions"].(map[string]any)
	return options
}

// options notes the options of a delete.
func (b *builder) options(options map[string]any) {
	switch policy := fmt.Sprint(options["propagationPolicy"]); {
	case policy == "Orphan" || fmt.Sprint(options["orphanDependents"]) == "true":
		b.note("What it controls is left behind, controlled by nothing (propagation policy Orphan).")
	case policy == "Foreground":
		b.note("What it controls is deleted first, and it last (propagation policy Foreground).")
	case policy == "Background":
		b.note("What it controls is deleted after it (propagation policy Background).")
	}
	switch grace := options["gracePeriodSeconds"]; fmt.Sprint(grace) {
	case "<nil>":
	case "0":
		b.note("It is deleted at once, with no time to end (grace period 0).")
	default:
		b.note("It gets " + b.line(fmt.Sprint(grace)) + " seconds to end (grace period).")
	}
}

// number is the whole number at a path of keys, as text, and empty when there is none.
func number(v any, keys ...string) string {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	n, err := clone(v, 0)
	if i, ok := n.(int64); ok && err == nil {
		return fmt.Sprint(i)
	}
	return ""
}
