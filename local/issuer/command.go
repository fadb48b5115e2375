package issuer

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// ReviewsAudience is the audience of reviewers' tokens in the default policy.
const ReviewsAudience = "sallyport-reviews"

// Command runs "token": it prints a token of the issuer in dir, or in --dir, and needs no server. It returns the exit
// code: 0 when a token was printed, 1 when none could be made, 2 when the arguments make no sense.
//
//	token --subject S [--groups a,b] [--claim k=v]... [--audience A] [--expires 10m] [--alg ES256]
//	token --reviewer ana@example.com
//
// A reviewer's token is for the reviewers' pages and not for the gate: its audience is ReviewsAudience.
// A claim's value is a number, a boolean, an array or an object where it is one in JSON, and a string otherwise.
// --expires may be negative. With --exec-credential the token is printed the way kubectl's exec plugins do.
func Command(dir string, args []string, stdout, stderr io.Writer) int {
	var c Claims
	extra := map[string]any{}
	flags := flag.NewFlagSet("token", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&dir, "dir", dir, "the issuer's `directory`")
	flags.StringVar(&c.Subject, "subject", "", "the token's `sub`")
	groups := flags.String("groups", "", "the token's groups, `a,b`")
	flags.StringVar(&c.Audience, "audience", "", "the token's `aud` (default: the gate's, or the reviewers' pages')")
	flags.DurationVar(&c.Expires, "expires", 10*time.Minute, "how long it is valid; negative: how long it has been expired")
	flags.StringVar(&c.Algorithm, "alg", Algorithms[0], "the `algorithm` it is signed with: "+strings.Join(Algorithms, " or "))
	reviewer := flags.String("reviewer", "", "a token of the person with this `e-mail` address, verified")
	execCredential := flags.Bool("exec-credential", false, "print it as an ExecCredential, for a kubeconfig's exec user")
	flags.Func("claim", "a further claim, `k=v`; may be given again", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return errors.New("want k=v")
		}
		if _, twice := extra[name]; twice {
			return errors.New("given twice")
		}
		extra[name] = claim(value)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	usage := func(message string) int {
		fmt.Fprintf(stderr, "token: %s\nhint: token --subject S [--groups a,b] [--claim k=v]... [--audience A] [--expires 10m]\n", message)
		return 2
	}
	switch {
	case flags.NArg() > 0:
		return usage(fmt.Sprintf("unexpected argument %q", flags.Arg(0)))
	case (c.Subject == "") == (*reviewer == ""):
		return usage("give --subject or --reviewer")
	case *reviewer != "" && *groups != "":
		return usage("a reviewer has no groups; who reviews is in the policy")
	case c.Expires == 0:
		return usage("--expires 0 is neither valid nor expired")
	}
	if *reviewer != "" {
		c.Subject = *reviewer
		c.Extra = person(*reviewer)
		if c.Audience == "" {
			c.Audience = ReviewsAudience
		}
	}
	if *groups != "" {
		c.Groups = strings.Split(*groups, ",")
	}
	if c.Extra == nil {
		c.Extra = extra
	} else {
		for k, v := range extra {
			c.Extra[k] = v
		}
	}
	i, err := Open(dir)
	if err != nil {
		fmt.Fprintf(stderr, "token: %v\n", err)
		return 1
	}
	token, err := i.Mint(c)
	if err != nil {
		fmt.Fprintf(stderr, "token: %v\n", err)
		return 1
	}
	out := token
	if *execCredential {
		// client.authentication.k8s.io/v1: kubectl asks again a little before the token expires.
		data, err := json.Marshal(map[string]any{
			"apiVersion": "client.authentication.k8s.io/v1",
			"kind":       "ExecCredential",
			"status": map[string]any{
				"token":               token,
				"expirationTimestamp": i.now().Add(c.Expires).UTC().Format(time.RFC3339),
			},
		})
		if err != nil {
			fmt.Fprintf(stderr, "token: %v\n", err)
			return 1
		}
		out = string(data)
	}
	if _, err := fmt.Fprintln(stdout, out); err != nil {
		fmt.Fprintf(stderr, "token: %v\n", err)
		return 1
	}
	return 0
}

// claim is a claim's value as it is given on a command line.
func claim(s string) any {
	if t := strings.TrimSpace(s); t != "" && t != "null" && t[0] != '"' && json.Valid([]byte(t)) {
		return json.RawMessage(t) // as it is spelled: numbers past 2^53 stay what they are
	}
	return s
}
