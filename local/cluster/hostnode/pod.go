package hostnode

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/local/cluster/process"
)

// A pod is one pod on the node, from its arrival to its end. Its directory is
// <state>/pods/<uid>.
type pod struct {
	node    *Provider
	uid     string
	dir     string
	address *claim
	volumes map[string]string // where each lies; set before containers start
	init    []*container
	main    []*container

	ctx    context.Context // ends when the pod begins to end
	cancel context.CancelFunc
	over   chan struct{} // closed when no container will run again
	hurry  chan struct{} // closed when nobody waits for a graceful end
	dirty  chan struct{} // the status changed

	mu       sync.Mutex
	object   *corev1.Pod // as the API gave it, its status as we last made it
	started  metav1.Time
	trouble  string // why containers cannot start yet
	ending   bool
	hurrying bool
}

func newPod(n *Provider, object *corev1.Pod) (*pod, error) {
	address, err := n.addresses.claim()
	if err != nil {
		return nil, err
	}
	p := &pod{
		node: n, uid: string(object.UID), dir: filepath.Join(n.dir, "pods", string(object.UID)), address: address,
		over: make(chan struct{}), hurry: make(chan struct{}), dirty: make(chan struct{}, 1),
		object: object, started: metav1.Now(),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, c := range object.Spec.InitContainers {
		k, err := newContainer(p, c.Name)
		if err != nil {
			address.release()
			return nil, err
		}
		p.init = append(p.init, k)
	}
	for _, c := range object.Spec.Containers {
		k, err := newContainer(p, c.Name)
		if err != nil {
			address.release()
			return nil, err
		}
		p.main = append(p.main, k)
	}
	return p, nil
}

// run lives the pod's life up to the end of its containers.
func (p *pod) run() {
	go p.report()
	p.changed()
	var wg sync.WaitGroup
	if p.prepare() && p.initialize(&wg) {
		for _, c := range p.main {
			wg.Go(func() { c.live(p.ctx, p.spec().Spec.RestartPolicy) })
		}
	}
	wg.Wait()
	close(p.over)
	p.changed()
}

// prepare makes the volumes, again and again until what they refer to exists.
func (p *pod) prepare() bool {
	for {
		volumes, err := makeVolumes(p.ctx, p.node, p.snapshot(), filepath.Join(p.dir, "volumes"))
		if err == nil {
			p.volumes = volumes
			p.complain("")
			return true
		}
		p.complain(err.Error())
		select {
		case <-p.ctx.Done():
			return false
		case <-time.After(2 * time.Second):
		}
	}
}

func (p *pod) complain(trouble string) {
	p.mu.Lock()
	fresh := trouble != "" && trouble != p.trouble
	p.trouble = trouble
	p.mu.Unlock()
	if fresh {
		p.event(corev1.EventTypeWarning, "FailedMount", "%s", trouble)
	}
	p.changed()
}

// initialize runs the init containers in turn and tells whether all went well.
// A sidecar, which restarts always, is started and not waited for.
func (p *pod) initialize(wg *sync.WaitGroup) bool {
	policy := p.spec().Spec.RestartPolicy
	if policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure
	}
	for _, c := range p.init {
		if spec := c.spec(); spec != nil && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			wg.Go(func() { c.live(p.ctx, corev1.RestartPolicyAlways) })
			continue
		}
		if code := c.live(p.ctx, policy); code != 0 || p.ctx.Err() != nil {
			return false
		}
	}
	return true
}

// report passes status on, one change at a time and in order.
func (p *pod) report() {
	for {
		select {
		case <-p.dirty:
			p.node.notify(p.snapshot())
		case <-p.ctx.Done():
			return
		}
	}
}

// changed asks for a report. It never blocks.
func (p *pod) changed() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

func (p *pod) event(kind, reason, format string, args ...any) {
	p.node.events.Eventf(p.spec(), kind, reason, format, args...)
}

// end begins to end the pod within grace. Called again without grace it hurries.
func (p *pod) end(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if grace == 0 && !p.hurrying {
		p.hurrying = true
		close(p.hurry)
	}
	if p.ending {
		return
	}
	p.ending = true
	go func() {
		p.stop(grace)
		p.node.notify(p.snapshot())
		p.address.release()
		if err := os.RemoveAll(p.dir); err != nil {
			log.Printf("removing the directory of pod %s: %v", p.uid, err)
		}
		p.node.forget(p)
		p.node.deleteFromAPI(p.spec())
	}()
}

// stop ends all processes of the pod: SIGTERM to what the containers started,
// and after grace SIGKILL to everything they left. It returns when none is left.
func (p *pod) stop(grace time.Duration) {
	p.cancel()
	var wg sync.WaitGroup
	for _, c := range append(append([]*container{}, p.main...), p.init...) {
		if r := c.running(); r != nil {
			wg.Go(func() { r.stop(grace, p.hurry) })
		}
	}
	wg.Wait()
	process.KillMarked(p.dir, 5*time.Second)
	<-p.over
}

func (r *run) stop(grace time.Duration, hurry <-chan struct{}) {
	select {
	case <-hurry:
	default:
		r.proc.Terminate(grace, hurry)
	}
	r.proc.Stop(0)
}

// deleteFromAPI removes a pod whose end the API waits for.
func (n *Provider) deleteFromAPI(object *corev1.Pod) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(object.UID))
	err := n.client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, *options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		log.Printf("removing pod %s/%s from the API: %v", object.Namespace, object.Name, err)
	}
}

func (p *pod) update(object *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	object.Status = p.object.Status
	p.object = object
}

// spec is the pod as the API gave it. It must not be changed.
func (p *pod) spec() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.object
}

// container finds a container by name; an empty name means the only one.
func (p *pod) container(name string) *container {
	all := append(append([]*container{}, p.main...), p.init...)
	if name == "" && len(p.main) == 1 {
		return p.main[0]
	}
	for _, c := range all {
		if c.name == name {
			return c
		}
	}
	return nil
}
