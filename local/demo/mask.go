package demo

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// The Secret that the stack begins with, and what it holds.
const password = "correct-horse-dev"

var masks = regexp.MustCompile(`\[masked:[a-z2-7]{12}\]`)

// mask reads what holds secrets, in every way that an agent might come by them.
func (t *tour) mask() error {
	out, code, err := t.develop("get", "secret", "db", "-n", "dev", "-o", "go-template={{range $k, $v := .data}}{{$k}} is {{base64decode $v}}; {{end}}")
	if err := t.done(out, code, err, "password is [masked:"); err != nil {
		return err
	}
	if len(masks.FindAllString(out, -1)) != 2 {
		return fmt.Errorf("not both of its values are masked: %s", out)
	}
	t.promise("its values are masked on their way; kubectl decodes a mask like any value, and which keys there are still shows")

	fmt.Fprintf(t.out, "   %s kubectl --token $DEVELOPER get secret db -n dev -o yaml | kubectl --token $DEVELOPER replace -f -\n", t.paint("36", "$"))
	yaml, code, err := t.quietly("", "--token", t.developer, "get", "secret", "db", "-n", "dev", "-o", "yaml")
	if err != nil || code != 0 {
		return fmt.Errorf("exit %d, %w: %s", code, err, yaml)
	}
	out, code, err = t.quietly(yaml, "--token", t.developer, "replace", "-f", "-")
	if err := t.refused(out, code, err, "mask", "data.password"); err != nil {
		return err
	}
	t.promise("a mask is never written back over what it stands for")

	const token = "ghp_" + "0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R"
	out, code, err = t.develop("exec", "-n", "dev", t.pod, "--", "sh", "-c", "printf 'token: "+token[:20]+"'; sleep 0.01; echo "+token[20:])
	if err := t.done(out, code, err, "token: [masked]\n"); err != nil {
		return err
	}
	t.promise("what a command prints is searched for secrets as it streams, also when one comes in two pieces")
	return t.reveal()
}

// reveal asks a person for one value.
func (t *tour) reveal() error {
	ana, err := t.login("ana@example.com")
	if err != nil {
		return err
	}
	kubectl, err := t.start("--token", t.developer, "get", "--raw", "/api/v1/namespaces/dev/secrets/db?reveal=password")
	if err != nil {
		return err
	}
	at, page, err := ana.find(t.ctx, "password")
	if err != nil {
		return err
	}
	select {
	case <-kubectl.done:
		out, code, err := t.ended(kubectl)
		return fmt.Errorf("kubectl did not wait (exit %d, %w): %s", code, err, out)
	default:
	}
	if m := regexp.MustCompile(`(?s)<h1>(.*?)</h1>`).FindStringSubmatch(page); m != nil {
		fmt.Fprintf(t.out, "   Ana reads %q, and says yes.\n", words(m[1]))
	}
	if err := ana.post(t.ctx, at, page, `value="approve"`, url.Values{}); err != nil {
		return err
	}
	out, code, err := t.ended(kubectl)
	value := base64.StdEncoding.EncodeToString([]byte(password))
	if err := t.done(out, code, err, value); err != nil {
		return err
	}
	if out, code, err = t.develop("get", "secret", "db", "-n", "dev", "-o", "jsonpath={.data.password}"); err != nil || code != 0 || strings.Contains(out, value) {
		return fmt.Errorf("it is shown again (exit %d, %w): %s", code, err, out)
	}
	t.promise("one value was revealed, once, because a person said so; now it is masked again")
	return nil
}

// masked makes sure that the password was shown where it was revealed, and nowhere else.
func (t *tour) masked() error {
	if n := bytes.Count(t.saw.Bytes(), []byte(base64.StdEncoding.EncodeToString([]byte(password)))); n != 1 || bytes.Contains(t.saw.Bytes(), []byte(password)) {
		return errors.New("the password was shown where nobody revealed it")
	}
	return nil
}
