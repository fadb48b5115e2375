// Package view makes what a reviewer is shown of a request: the object as a diff against the live one, the command of an
// exec, what a delete takes along, and the sentences nobody should answer without.
//
// It promises three things against whoever wrote the request. What is shown is whole: an object, a patch or a command that
// is too long, too deep or not text is an error of kind access.Denied, never an excerpt. What is shown is what is there:
// characters that a terminal or a browser acts on, that do not show, or that turn the text around them are written as
// escapes, long lines are wrapped where it can be seen, and text that looks like one of this package's own marks is not
// taken for one. And values of Secrets never leave it, nor do well-known shapes of secrets elsewhere; whether they change
// is shown. Shapes are a short list and best effort: a password that looks like any other word is shown.
//
// It does not promise to foresee the cluster. What defaults, admission and controllers make of an object they make later;
// where more than that may be different, View.Approximate says so. The live object is the proxy's word.
//
// A mistake here lets a person say yes to something else than they read, or writes a secret into a message. What may pass
// is not decided here: approvals are bound to the bytes of the request, not to a view of it.
package view

import (
	"encoding/json"
	"slices"

	"sallyport/shared/access"
)

// What a view may be large. Larger ones are refused: nobody reads that much, and stores and messages have limits too.
const (
	maxView  = 300 << 10 // as JSON
	maxArgv  = 32 << 10  // bytes of all words
	maxDepth = 128       // levels of an object
)

// An Input is a request and what is known of its object. Nothing in it is changed.
type Input struct {
	Action access.Action
	// Object is what the body would have the cluster store; nil when the request has none or it was not understood.
	Object *access.Object
	// Query is the request's raw query: an apply's fieldManager and force, a delete's gracePeriodSeconds.
	Query string
	// Body is the request's body as it came: what is shown of one whose effect cannot be computed.
	Body []byte
	// Live is the object as the cluster has it; nil when there is none or it could not be read, and Missing tells which.
	Live     map[string]any
	Missing  bool
	Affected []access.Affected
	More     int // objects affected beyond those
}

// Build makes the view of a request. An error of kind access.Denied means that it cannot be shown whole.
func Build(in Input) (access.View, error) {
	b := builder{in: in}
	b.view.Live, b.view.More = in.Live != nil, in.More
	for _, o := range in.Affected {
		b.view.Affected = append(b.view.Affected, access.Affected{Kind: b.line(o.Kind), Namespace: b.line(o.Namespace), Name: b.line(o.Name), Owner: b.line(o.Owner)})
	}
	if err := b.command(); err != nil {
		return access.View{}, err
	}
	b.effects()
	if err := b.change(); err != nil {
		return access.View{}, err
	}
	b.remarks()
	text, err := json.Marshal(b.view)
	if err != nil {
		return access.View{}, access.Errorf(access.Internal, "the view of the request cannot be written").Because(err)
	}
	if len(text) > maxView {
		return access.View{}, tooMuch("%d KiB of changes are more than the %d KiB that can be shown", len(text)>>10, maxView>>10)
	}
	return b.view, nil
}

// tooMuch is the error of what cannot be shown.
func tooMuch(format string, a ...any) error {
	e := access.Errorf(access.Denied, format, a...)
	e.Message = "the request cannot be shown whole, so nobody can approve it: " + e.Message
	return e
}

// A builder makes one view.
type builder struct {
	in   Input
	view access.View
	// secret says that the next object to be masked is a Secret, by its URL.
	secret bool
	// What was met on the way, each said once at the end.
	hidden, forged, masked, rightToLeft bool
}

func (b *builder) note(s string) {
	if s != "" && !slices.Contains(b.view.Notes, s) {
		b.view.Notes = append(b.view.Notes, s)
	}
}

// line makes text of the request safe as one line and notices what it held.
func (b *builder) line(s string) string {
	b.notice(s)
	return VisibleLine(s)
}

// notice looks for what a reader has to be told about.
func (b *builder) notice(s string) {
	for i, r := range s {
		b.hidden = b.hidden || r != '\n' && r != '\t' && hides(r, s[i:])
		b.rightToLeft = b.rightToLeft || turns(r)
	}
}

// remarks says what was met on the way.
func (b *builder) remarks() {
	if b.masked {
		b.note("Values of secrets are masked; whether they change is shown.")
	}
	if b.hidden {
		b.note(`Characters that do not show, or that turn the text around them, are written as escapes such as \u{202e}.`)
	}
	if b.rightToLeft {
		b.note("There are letters in it that are written from right to left; what stands beside them may show in another order.")
	}
	if b.forged {
		b.note(`Text in the request imitates the marks of this page; such text is written with \u{28} for its bracket.`)
	}
}
