package mask_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"sallyport/e2e/stacktest"
)

// Threat S12: clients work on masked objects as on others: typed, dynamic, metadata, informers.
func TestClientsDecodeMaskedObjects(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	cfg := s.Agent(t, "developers").Config()
	typed, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	check := func(how string, data map[string][]byte) {
		t.Helper()
		if len(data) != 2 || !strings.HasPrefix(string(data["password"]), "[masked:") || string(data["password"]) == string(data["url"]) {
			t.Errorf("%s: %q", how, data)
		}
	}
	one, err := typed.CoreV1().Secrets("dev").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check("typed get", one.Data)
	list, err := typed.CoreV1().Secrets("dev").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list.Items {
		if i.Name == "db" {
			check("typed list", i.Data)
			if string(i.Data["password"]) != string(one.Data["password"]) {
				t.Error("the same value has two masks in one session")
			}
		}
	}
	other, err := typed.CoreV1().Secrets("prod").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check("typed get in prod", other.Data)
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	u, err := dyn.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace("dev").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil || strings.Contains(fmt.Sprint(u.Object), "correct-horse") {
		t.Errorf("dynamic: %v %v", u, err)
	}
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := meta.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace("dev").List(t.Context(), metav1.ListOptions{}); err != nil || len(m.Items) == 0 {
		t.Errorf("metadata: %v", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace("dev"))
	secrets := factory.Core().V1().Secrets()
	seen := make(chan *corev1.Secret, 100)
	_ = secrets.Informer().SetTransform(func(o any) (any, error) {
		if sec, ok := o.(*corev1.Secret); ok && sec.Name == "db" {
			seen <- sec
		}
		return o, nil
	})
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	select {
	case sec := <-seen:
		check("informer", sec.Data)
	case <-time.After(within):
		t.Error("the informer saw no Secret")
	}
}
