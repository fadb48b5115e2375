package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sallyport/shared/settings"
)

// proxyFile is where the stack keeps what its proxy was started with, so that another can be.
const proxyFile = "proxy.json"

// task is what every task of the proxy is started with; only its addresses are its own.
type task struct {
	AWS      []string       `json:"aws"` // environment
	Settings settings.Proxy `json:"settings"`
}

// spawnProxy starts one task of the proxy on free ports.
func (s *Stack) spawnProxy(name string, t task) (p process, listen, metrics string, err error) {
	if listen, metrics, err = freePorts(); err != nil {
		return p, "", "", err
	}
	t.Settings.Listen, t.Settings.MetricsListen = listen, metrics
	env := environment(t.AWS...)
	for k, v := range settings.Environment(t.Settings) {
		env = append(env, k+"="+v)
	}
	p, err = s.spawn(name, env, s.bin("proxy"))
	return p, listen, metrics, err
}

// awaitProxy waits until a task of the proxy is ready.
func (s *Stack) awaitProxy(ctx context.Context, p process, metrics string) error {
	return s.await(ctx, p, 30*time.Second, func() (bool, error) {
		res, err := http.Get("http://" + metrics + "/readyz")
		if err != nil {
			return false, nil
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK, nil
	})
}

// A Task is one more task of the proxy.
type Task struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Metrics string `json:"metrics"`
	PID     int    `json:"pid"`
}

// AddProxy starts one more task of the running stack's proxy, with the same settings and certificate, and waits until it is
// ready. It ends with the stack; the stack is up without it, so it can be killed.
func (s *Stack) AddProxy(ctx context.Context) (Task, error) {
	unlock, err := s.lock(true)
	if err != nil {
		return Task{}, err
	}
	defer unlock()
	d, err := s.Describe()
	if err != nil || !s.Running() {
		return Task{}, errors.Join(errors.New("the stack is not up; make up starts it"), err)
	}
	var t task
	if err := readJSON(s.path(proxyFile), &t); err != nil {
		return Task{}, err
	}
	all := s.processes()
	n := 2
	for _, p := range all {
		if p.Extra {
			n++
		}
	}
	p, listen, metrics, err := s.spawnProxy(fmt.Sprintf("proxy-%d", n), t)
	if err != nil {
		return Task{}, err
	}
	p.Extra = true
	if err := writeJSON(s.path("processes.json"), append(all, p)); err != nil {
		return Task{}, errors.Join(err, p.end(0))
	}
	if err := s.awaitProxy(ctx, p, metrics); err != nil {
		return Task{}, errors.Join(err, p.end(0))
	}
	d.PIDs[p.Name] = p.PID
	return Task{Name: p.Name, URL: "https://" + listen, Metrics: "http://" + metrics + "/metrics", PID: p.PID}, writeJSON(s.path("stack.json"), d)
}
