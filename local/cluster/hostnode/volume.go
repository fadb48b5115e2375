package hostnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Volumes are directories under the pod's own, filled once when the pod starts.
// Later changes of a Secret or ConfigMap do not reach them.

// makeVolumes makes all volumes of a pod in dir and returns where each lies.
func makeVolumes(ctx context.Context, p *Provider, pod *corev1.Pod, dir string) (map[string]string, error) {
	at := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.HostPath != nil {
			at[v.Name] = v.HostPath.Path
			continue
		}
		path := filepath.Join(dir, v.Name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
		if err := fillVolume(ctx, p, pod, v.VolumeSource, path); err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		at[v.Name] = path
	}
	return at, nil
}

func fillVolume(ctx context.Context, p *Provider, pod *corev1.Pod, v corev1.VolumeSource, dir string) error {
	src := apiSource{p.client, pod.Namespace}
	switch {
	case v.EmptyDir != nil:
		return os.Chmod(dir, 0o777)
	case v.Secret != nil:
		data, err := src.secret(ctx, v.Secret.SecretName)
		return writeItems(dir, data, err, v.Secret.Items, v.Secret.DefaultMode, v.Secret.Optional)
	case v.ConfigMap != nil:
		data, err := src.configMap(ctx, v.ConfigMap.Name)
		return writeItems(dir, data, err, v.ConfigMap.Items, v.ConfigMap.DefaultMode, v.ConfigMap.Optional)
	case v.DownwardAPI != nil:
		return writeFields(pod, dir, v.DownwardAPI.Items)
	case v.Projected != nil:
		for _, part := range v.Projected.Sources {
			if err := project(ctx, p, pod, part, v.Projected.DefaultMode, dir); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("this node has emptyDir, secret, configMap, downwardAPI, projected and hostPath volumes only")
}

func project(ctx context.Context, p *Provider, pod *corev1.Pod, part corev1.VolumeProjection, mode *int32, dir string) error {
	src := apiSource{p.client, pod.Namespace}
	switch {
	case part.Secret != nil:
		data, err := src.secret(ctx, part.Secret.Name)
		return writeItems(dir, data, err, part.Secret.Items, mode, part.Secret.Optional)
	case part.ConfigMap != nil:
		data, err := src.configMap(ctx, part.ConfigMap.Name)
		return writeItems(dir, data, err, part.ConfigMap.Items, mode, part.ConfigMap.Optional)
	case part.DownwardAPI != nil:
		return writeFields(pod, dir, part.DownwardAPI.Items)
	case part.ServiceAccountToken != nil:
		token, err := p.token(ctx, pod, part.ServiceAccountToken)
		if err != nil {
			return err
		}
		return writeItem(dir, part.ServiceAccountToken.Path, []byte(token), 0o600)
	}
	return errors.New("this node projects secret, configMap, downwardAPI and serviceAccountToken only")
}

// token asks for a token bound to the pod. It is not renewed.
func (p *Provider) token(ctx context.Context, pod *corev1.Pod, want *corev1.ServiceAccountTokenProjection) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: want.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if want.Audience != "" {
		request.Spec.Audiences = []string{want.Audience}
	}
	got, err := p.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of service account %s: %w", pod.Spec.ServiceAccountName, err)
	}
	return got.Status.Token, nil
}

func writeItems(dir string, data map[string][]byte, err error, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	if data, err = tolerate(data, err, optional); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode != nil {
		perm = fs.FileMode(*mode)
	}
	if len(items) == 0 {
		for key, value := range data {
			if err := writeItem(dir, key, value, perm); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("key %q not found", item.Key)
		}
		itemPerm := perm
		if item.Mode != nil {
			itemPerm = fs.FileMode(*item.Mode)
		}
		if err := writeItem(dir, item.Path, value, itemPerm); err != nil {
			return err
		}
	}
	return nil
}

func writeFields(pod *corev1.Pod, dir string, items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return errors.New("this node resolves fieldRef only")
		}
		value, err := field(pod, item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		if err := writeItem(dir, item.Path, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeItem writes one file. The API has checked path; a local path is still
// insisted on, because this is the host's file system.
func writeItem(dir, path string, data []byte, perm fs.FileMode) error {
	if !filepath.IsLocal(path) {
		return fmt.Errorf("path %q leaves the volume", path)
	}
	full := filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	// Owner may read and write, whatever the mode: all containers are one user.
	return os.WriteFile(full, data, perm|0o600)
}
