package gate_test

import (
	"bytes"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"sallyport/e2e/stacktest"
)

// protobuf is how controllers and operators are usually configured.
func protobuf(c *rest.Config) *rest.Config {
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return c
}

func TestTypedClient(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for name, agent := range map[string]*stacktest.Agent{"JSON": s.Agent(t, "agents"), "protobuf": s.Agent(t, "agents")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := agent.Config()
			if name == "protobuf" {
				cfg = protobuf(cfg)
			}
			c, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			pods, err := c.CoreV1().Pods("dev").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
			if err != nil || len(pods.Items) < 2 || pods.Items[0].Spec.Containers[0].Image != "localhost/web:1" {
				t.Errorf("pods: %v, %v", err, pods)
			}
			d, err := c.AppsV1().Deployments("dev").Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil || *d.Spec.Replicas != 2 {
				t.Errorf("deployment: %v", err)
			}
			me, err := c.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authnv1.SelfSubjectReview{}, metav1.CreateOptions{})
			if err != nil || !strings.Contains(me.Status.UserInfo.Username, "assumed-role/operate/"+agent.Subject+"-") {
				t.Errorf("whoami: %v, %v", err, me)
			}
			s.Show("typed whoami over "+name, me.String())

			_, err = c.CoreV1().Pods("dev").Get(t.Context(), "nothing", metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				t.Errorf("missing pod: want not found, got %v", err)
			}
			_, err = c.CoreV1().Secrets("dev").List(t.Context(), metav1.ListOptions{})
			if !apierrors.IsForbidden(err) {
				t.Errorf("secrets: want forbidden, got %v", err)
			}
			_, err = c.CoreV1().ConfigMaps("dev").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "written"}}, metav1.CreateOptions{})
			var status apierrors.APIStatus
			if !apierrors.IsForbidden(err) || !errors.As(err, &status) || !strings.Contains(status.Status().Message, "no rule allows "+agent.Subject+" to create configmaps") {
				t.Errorf("write: want the gate's own refusal, got %v", err)
			}
			cfg.BearerToken = s.Token(t, "--subject", agent.Subject, "--groups", "agents", "--expires", "-5m")
			if c, err = kubernetes.NewForConfig(cfg); err != nil {
				t.Fatal(err)
			}
			if _, err = c.CoreV1().Pods("dev").List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
				t.Errorf("expired token: want unauthorized, got %v", err)
			}
		})
	}
}

func TestDynamicMetadataAndDiscovery(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	cfg := s.Agent(t, "agents").Config()
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}

	d, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	list, err := d.Resource(deployments).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) < 2 {
		t.Errorf("dynamic: %v, %v", err, list)
	}

	m, err := metadata.NewForConfig(metadata.ConfigFor(cfg)) // it asks for PartialObjectMetadata, as protobuf
	if err != nil {
		t.Fatal(err)
	}
	part, err := m.Resource(deployments).Namespace("dev").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || part.Labels["app"] != "web" {
		t.Errorf("metadata: %v, %v", err, part)
	}

	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	groups, resources, err := c.Discovery().ServerGroupsAndResources()
	if err != nil || len(groups) < 10 || len(resources) < 20 {
		t.Errorf("discovery: %d groups, %d lists, %v", len(groups), len(resources), err)
	}
	paths, err := c.Discovery().OpenAPIV3().Paths()
	if err != nil || paths["apis/apps/v1"] == nil {
		t.Fatalf("OpenAPI v3: %d paths, %v", len(paths), err)
	}
	if b, err := paths["apis/apps/v1"].Schema(runtime.ContentTypeJSON); err != nil || !bytes.Contains(b, []byte("io.k8s.api.apps.v1.Deployment")) {
		t.Errorf("OpenAPI v3 of apps/v1: %d bytes, %v", len(b), err)
	}
}

func TestInformerSeesChanges(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	name := s.ConfigMap(t)
	c, err := kubernetes.NewForConfig(protobuf(s.Agent(t, "agents").Config()))
	if err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithNamespace("dev"))
	informer := factory.Core().V1().ConfigMaps().Informer()
	changed := make(chan string, 16)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(_, now any) {
		if cm, ok := now.(*corev1.ConfigMap); ok && cm.Name == name {
			changed <- cm.Data["color"]
		}
	}}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop); factory.Shutdown() })
	factory.Start(stop)
	for kind, ok := range factory.WaitForCacheSync(stop) {
		if !ok {
			t.Fatalf("%v did not sync", kind)
		}
	}
	s.Admin(t, "patch", "configmap", name, "-n", "dev", "-p", `{"data":{"color":"green"}}`)
	select {
	case color := <-changed:
		if color != "green" {
			t.Errorf("the informer saw color %q, want green", color)
		}
	case <-time.After(within):
		t.Error("the informer did not see the change")
	}
}

func TestRemoteCommand(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	cfg := agent.Config()
	target := func(command ...string) *url.URL {
		c, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c.CoreV1().RESTClient().Post().Resource("pods").Namespace("dev").Name(s.Pod(t, "dev")).SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{Command: command, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	}
	t.Run("WebSocket", func(t *testing.T) {
		ws, err := remotecommand.NewWebSocketExecutor(cfg, "GET", target("sh", "-c", "cat; exit 9").String())
		if err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		err = ws.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("through and back"), Stdout: &stdout, Stderr: &stderr})
		var exit utilexec.ExitError
		if !errors.As(err, &exit) || exit.ExitStatus() != 9 || stdout.String() != "through and back" {
			t.Errorf("want exit code 9 and the input back, got %v, %q, %q", err, &stdout, &stderr)
		}
	})
	t.Run("SPDY", func(t *testing.T) {
		spdy, err := remotecommand.NewSPDYExecutor(cfg, "POST", target("true"))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = spdy.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out})
		if err == nil || !strings.Contains(err.Error(), "kubectl 1.31 or newer") {
			t.Errorf("want a sentence that says what to use, got %v", err)
		}
	})
}
