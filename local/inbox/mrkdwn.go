package inbox

import (
	"html"
	"html/template"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// entities are the only ones there are in Slack's text.
var entities = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&")

// A span is a stretch of Slack's markup, read.
type span struct {
	kind string // "", code, pre, bold, italic, strike, link, mention
	text string // what is read; of bold, italic and strike the markup within
	url  string
}

var controlRE = regexp.MustCompile(`^<([^<>\n]*)>`)

// spans reads mrkdwn (https://docs.slack.dev/messaging/formatting-message-text) as far as apps use it. Whatever is not
// escaped in it has the effect it would have in Slack: a mention rings, a link leads away.
func spans(s string) []span {
	var out []span
	text := func(t string) {
		if t != "" {
			if n := len(out); n > 0 && out[n-1].kind == "" {
				out[n-1].text += t
			} else {
				out = append(out, span{text: t})
			}
		}
	}
	before := ' ' // the character before what is left
	for len(s) > 0 {
		if t, rest, ok := fenced(s, "```"); ok {
			out = append(out, span{kind: "pre", text: entities.Replace(strings.Trim(t, "\n"))})
			s, before = rest, ' '
			continue
		}
		if t, rest, ok := fenced(s, "`"); ok && !strings.Contains(t, "\n") {
			out = append(out, span{kind: "code", text: entities.Replace(t)})
			s, before = rest, ' '
			continue
		}
		if m := controlRE.FindStringSubmatch(s); m != nil {
			out = append(out, control(m[1]))
			s, before = s[len(m[0]):], ' '
			continue
		}
		marked := false
		for mark, kind := range map[string]string{"*": "bold", "_": "italic", "~": "strike"} {
			if t, rest, ok := fenced(s, mark); ok && boundary(before) && !strings.Contains(t, "\n") && t == strings.TrimSpace(t) && ends(rest) {
				out = append(out, span{kind: kind, text: t})
				s, before, marked = rest, ' ', true
				break
			}
		}
		if marked {
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		// An entity is one character.
		for _, e := range []string{"&lt;", "&gt;", "&amp;"} {
			if strings.HasPrefix(s, e) {
				n = len(e)
			}
		}
		text(entities.Replace(s[:n]))
		s, before = s[n:], r
	}
	return out
}

// fenced is what is between two marks at the beginning of s, and what follows.
func fenced(s, mark string) (in, rest string, ok bool) {
	if !strings.HasPrefix(s, mark) {
		return "", "", false
	}
	in, rest, ok = strings.Cut(s[len(mark):], mark)
	return in, rest, ok && in != ""
}

func boundary(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

func ends(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n == 0 || boundary(r)
}

// control is what stands between < and >: a link, or somebody who is told.
func control(s string) span {
	target, label, named := strings.Cut(s, "|")
	target, label = entities.Replace(target), entities.Replace(label)
	if strings.HasPrefix(target, "@") || strings.HasPrefix(target, "#") || strings.HasPrefix(target, "!") {
		if !named {
			label = "@" + target[1:]
		}
		return span{kind: "mention", text: label}
	}
	if !named || label == "" {
		label = strings.TrimPrefix(target, "mailto:")
	}
	return span{kind: "link", text: label, url: target}
}

// marked is mrkdwn as HTML.
func marked(s string) template.HTML {
	var b strings.Builder
	for _, x := range spans(s) {
		t := html.EscapeString(x.text)
		switch x.kind {
		case "pre":
			b.WriteString(`<pre tabindex="0">` + t + "</pre>")
		case "code":
			b.WriteString("<code>" + t + "</code>")
		case "bold":
			b.WriteString("<strong>" + string(marked(x.text)) + "</strong>")
		case "italic":
			b.WriteString("<em>" + string(marked(x.text)) + "</em>")
		case "strike":
			b.WriteString("<s>" + string(marked(x.text)) + "</s>")
		case "mention":
			b.WriteString(`<span class="mention">` + t + "</span>")
		case "link":
			if !web(x.url) {
				b.WriteString(t)
				continue
			}
			b.WriteString(`<a href="` + html.EscapeString(x.url) + `" target="_blank" rel="noopener noreferrer">` + t + "</a>")
		default:
			b.WriteString(strings.ReplaceAll(t, "\n", "<br>"))
		}
	}
	return template.HTML(b.String()) // everything that was not written here was escaped
}

// read is mrkdwn as somebody would read it aloud, and the links in it.
func read(s string) (text string, links []string) {
	var b strings.Builder
	for _, x := range spans(s) {
		switch x.kind {
		case "bold", "italic", "strike":
			t, l := read(x.text)
			b.WriteString(t)
			links = append(links, l...)
		case "link":
			b.WriteString(x.text)
			links = append(links, x.url)
		default:
			b.WriteString(x.text)
		}
	}
	return b.String(), links
}

// words are the text of a text object as it is read, as HTML, and its links.
func words(v any) (text string, page template.HTML, links []string) {
	o, _ := v.(map[string]any)
	s, _ := o["text"].(string)
	if o["type"] == "mrkdwn" {
		text, links = read(s)
		return text, marked(s), links
	}
	text = entities.Replace(s)
	return text, template.HTML(strings.ReplaceAll(html.EscapeString(text), "\n", "<br>")), nil
}
