package hostnode

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"sallyport/local/cluster/sandbox"
)

type fakeSource struct{ secrets, configMaps map[string]map[string][]byte }

func (f fakeSource) secret(_ context.Context, name string) (map[string][]byte, error) {
	return lookUp(f.secrets, "secrets", name)
}

func (f fakeSource) configMap(_ context.Context, name string) (map[string][]byte, error) {
	return lookUp(f.configMaps, "configmaps", name)
}

func lookUp(in map[string]map[string][]byte, resource, name string) (map[string][]byte, error) {
	if data, ok := in[name]; ok {
		return data, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

func TestEnvironment(t *testing.T) {
	src := fakeSource{
		secrets:    map[string]map[string][]byte{"db": {"password": []byte("s3cret")}},
		configMaps: map[string]map[string][]byte{"settings": {"color": []byte("blue")}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "dev", Labels: map[string]string{"app": "web"}},
		Status:     corev1.PodStatus{PodIP: "127.77.0.2"},
	}
	yes := true
	secret := func(name, key string, optional *bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: optional}}
	}
	fieldRef := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	ref := func(name string) *corev1.ConfigMapEnvSource {
		return &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}
	}
	for name, test := range map[string]struct {
		from  []corev1.EnvFromSource
		env   []corev1.EnvVar
		want  map[string]string // besides HOME
		fails bool
	}{
		"plain and expanded": {
			env:  []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(HOME)$$(A)$(C)"}},
			want: map[string]string{"A": "1", "B": "1/pod$(A)$(C)"},
		},
		"secret":           {env: []corev1.EnvVar{{Name: "P", ValueFrom: secret("db", "password", nil)}}, want: map[string]string{"P": "s3cret"}},
		"missing key":      {env: []corev1.EnvVar{{Name: "P", ValueFrom: secret("db", "user", nil)}}, fails: true},
		"missing secret":   {env: []corev1.EnvVar{{Name: "P", ValueFrom: secret("other", "password", nil)}}, fails: true},
		"optional key":     {env: []corev1.EnvVar{{Name: "P", ValueFrom: secret("db", "user", &yes)}}, want: map[string]string{}},
		"optional secret":  {env: []corev1.EnvVar{{Name: "P", ValueFrom: secret("other", "password", &yes)}}, want: map[string]string{}},
		"envFrom":          {from: []corev1.EnvFromSource{{Prefix: "X_", ConfigMapRef: ref("settings")}}, want: map[string]string{"X_color": "blue"}},
		"missing envFrom":  {from: []corev1.EnvFromSource{{ConfigMapRef: ref("none")}}, fails: true},
		"env over envFrom": {from: []corev1.EnvFromSource{{ConfigMapRef: ref("settings")}}, env: []corev1.EnvVar{{Name: "color", Value: "red"}}, want: map[string]string{"color": "red"}},
		"fields": {
			env: []corev1.EnvVar{
				{Name: "N", ValueFrom: fieldRef("metadata.name")}, {Name: "NS", ValueFrom: fieldRef("metadata.namespace")},
				{Name: "IP", ValueFrom: fieldRef("status.podIP")}, {Name: "L", ValueFrom: fieldRef("metadata.labels['app']")},
			},
			want: map[string]string{"N": "web-1", "NS": "dev", "IP": "127.77.0.2", "L": "web"},
		},
		"resource field": {env: []corev1.EnvVar{{Name: "R", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}}}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := environment(context.Background(), src, pod, &corev1.Container{EnvFrom: test.from, Env: test.env}, map[string]string{"HOME": "/pod"})
			if test.fails {
				if err == nil {
					t.Fatalf("got %v, want an error", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			delete(got, "HOME")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestArgv(t *testing.T) {
	for name, test := range map[string]struct {
		c    corev1.Container
		want []string
	}{
		"web":                {corev1.Container{Image: "localhost/web:1"}, []string{sandbox.Web}},
		"web with arguments": {corev1.Container{Image: "localhost/web:1", Args: []string{"9090"}}, []string{sandbox.Web, "9090"}},
		"web with command":   {corev1.Container{Image: "localhost/web:1", Command: []string{"sh"}}, []string{"sh"}},
		"website is not web": {corev1.Container{Image: "localhost/website:1"}, sleeper},
		"other":              {corev1.Container{Image: "nginx"}, sleeper},
		"other arguments":    {corev1.Container{Image: "nginx", Args: []string{"echo", "$(A)"}}, []string{"echo", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, argv(&test.c, map[string]string{"A": "1"})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWriteItemStaysInTheVolume(t *testing.T) {
	for _, path := range []string{"../x", "/etc/x", "a/../../x"} {
		if err := writeItem(t.TempDir(), path, nil, 0o644); err == nil {
			t.Errorf("%s was written", path)
		}
	}
}
