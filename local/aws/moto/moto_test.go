package moto_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// venv runs venv.sh with a Python that is a shell script: what the script does, not what pip does.
func venv(t *testing.T, python string, env ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command("./venv.sh")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "PYTHON=" + python}, env...)
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVenvSaysWhatIsMissing(t *testing.T) {
	for _, tt := range []struct{ name, python, want string }{
		{"python", "/nowhere/python3", "apt-get install python3"},
		{"a new enough python", script(t, `case "$*" in *version_info*) exit 1;; --version) echo Python 3.8.1;; esac`), "Python 3.8.1 is too old"},
		{"venv", script(t, `case "$*" in *ensurepip*) exit 1;; esac`), "apt-get install python3-venv"},
	} {
		out, problem, err := venv(t, tt.python, "HOME="+t.TempDir())
		if err == nil || out != "" || !strings.Contains(problem, tt.want) || strings.Count(problem, "\n") != 1 {
			t.Errorf("%s: %v, stdout %q, stderr %q", tt.name, err, out, problem)
		}
	}
}

// fake answers what venv.sh asks of a Python, and as `-m venv DIR` makes a directory that answers too.
const fake = `
case "$*" in
"-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo made >>"$COUNT"; sleep 0.3;;
*hashlib*) echo key;;
*os.rename*) shift 2; [ ! -e "$2" ] && mv "$1" "$2";;
*"-m pip install"*) [ -z "${FAIL:-}" ];;
esac`

func TestVenvIsMadeOnce(t *testing.T) {
	python, home, count := script(t, fake), t.TempDir(), filepath.Join(t.TempDir(), "count")
	made := func() int {
		b, _ := os.ReadFile(count)
		return strings.Count(string(b), "made")
	}
	if out, problem, err := venv(t, python, "HOME="+home, "COUNT="+count, "FAIL=1"); err == nil || out != "" || !strings.Contains(problem, "did not work") {
		t.Errorf("pip fails: %v %q %q", err, out, problem)
	}
	if left, _ := filepath.Glob(filepath.Join(home, ".cache/sallyport/moto/.making.*")); len(left) > 0 || made() != 1 {
		t.Errorf("left behind: %v", left)
	}
	want := filepath.Join(home, ".cache/sallyport/moto/key/bin/python") + "\n"
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if out, problem, err := venv(t, python, "HOME="+home, "COUNT="+count); err != nil || out != want {
				t.Errorf("%v %q %s", err, out, problem)
			}
		})
	}
	wg.Wait()
	if _, err := exec.LookPath("flock"); err == nil && made() != 2 {
		t.Errorf("four runs at once made it %d times", made()-1)
	}
	if out, problem, err := venv(t, python, "HOME=/nowhere", "XDG_CACHE_HOME="+filepath.Join(home, ".cache"), "COUNT="+count); err != nil || out != want || problem != "" {
		t.Errorf("once made: %v %q %q", err, out, problem)
	}
}

func TestEveryRequirementHasItsHash(t *testing.T) {
	b, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	pinned := regexp.MustCompile(`^[a-z0-9-]+==[^\s]+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n?$`)
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(b), "")
	n := 0
	for _, r := range regexp.MustCompile(`(?m)^[a-z]`).FindAllStringIndex(text, -1) {
		end := len(text)
		if next := regexp.MustCompile(`\n[a-z]`).FindStringIndex(text[r[0]:]); next != nil {
			end = r[0] + next[0] + 1
		}
		if !pinned.MatchString(text[r[0]:end]) {
			t.Errorf("not pinned by hash: %.80s", text[r[0]:end])
		}
		n++
	}
	if n < 40 || strings.Contains(text, "://") {
		t.Errorf("%d requirements, or an address among them", n)
	}
}
