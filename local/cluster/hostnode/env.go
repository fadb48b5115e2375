package hostnode

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// A source reads what containers refer to in their pod's namespace.
type source interface {
	secret(ctx context.Context, name string) (map[string][]byte, error)
	configMap(ctx context.Context, name string) (map[string][]byte, error)
}

// environment resolves a container's env and envFrom over base, as the kubelet
// does: envFrom first, later entries win, $(NAME) refers to earlier ones.
func environment(ctx context.Context, src source, pod *corev1.Pod, c *corev1.Container, base map[string]string) (map[string]string, error) {
	env := maps.Clone(base)
	for _, from := range c.EnvFrom {
		data, err := fromAll(ctx, src, from)
		if err != nil {
			return nil, err
		}
		for k, v := range data {
			env[from.Prefix+k] = string(v)
		}
	}
	for _, e := range c.Env {
		value, set, err := resolve(ctx, src, pod, e, env)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", e.Name, err)
		}
		if set {
			env[e.Name] = value
		}
	}
	return env, nil
}

func fromAll(ctx context.Context, src source, from corev1.EnvFromSource) (map[string][]byte, error) {
	switch {
	case from.SecretRef != nil:
		data, err := src.secret(ctx, from.SecretRef.Name)
		return tolerate(data, err, from.SecretRef.Optional)
	case from.ConfigMapRef != nil:
		data, err := src.configMap(ctx, from.ConfigMapRef.Name)
		return tolerate(data, err, from.ConfigMapRef.Optional)
	}
	return nil, errors.New("envFrom names neither a Secret nor a ConfigMap")
}

func resolve(ctx context.Context, src source, pod *corev1.Pod, e corev1.EnvVar, env map[string]string) (value string, set bool, err error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return expansion.Expand(e.Value, expansion.MappingFuncFor(env)), true, nil
	case from.SecretKeyRef != nil:
		data, err := src.secret(ctx, from.SecretKeyRef.Name)
		return oneKey(data, err, from.SecretKeyRef.Key, from.SecretKeyRef.Optional)
	case from.ConfigMapKeyRef != nil:
		data, err := src.configMap(ctx, from.ConfigMapKeyRef.Name)
		return oneKey(data, err, from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Optional)
	case from.FieldRef != nil:
		value, err := field(pod, from.FieldRef.FieldPath)
		return value, err == nil, err
	}
	return "", false, errors.New("this node resolves value, secretKeyRef, configMapKeyRef and fieldRef only")
}

// field reads what fieldpath leaves to the kubelet, and the rest through it.
func field(pod *corev1.Pod, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return pod.Status.HostIP, nil
	case "status.podIP", "status.podIPs":
		return pod.Status.PodIP, nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

func oneKey(data map[string][]byte, err error, key string, optional *bool) (string, bool, error) {
	data, err = tolerate(data, err, optional)
	if err != nil {
		return "", false, err
	}
	value, ok := data[key]
	if !ok && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("key %q not found; there are %v", key, slices.Sorted(maps.Keys(data)))
	}
	return string(value), ok, nil
}

// tolerate turns a missing object into an empty one where it is optional.
func tolerate(data map[string][]byte, err error, optional *bool) (map[string][]byte, error) {
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	return data, err
}
