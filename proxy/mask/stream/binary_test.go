package stream_test

import (
	"strings"
	"testing"

	"sallyport/proxy/mask/stream"
)

// What kubectl cp runs is known, and nothing that could print anything else is taken for it.
func TestBinary(t *testing.T) {
	for _, argv := range [][]string{
		{"tar", "cf", "-", "/var/data"},
		{"tar", "cf", "-", "a", "b"},
		{"/bin/tar", "-czf", "-", "-C", "/var", "."},
		{"tar", "-xmf", "-"},
		{"tar", "-xmf", "-", "-C", "/tmp"},
		{"tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", "/tmp"},
		{"tar", "xf", "-"},
		{"sh", "-c", "tar cf - /var/lib/a-b_c | tail -c+1025"},
	} {
		if !stream.Binary(argv) {
			t.Errorf("%q is not known", argv)
		}
	}
	for _, argv := range [][]string{
		nil, {""}, {"tar"}, {"tar", "cf"}, {"tar", "cf", "-"}, {"cat", "/etc/passwd"},
		{"tar", "tf", "-"}, {"tar", "xvf", "-"}, {"tar", "xOf", "-", "x"}, {"tar", "-xf", "-", "-O"}, {"tar", "xf", "-", "--to-stdout"},
		{"tar", "cf", "/tmp/x", "y"}, {"tar", "cf", "-", "--checkpoint-action=exec=sh", "x"}, {"tar", "cIf", "-", "x"},
		{"tar", "--to-command=sh", "-xf", "-"}, {"tar", "-xf", "-", "-I", "sh"}, {"tar", "cf", "-", "-T", "/etc/passwd"},
		{"tar", "--no-same-owner", "-cf"}, {"tar", "--no-same-owner", "--no-same-owner"}, {"tar", "cxf", "-", "a"}, {"tar", "f", "-", "a"},
		{"./tar", "cf", "-", "x"}, {"/tmp/tar", "cf", "-", "x"}, {"tar\n", "cf", "-", "x"}, {"tar", "cf\n", "-", "x"},
		{"sh", "-c", "tar cf - x"}, {"sh", "-c", "tar cf - x; env | tail -c+1"}, {"sh", "-c", "tar cf - $(env) | tail -c+1"},
		{"sh", "-c", "tar cf - x y | tail -c+1"}, {"sh", "-c", "tar cf - -I | tail -c+1"}, {"sh", "-c", "tar cf - x | tail -c+1\n"},
		{"sh", "-c", "tar cf - x\n | tail -c+1"}, {"sh", "-c", "tar cf - ~ | tail -c+1"}, {"bash", "-c", "tar cf - x | tail -c+1"},
		{"sh", "-c", "tar cf - x | tail -c+1", "sh"},
	} {
		if stream.Binary(argv) {
			t.Errorf("%q is taken for a copy", argv)
		}
	}
}

func FuzzBinary(f *testing.F) {
	f.Add("tar\ncf\n-\nx")
	f.Add("sh\n-c\ntar cf - x | tail -c+1")
	f.Fuzz(func(t *testing.T, s string) {
		argv := strings.Split(s, "\n")
		if !stream.Binary(argv) {
			return
		}
		for _, a := range argv[1:] {
			if strings.Contains(a, "=") && strings.HasPrefix(a, "-") || strings.ContainsAny(a, ";&$`<>()") && argv[0] == "sh" {
				t.Errorf("%q is taken for a copy", argv)
			}
		}
	})
}
