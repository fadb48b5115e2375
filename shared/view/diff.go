package view

import (
	"net/url"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"

	"sallyport/shared/access"
)

const (
	unread  = "the live object could not be read"
	context = 3 // lines around a change
)

// change makes the diff of what the request would have the cluster store.
func (b *builder) change() error {
	a, o := b.in.Action, b.in.Object
	switch {
	case a.Upgrade: // what it stores is decided inside
		return nil
	case a.Verb == "reveal": // it stores nothing
		return nil
	case a.Verb == "delete" || a.Verb == "deletecollection":
		if o == nil && len(b.in.Body) > 0 {
			return b.text("the body was not understood")
		}
		return nil
	case o == nil && len(b.in.Body) == 0 && a.Patch == "":
		return nil
	case a.Patch == access.ApplyPatch && o != nil:
		return b.applied()
	case o == nil || o.Partial:
		return b.patch()
	case a.Verb == "create":
		return b.diff(nil, o.Value)
	}
	if b.in.Live == nil && !b.in.Missing {
		b.view.Approximate = unread + ", so all of the object is shown as new"
	}
	return b.diff(b.in.Live, o.Value)
}

// diff sets the diff from the live object, nil for none, to what the request makes of it.
func (b *builder) diff(live, made map[string]any) error {
	old, err := object(live)
	if err != nil {
		return err
	}
	now, err := object(made)
	if err != nil {
		return err
	}
	b.secret = b.secrets()
	if b.secret || isSecret(now) {
		fold(now)
	}
	status := b.in.Action.Subresource == "status" || !known(now) && now["status"] != nil && !reflect.DeepEqual(old["status"], now["status"])
	clean(old, status)
	clean(now, status)
	if b.in.Action.Verb == "update" && b.view.Approximate == "" && loses(old, now) {
		b.view.Approximate = "fields that are shown as removed may come back with the cluster's defaults"
	}
	from := "live"
	if old == nil {
		from = "/dev/null"
	}
	was, is := any(absent{}), any(now)
	if old != nil {
		was = old
	}
	was, is = b.mask(was, is, "")
	return b.set(from, "request", was, is)
}

// set writes both sides, which are masked, as YAML and sets their diff.
func (b *builder) set(from, to string, old, now any) error {
	text := func(v any) (string, error) {
		if v == (absent{}) {
			return "", nil
		}
		return document(v)
	}
	o, err := text(old)
	if err != nil {
		return err
	}
	n, err := text(now)
	if err != nil {
		return err
	}
	return b.compare(from, to, o, n)
}

// compare sets the diff of two texts, which are masked.
func (b *builder) compare(from, to, old, now string) error {
	old, now = wrap(Visible(old)), wrap(Visible(now))
	diff, err := udiff.ToUnified(from, to, old, udiff.Lines(old, now), context)
	if err != nil {
		return access.Errorf(access.Internal, "the diff of the request cannot be made").Because(err)
	}
	b.view.Diff = diff
	if diff == "" {
		b.note("It changes nothing of the object but what the cluster fills in itself.")
	}
	return nil
}

// patch shows a body whose effect cannot be computed.
func (b *builder) patch() error {
	a, o := b.in.Action, b.in.Object
	why := "the patch cannot be computed here, so it is shown as it is, and not what it makes"
	switch {
	case a.Patch == "":
		why = "the body was not understood, so it is shown as it is"
	case b.in.Missing:
		why = "there is no such object, so the patch is shown as it is"
	case b.in.Live == nil:
		why = unread + ", so the patch is shown as it is, and not what it makes"
	}
	var value any
	switch {
	case a.Patch == access.JSONPatch:
		// The strict decoder: of a key that comes twice one would not be shown.
		if strict, err := kjson.UnmarshalStrict(b.in.Body, &value); err != nil || len(strict) > 0 {
			return b.text(why)
		}
	case o != nil:
		value = o.Value
	default:
		return b.text(why)
	}
	value, err := clone(value, 0)
	if err != nil {
		return err
	}
	if ops, ok := value.([]any); ok && b.secrets() {
		b.operations(ops)
	}
	b.secret = b.secrets()
	_, value = b.mask(absent{}, value, "")
	b.secret = false
	b.view.Approximate = why
	return b.set("/dev/null", "patch", absent{}, value)
}

// A mark stands for a value that is not shown; mask leaves it as it is.
type mark string

// operations hides what a JSON patch would write into a Secret, or ask of it, outside its metadata.
func (b *builder) operations(ops []any) {
	for _, v := range ops {
		op, _ := v.(map[string]any)
		path, _ := op["path"].(string)
		if _, ok := op["value"]; ok && path != "/metadata" && !strings.HasPrefix(path, "/metadata/") {
			op["value"], b.masked = mark(masked), true
		}
	}
}

// text shows a body as it came, when it is text.
func (b *builder) text(why string) error {
	body := string(b.in.Body)
	switch {
	case body == "":
		return tooMuch("its body is not there")
	case !utf8.ValidString(body) || strings.ContainsRune(body, 0):
		return tooMuch("its body is not text")
	case b.secrets():
		return tooMuch("its body was not understood, and is for a Secret")
	}
	b.notice(body)
	found := secrets("", body)
	b.masked = b.masked || found != nil
	b.view.Approximate = why
	return b.compare("/dev/null", "body", "", b.show(body, found, masked))
}

// secrets says whether the request is for Secrets.
func (b *builder) secrets() bool { return b.in.Action.Group == "" && b.in.Action.Resource == "secrets" }

// known says whether the object's kind is Kubernetes' own.
func known(o map[string]any) bool { return scheme.Scheme.Recognizes(kindOf(o)) }

func kindOf(o map[string]any) schema.GroupVersionKind {
	version, _ := o["apiVersion"].(string)
	kind, _ := o["kind"].(string)
	return schema.FromAPIVersionAndKind(version, kind)
}

// Lines longer than width characters go on in the next, which begins with goesOn.
const (
	width  = 160
	goesOn = "↪ "
)

// wrap breaks long lines where it can be seen. Text that looks like the break, or would not be seen at the end of a line,
// is made visible.
func wrap(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		text, ended := strings.CutSuffix(line, "\n")
		text = strings.ReplaceAll(text, "↪", `\u{21aa}`)
		if t := strings.TrimRight(text, " "); t != text {
			text = t + strings.Repeat(`\u{20}`, len(text)-len(t))
		}
		for room := width; ; room = width - 2 {
			n := cut(text, room)
			b.WriteString(text[:n])
			if text = text[n:]; text == "" {
				break
			}
			b.WriteString("\n" + goesOn)
		}
		if ended {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// cut is where the first n characters of s end.
func cut(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func query(raw string) url.Values {
	q, _ := url.ParseQuery(raw) // what can be read of it: a request whose query cannot was refused long before
	return q
}
