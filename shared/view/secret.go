package view

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

// What stands for what is not shown. The live side of a value that changes has the bare mark, so that the two lines differ.
const (
	masked          = "(masked)"
	maskedUnchanged = "(masked, unchanged)"
	maskedChanged   = "(masked, changed)"
	maskedNew       = "(masked, new)"
)

// shapes are well-known forms of secrets. Where one has a group, the group is the secret.
var shapes = []*regexp.Regexp{
	regexp.MustCompile(`-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-[^-])*(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?`),
	regexp.MustCompile(`\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b`),
	regexp.MustCompile(`(?i)secret_?access_?key["']?\s*[=:]\s*["']?([A-Za-z0-9/+=]{40})`),
	regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,3}`), // JWS and JWE
	regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}`),
	regexp.MustCompile(`\bya29\.[0-9A-Za-z_-]{20,}`),
	regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[0-9A-Za-z_]{22,}|\bglpat-[0-9A-Za-z_-]{20,}|\bnpm_[A-Za-z0-9]{36}|\bhvs\.[0-9A-Za-z_-]{24,}`),
	regexp.MustCompile(`\bxox[a-z]-[0-9A-Za-z-]{10,}|\bxapp-[0-9A-Za-z-]{10,}|https://hooks\.slack\.com/(?:services|workflows|triggers)/([0-9A-Za-z/+_-]{20,})`),
	regexp.MustCompile(`\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,}|\bwhsec_[0-9A-Za-z]{24,}|\bsk-[0-9A-Za-z_-]{20,}|\bSG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}`),
	regexp.MustCompile(`(?i)(?:AccountKey|SharedAccessKey|SharedAccessSignature)=([0-9A-Za-z+/=%]{20,})`),
	regexp.MustCompile(`(?i)\b(?:bearer|basic)\s+([0-9A-Za-z+/=_.~-]{16,})`),
	regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://[^\s/?#:@'"]*:([^\s/?#'"]+)@`),
	regexp.MustCompile(`(?i)(?:password|passwd|passphrase|pwd)["']?\s*[=:]\s*["']?([^\s"';&,$<{(][^\s"';&,]{3,})`),
}

// encoded begins what is PEM in base64, which may be a private key or a certificate anybody may read.
var encoded = regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/]+={0,2}`)

// named are names whose value is a secret however it looks.
var named = regexp.MustCompile(`(?i)(?:password|passwd|passphrase|aws_?secret_?access_?key)$`)

// secrets finds where s, the value of name, holds secrets: ranges in order that do not overlap.
func secrets(name, s string) [][2]int {
	if s == "" {
		return nil
	}
	if named.MatchString(name) && !strings.HasPrefix(s, "$(") && !strings.HasPrefix(s, "${") {
		return [][2]int{{0, len(s)}}
	}
	var found [][2]int
	for _, shape := range shapes {
		for _, m := range shape.FindAllStringSubmatchIndex(s, -1) {
			at := [2]int{m[0], m[1]}
			if len(m) > 2 && m[2] >= 0 {
				at = [2]int{m[2], m[3]}
			}
			found = append(found, at)
		}
	}
	for _, m := range encoded.FindAllStringIndex(s, -1) {
		text, err := base64.StdEncoding.DecodeString(s[m[0]:m[1]])
		if err != nil || strings.Contains(string(text), "PRIVATE KEY") {
			found = append(found, [2]int(m))
		}
	}
	slices.SortFunc(found, func(a, b [2]int) int { return a[0] - b[0] })
	var merged [][2]int
	for _, f := range found {
		if n := len(merged); n > 0 && f[0] < merged[n-1][1] {
			merged[n-1][1] = max(merged[n-1][1], f[1])
			continue
		}
		merged = append(merged, f)
	}
	return merged
}

// replace puts mark in the place of each range.
func replace(s string, ranges [][2]int, mark string) string {
	var b strings.Builder
	from := 0
	for _, r := range ranges {
		b.WriteString(s[from:r[0]])
		b.WriteString(mark)
		from = r[1]
	}
	b.WriteString(s[from:])
	return b.String()
}

// held are the secrets themselves, to be compared.
func held(s string, ranges [][2]int) []string {
	var out []string
	for _, r := range ranges {
		out = append(out, s[r[0]:r[1]])
	}
	return out
}

// Masked puts a mark in the place of every well-known shape of a secret in text that is to be shown: a reason, a command
// line.
func Masked(s string) string { return replace(s, secrets("", s), masked) }

var marks = strings.NewReplacer("(masked", `\u{28}masked`, "(not shown", `\u{28}not shown`)

// unforged is s with what looks like one of our marks made different.
func (b *builder) unforged(s string) string {
	out := marks.Replace(s)
	b.forged = b.forged || out != s
	return out
}
