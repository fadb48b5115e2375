package hostnode

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// An apiSource reads one object at a time: the node authorizer lets a node get
// the Secrets and ConfigMaps its pods refer to, and list none.
type apiSource struct {
	client    kubernetes.Interface
	namespace string
}

func (s apiSource) secret(ctx context.Context, name string) (map[string][]byte, error) {
	got, err := s.client.CoreV1().Secrets(s.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return got.Data, nil
}

func (s apiSource) configMap(ctx context.Context, name string) (map[string][]byte, error) {
	got, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	data := make(map[string][]byte, len(got.Data)+len(got.BinaryData))
	for k, v := range got.Data {
		data[k] = []byte(v)
	}
	for k, v := range got.BinaryData {
		data[k] = v
	}
	return data, nil
}
