// Package stack runs Sallyport on one machine: the deployed processes, the proxy and the functions, against stand-ins
// that are the real thing wherever that is possible. It starts them in the background, waits until they serve, writes down where they are, and ends
// every one of them again.
//
// All state is in one folder of the checkout, so two checkouts run side by side; everything listens on loopback, on
// ports that are free when it starts. The credentials in it are made up and worth nothing outside.
package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// What AWS is called here.
const (
	Region  = "eu-west-1"
	Account = "111122223333"
	Cluster = "dev"

	PolicyBucket     = "sallyport-policy"
	RecordingsBucket = "sallyport-recordings"
)

// Stack is one checkout's stack.
type Stack struct {
	Root string    // the checkout
	Out  io.Writer // where progress is told
}

// Description is .local/stack.json: where things are. Scripts from outside read it, so its names are fixed.
type Description struct {
	Proxy struct {
		URL     string `json:"url"`
		CA      string `json:"ca"`
		Metrics string `json:"metrics"`
	} `json:"proxy"`
	Cluster struct {
		Name            string `json:"name"`
		Server          string `json:"server"`
		AdminKubeconfig string `json:"admin_kubeconfig"`
		AuditLog        string `json:"audit_log"`
	} `json:"cluster"`
	Agent struct {
		Kubeconfig string `json:"kubeconfig"`
	} `json:"agent"`
	Issuer struct {
		URL      string `json:"url"`
		Audience string `json:"audience"`
	} `json:"issuer"`
	AWS struct {
		Endpoint string `json:"endpoint"`
		Region   string `json:"region"`
	} `json:"aws"`
	Reviews struct {
		URL   string `json:"url"`
		Inbox string `json:"inbox"`
	} `json:"reviews"`
	Recordings struct {
		Bucket string `json:"bucket"`
	} `json:"recordings"`
	Policy struct {
		File string `json:"file"`
	} `json:"policy"`
	PIDs map[string]int `json:"pids"`
}

func (s *Stack) path(elem ...string) string {
	return filepath.Join(append([]string{s.Root, ".local"}, elem...)...)
}

func (s *Stack) bin(name string) string { return filepath.Join(s.Root, "bin", name) }

// Describe reads what a running stack wrote down. An error is fs.ErrNotExist when none runs.
func (s *Stack) Describe() (Description, error) {
	var d Description
	err := readJSON(s.path("stack.json"), &d)
	return d, err
}

// processes reads the processes that were started, whether or not they still run.
func (s *Stack) processes() []process {
	var all []process
	_ = readJSON(s.path("processes.json"), &all)
	return all
}

// Running says whether every process that up started runs.
func (s *Stack) Running() bool {
	if _, err := s.Describe(); err != nil {
		return false
	}
	all := s.processes()
	for _, p := range all {
		if !p.Extra && !p.alive() {
			return false
		}
	}
	return len(all) > 0
}

// Down ends every process of the stack, the last started first, and removes its state. What the logs said is kept
// until the next start.
func (s *Stack) Down() error {
	all := s.processes()
	var failed []error
	for i := len(all) - 1; i >= 0; i-- {
		if err := all[i].end(20 * time.Second); err != nil {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	for _, name := range []string{"stack.json", "profile.json", "processes.json", proxyFile, "cluster", "aws", "issuer", "agent.kubeconfig", "proxy-ca.crt", "proxy.crt", "proxy.key", "policy.yaml"} {
		if err := os.RemoveAll(s.path(name)); err != nil {
			return fmt.Errorf("removing the stack's state: %w", err)
		}
	}
	return nil
}

// Print tells where things are.
func (s *Stack) Print(d Description) {
	rel := s.rel
	fmt.Fprintf(s.Out, "\n  gate        %s\n  cluster     %s (%s)\n  issuer      %s\n  AWS         %s\n  policy      %s\n  metrics     %s\n",
		d.Proxy.URL, d.Cluster.Name, d.Cluster.Server, d.Issuer.URL, d.AWS.Endpoint, rel(d.Policy.File), d.Proxy.Metrics)
	fmt.Fprintf(s.Out, "  reviews     %s\n  inbox       %s\n", d.Reviews.URL, d.Reviews.Inbox)
	fmt.Fprintf(s.Out, "\nBe an agent:\n  export KUBECONFIG=%s\n  %s get pods -n dev\n", rel(d.Agent.Kubeconfig), rel(s.bin("kubectl")))
	fmt.Fprintf(s.Out, "Change what it may do, while it runs: edit %s, or\n  %s policy FILE\n", rel(d.Policy.File), rel(s.bin("local")))
	fmt.Fprintf(s.Out, "See what was recorded:\n  %s sessions list\nEnd it:\n  make down\n", rel(s.bin("sallyport")))
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'))
}

// writeFile replaces a file whole, so that nobody reads half of it. Only the owner may read it.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
