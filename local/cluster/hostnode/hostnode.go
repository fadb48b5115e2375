// Package hostnode is the cluster's one node: it runs the pods that are bound
// to it as plain processes of this host.
//
// Pod life comes from virtual-kubelet, which watches pods and calls Provider.
// The API server's own requests (exec, attach, port-forward, logs) are served
// with the streaming code of the real kubelet, so what travels between client,
// API server and node is the real thing. What is not: there are no images, no
// network of pods, no limits, and no isolation beyond package sandbox.
//
// An image names a command: localhost/web:1 is the web applet, everything else
// a shell that sleeps. A container's own command always wins.
//
// The node has the identity and rights of a real one. It reads only Secrets and
// ConfigMaps of its pods, one by one, and serves only the API server.
package hostnode

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/node"
	"github.com/virtual-kubelet/virtual-kubelet/node/nodeutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"

	"sallyport/local/cluster/sandbox"
)

// version is what the node says its kubelet is.
const version = "v1.35.4-hostnode"

type config struct {
	kubeconfig, name, dir, listen   string
	cert, key, clientCA, clientName string
	podNet                          string
}

// Main runs the node until SIGTERM and returns an exit code.
func Main(args []string) int {
	var c config
	fs := flag.NewFlagSet("hostnode", flag.ContinueOnError)
	fs.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig of a user system:node:<name>")
	fs.StringVar(&c.name, "node-name", "dev-node", "name of the node")
	fs.StringVar(&c.dir, "dir", "", "state directory; containers live in its subdirectory pods")
	fs.StringVar(&c.listen, "listen", "127.0.0.1:10250", "address the API server reaches the node at")
	fs.StringVar(&c.cert, "tls-cert", "", "the node's certificate")
	fs.StringVar(&c.key, "tls-key", "", "the node's key")
	fs.StringVar(&c.clientCA, "client-ca", "", "authority of the API server's client certificate")
	fs.StringVar(&c.clientName, "client-name", "", "common name in it")
	fs.StringVar(&c.podNet, "pod-net", "127.77.0.0/16", "prefix of pod addresses")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, c); err != nil {
		log.Printf("hostnode: %v", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, c config) error {
	restCfg, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	restCfg.QPS, restCfg.Burst = 100, 200
	client, err := kubernetes.NewForConfig(restCfg)
	if err != nil {
		return err
	}
	provider, err := newProvider(c, restCfg, client)
	if err != nil {
		return err
	}
	l, err := c.tlsListen()
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: provider.routes(), ReadHeaderTimeout: 30 * time.Second}
	go srv.Serve(l) //nolint:errcheck // ends with the process
	defer srv.Close()
	defer provider.stopAll()
	return c.runControllers(ctx, client, provider)
}

func newProvider(c config, restCfg *rest.Config, client kubernetes.Interface) (*Provider, error) {
	prefix, err := netip.ParsePrefix(c.podNet)
	if err != nil {
		return nil, err
	}
	api, err := url.Parse(restCfg.Host)
	if err != nil {
		return nil, err
	}
	probe := filepath.Join(c.dir, "pods", ".probe")
	if err := os.RemoveAll(filepath.Join(c.dir, "pods")); err != nil {
		return nil, fmt.Errorf("clearing what an earlier run left: %w", err)
	}
	if err := os.MkdirAll(probe, 0o700); err != nil {
		return nil, err
	}
	mode, err := sandbox.Probe(probe)
	if mode == sandbox.None {
		log.Printf("no private /tmp for containers, they share the host's: %v", err)
	} else {
		log.Printf("containers run in their own %s", mode)
	}
	return &Provider{
		dir: c.dir, mode: mode, client: client, node: c.name, api: *api,
		addresses: newAddresses(prefix), pods: map[string]*pod{},
	}, nil
}

// tlsListen accepts the API server and nobody else: pods share this loopback.
func (c config) tlsListen() (net.Listener, error) {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(c.clientCA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", c.clientCA)
	}
	return tls.Listen("tcp", c.listen, &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			if cn := s.PeerCertificates[0].Subject.CommonName; cn != c.clientName {
				return fmt.Errorf("client %q is not the API server", cn)
			}
			return nil
		},
	})
}

// runControllers is virtual-kubelet's nodeutil without its cluster-wide watch
// on Secrets, which a node may not have and we do not want.
func (c config) runControllers(ctx context.Context, client kubernetes.Interface, p *Provider) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := record.NewBroadcaster(record.WithContext(ctx))
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	p.events = events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "hostnode", Host: c.name})

	mine := informers.NewSharedInformerFactoryWithOptions(client, 0, nodeutil.PodInformerFilter(c.name))
	never := informers.NewSharedInformerFactory(client, 0) // required by the constructor, never started
	pods, err := node.NewPodController(node.PodControllerConfig{
		PodClient:                 client.CoreV1(),
		EventRecorder:             &record.FakeRecorder{}, // its events say "provider"; ours say what happened
		Provider:                  p,
		PodInformer:               mine.Core().V1().Pods(),
		SecretInformer:            never.Core().V1().Secrets(),
		ConfigMapInformer:         never.Core().V1().ConfigMaps(),
		ServiceInformer:           never.Core().V1().Services(),
		SkipDownwardAPIResolution: true,
	})
	if err != nil {
		return err
	}
	spec, err := c.nodeSpec()
	if err != nil {
		return err
	}
	self, err := node.NewNodeController(node.NaiveNodeProvider{}, spec, client.CoreV1().Nodes(),
		node.WithNodeEnableLeaseV1(nodeutil.NodeLeaseV1Client(client), node.DefaultLeaseDuration))
	if err != nil {
		return err
	}
	mine.Start(ctx.Done())
	go pods.Run(ctx, 8) //nolint:errcheck // told by Err
	go self.Run(ctx)    //nolint:errcheck // told by Err
	select {
	case <-ctx.Done():
		return nil
	case <-pods.Done():
		err = pods.Err()
	case <-self.Done():
		err = self.Err()
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errors.New("a controller of the node ended"), err)
}

func (c config) nodeSpec() (*corev1.Node, error) {
	host, portText, err := net.SplitHostPort(c.listen)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseInt(portText, 10, 32)
	if err != nil {
		return nil, err
	}
	now := metav1.Now()
	condition := func(t corev1.NodeConditionType, s corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: t, Status: s, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("64"),
		corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourcePods:   resource.MustParse("250"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: c.name, Labels: map[string]string{
			corev1.LabelHostname:   c.name,
			corev1.LabelOSStable:   "linux",
			corev1.LabelArchStable: arch(),
		}},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: host},
				{Type: corev1.NodeHostName, Address: c.name},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: version, ContainerRuntimeVersion: "hostnode://1",
				OperatingSystem: "linux", Architecture: arch(), OSImage: "this host",
			},
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeReady, corev1.ConditionTrue, "HostnodeReady"),
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "NotMeasured"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "NotMeasured"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "NotMeasured"),
			},
		},
	}, nil
}
