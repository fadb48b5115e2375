package hostnode

import (
	"context"
	"net/url"
	"runtime"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/errdefs"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"sallyport/local/cluster/sandbox"
)

// Provider keeps the node's pods. virtual-kubelet calls it from several
// goroutines.
type Provider struct {
	dir       string
	node      string
	mode      sandbox.Mode
	client    kubernetes.Interface
	api       url.URL
	events    record.EventRecorder
	addresses *addresses

	mu     sync.Mutex
	pods   map[string]*pod // by namespace/name
	notify func(*corev1.Pod)
}

// NotifyPods registers where changes of status go.
func (p *Provider) NotifyPods(_ context.Context, notify func(*corev1.Pod)) { p.notify = notify }

// CreatePod takes a pod on. It fails only where nothing can be started at all;
// whatever is wrong with the pod shows in its status.
func (p *Provider) CreatePod(_ context.Context, spec *corev1.Pod) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := podKey(spec.Namespace, spec.Name)
	if p.pods[key] != nil {
		return nil
	}
	created, err := newPod(p, spec.DeepCopy())
	if err != nil {
		return err
	}
	p.pods[key] = created
	go created.run()
	return nil
}

// UpdatePod takes over labels and annotations. A changed image has no effect
// before the container starts again.
func (p *Provider) UpdatePod(_ context.Context, spec *corev1.Pod) error {
	if pod := p.find(spec.Namespace, spec.Name); pod != nil {
		pod.update(spec.DeepCopy())
	}
	return nil
}

// DeletePod begins to end a pod and returns. virtual-kubelet calls it when the
// pod is marked for deletion, and again when the API no longer has it: then
// nobody waits for a graceful end.
func (p *Provider) DeletePod(_ context.Context, spec *corev1.Pod) error {
	pod := p.find(spec.Namespace, spec.Name)
	if pod == nil {
		return errdefs.NotFoundf("pod %s/%s is not on this node", spec.Namespace, spec.Name)
	}
	grace := time.Duration(0)
	if spec.DeletionTimestamp != nil && spec.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*spec.DeletionGracePeriodSeconds) * time.Second
	}
	pod.end(grace)
	return nil
}

// GetPod returns a pod with its present status.
func (p *Provider) GetPod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	if pod := p.find(namespace, name); pod != nil {
		return pod.snapshot(), nil
	}
	return nil, errdefs.NotFoundf("pod %s/%s is not on this node", namespace, name)
}

// GetPodStatus returns a pod's present status.
func (p *Provider) GetPodStatus(ctx context.Context, namespace, name string) (*corev1.PodStatus, error) {
	pod, err := p.GetPod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	return &pod.Status, nil
}

// GetPods returns all pods.
func (p *Provider) GetPods(context.Context) ([]*corev1.Pod, error) {
	var out []*corev1.Pod
	for _, pod := range p.all() {
		out = append(out, pod.snapshot())
	}
	return out, nil
}

func (p *Provider) find(namespace, name string) *pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pods[podKey(namespace, name)]
}

func (p *Provider) all() []*pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*pod, 0, len(p.pods))
	for _, pod := range p.pods {
		out = append(out, pod)
	}
	return out
}

// forget drops a pod that has ended, unless a namesake took its place.
func (p *Provider) forget(gone *pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := podKey(gone.spec().Namespace, gone.spec().Name)
	if p.pods[key] == gone {
		delete(p.pods, key)
	}
}

// stopAll ends all processes. The API keeps the pods: a next run of the node
// starts them again.
func (p *Provider) stopAll() {
	var wg sync.WaitGroup
	for _, pod := range p.all() {
		wg.Go(func() { pod.stop(2 * time.Second) })
	}
	wg.Wait()
}

func podKey(namespace, name string) string { return namespace + "/" + name }

func arch() string { return runtime.GOARCH }
