package inbox

import (
	"fmt"
	"html"
	"html/template"
	"strings"
)

// rich checks a rich text block (https://docs.slack.dev/reference/block-kit/blocks/rich-text-block).
func (c *checker) rich(b map[string]any, at string) {
	c.keys(b, at, "type", "block_id", "elements")
	for i, v := range c.list(b, "elements", at, 1, 1000) {
		c.richElement(v, fmt.Sprintf("%s/elements/%d", at, i), false)
	}
}

func (c *checker) richElement(v any, at string, inList bool) {
	e, ok := v.(map[string]any)
	if !ok {
		c.bad(at, "must be an object")
		return
	}
	switch kind := e["type"]; {
	case kind == "rich_text_section":
		c.keys(e, at, "type", "elements")
	case kind == "rich_text_preformatted" && !inList:
		c.keys(e, at, "type", "elements", "border", "language")
	case kind == "rich_text_quote" && !inList:
		c.keys(e, at, "type", "elements", "border")
	case kind == "rich_text_list" && !inList:
		c.keys(e, at, "type", "elements", "style", "indent", "offset", "border")
		if s := e["style"]; s != "bullet" && s != "ordered" {
			c.bad(at+"/style", "must be one of: bullet, ordered")
		}
		for i, v := range c.list(e, "elements", at, 1, 1000) {
			c.richElement(v, fmt.Sprintf("%s/elements/%d", at, i), true)
		}
		return
	default:
		c.bad(at+"/type", "unsupported type: %v", kind)
		return
	}
	for i, v := range c.list(e, "elements", at, 1, 1000) {
		at := fmt.Sprintf("%s/elements/%d", at, i)
		x, ok := v.(map[string]any)
		if !ok {
			c.bad(at, "must be an object")
			continue
		}
		switch x["type"] {
		case "text":
			c.keys(x, at, "type", "text", "style")
			c.str(x, "text", at, true, maxText)
		case "link":
			c.keys(x, at, "type", "url", "text", "style", "unsafe")
			if u := c.str(x, "url", at, true, maxText); u != "" && !web(u) {
				c.bad(at+"/url", "invalid url")
			}
			c.str(x, "text", at, false, maxText)
		case "user":
			c.keys(x, at, "type", "user_id", "style")
			c.str(x, "user_id", at, true, maxID)
		default:
			c.bad(at+"/type", "unsupported type: %v", x["type"])
			continue
		}
		if s, ok := x["style"]; ok {
			style, ok := s.(map[string]any)
			if !ok {
				c.bad(at+"/style", "must be an object")
			}
			c.keys(style, at+"/style", "bold", "italic", "strike", "code", "underline", "highlight", "client_highlight", "unlink")
			for name := range style {
				c.boolean(style, name, at+"/style")
			}
		}
	}
}

// richWords are a rich text block as it is read, as HTML, and its links. Nothing in it is markup: its text is as it stands.
func richWords(b map[string]any) (text string, page template.HTML, links []string) {
	var lines []string
	var out strings.Builder
	inline := func(v any, pre bool) string {
		e, _ := v.(map[string]any)
		elements, _ := e["elements"].([]any)
		var line strings.Builder
		for _, x := range elements {
			x, _ := x.(map[string]any)
			t, _ := x["text"].(string)
			before, after := "", ""
			style, _ := x["style"].(map[string]any)
			for name, tag := range map[string]string{"bold": "strong", "italic": "em", "strike": "s", "code": "code"} {
				if style[name] == true {
					before, after = before+"<"+tag+">", "</"+tag+">"+after
				}
			}
			switch x["type"] {
			case "link":
				u, _ := x["url"].(string)
				if t == "" {
					t = u
				}
				links = append(links, u)
				before, after = before+`<a href="`+html.EscapeString(u)+`" target="_blank" rel="noopener noreferrer">`, "</a>"+after
			case "user":
				id, _ := x["user_id"].(string)
				t = "@" + id
				before, after = before+`<span class="mention">`, "</span>"+after
			}
			line.WriteString(t)
			t = html.EscapeString(t)
			if !pre {
				t = strings.ReplaceAll(t, "\n", "<br>")
			}
			out.WriteString(before + t + after)
		}
		return line.String()
	}
	elements, _ := b["elements"].([]any)
	for _, v := range elements {
		e, _ := v.(map[string]any)
		switch e["type"] {
		case "rich_text_preformatted":
			out.WriteString(`<pre tabindex="0">`)
			lines = append(lines, inline(e, true))
			out.WriteString("</pre>")
		case "rich_text_quote":
			out.WriteString("<blockquote>")
			lines = append(lines, inline(e, false))
			out.WriteString("</blockquote>")
		case "rich_text_list":
			out.WriteString("<ul>")
			items, _ := e["elements"].([]any)
			for _, item := range items {
				out.WriteString("<li>")
				lines = append(lines, inline(item, false))
				out.WriteString("</li>")
			}
			out.WriteString("</ul>")
		default:
			out.WriteString("<p>")
			lines = append(lines, inline(e, false))
			out.WriteString("</p>")
		}
	}
	return strings.Join(lines, "\n"), template.HTML(out.String()), links // everything that was not written here was escaped
}
