package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// poll is short: waiting is all we do, and the reader of the ready file waits
// with us.
const poll = 100 * time.Millisecond

func (c *cluster) client() (*kubernetes.Clientset, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig("operator"))
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Timeout = -1, 5*time.Second
	return kubernetes.NewForConfig(cfg)
}

// waitServing waits until the API server calls itself ready.
func (c *cluster) waitServing(ctx context.Context) error {
	return c.until(ctx, "the API server is not ready", func(ctx context.Context, k *kubernetes.Clientset) error {
		return k.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// waitReady waits for what a user takes for granted: a node to run pods on, the
// account pods run as, and the aggregated roles, which controllers fill.
func (c *cluster) waitReady(ctx context.Context) error {
	err := c.until(ctx, "the node is not ready", func(ctx context.Context, k *kubernetes.Clientset) error {
		node, err := k.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, cond := range node.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue && len(node.Spec.Taints) == 0 {
				return nil
			}
		}
		return fmt.Errorf("conditions %v, taints %v", node.Status.Conditions, node.Spec.Taints)
	})
	if err != nil {
		return err
	}
	err = c.until(ctx, "the default service account is missing", func(ctx context.Context, k *kubernetes.Clientset) error {
		_, err := k.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return c.until(ctx, "the aggregated roles are empty", func(ctx context.Context, k *kubernetes.Clientset) error {
		for _, name := range []string{"view", "edit", "admin"} {
			role, err := k.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(role.Rules) == 0 {
				return fmt.Errorf("cluster role %s has no rules", name)
			}
		}
		return nil
	})
}

// until repeats check until it succeeds. The last failure explains a timeout.
func (c *cluster) until(ctx context.Context, what string, check func(context.Context, *kubernetes.Clientset) error) error {
	k, err := c.client()
	if err != nil {
		return err
	}
	for {
		err := check(ctx, k)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(poll):
		}
	}
}
