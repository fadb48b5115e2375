package view_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"sallyport/shared/view"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"": "",
		"plain, ünïcode, 日本語, שלום, 🙂": "plain, ünïcode, 日本語, שלום, 🙂",
		"a\nb\tc\rd":                         "a\nb\\tc\\rd",
		"\x1b[2J\x00\x7f\u009b":              `\u{1b}[2J\u{0}\u{7f}\u{9b}`,
		"a\u202eb\u2066c\u200fd":             `a\u{202e}b\u{2066}c\u{200f}d`,
		"a\u200bb\u200dc\ufeffd\u2060":       `a\u{200b}b\u{200d}c\u{feff}d\u{2060}`,
		"\U000e0041\U000e007f":               `\u{e0041}\u{e007f}`,
		"a\u00a0b\u2003c\u3000d\u2800\u3164": `a\u{a0}b\u{2003}c\u{3000}d\u{2800}\u{3164}`,
		"a\ufe0fb\U000e0100":                 `a\u{fe0f}b\u{e0100}`,
		"a\u2028b\u2029":                     `a\u{2028}b\u{2029}`,
		"a\xff\xc3":                          `a\xff\xc3`,
		"\ufffd\ue000":                       "\ufffd\\u{e000}",
		"a" + strings.Repeat("\u0335", 6):    "a" + strings.Repeat("\u0335", 4) + `\u{335}\u{335}`,
		`a literal \u{202e}`:                 `a literal \u{202e}`,
	} {
		got := view.Visible(in)
		if got != want {
			t.Errorf("Visible(%q) = %q, want %q", in, got, want)
		}
		if again := view.Visible(got); again != got {
			t.Errorf("Visible(%q) = %q, want it left alone", got, again)
		}
	}
	if got, want := view.VisibleLine("a\nb\u202e"), `a\nb\u{202e}`; got != want {
		t.Errorf("VisibleLine = %q, want %q", got, want)
	}
}

// unsafe is the first thing in s that nobody should be shown.
func unsafe(s string) (rune, bool) {
	if !utf8.ValidString(s) {
		return utf8.RuneError, true
	}
	for _, r := range s {
		if r != '\n' && (!unicode.IsPrint(r) || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector, unicode.Zl, unicode.Zp, unicode.Bidi_Control)) {
			return r, true
		}
	}
	return 0, false
}

func FuzzVisible(f *testing.F) {
	f.Add("a\u202e\x00\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{view.Visible(s), view.VisibleLine(s)} {
			if r, bad := unsafe(got); bad {
				t.Errorf("%q holds %U", got, r)
			}
			if view.Visible(got) != got {
				t.Errorf("%q is not left alone", got)
			}
		}
		if strings.Contains(view.VisibleLine(s), "\n") {
			t.Error("a line has an end")
		}
	})
}
