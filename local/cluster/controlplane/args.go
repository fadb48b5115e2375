package controlplane

import (
	"fmt"
	"path/filepath"
	"strconv"

	"sallyport/local/cluster/pki"
)

// auditPolicy records what people, agents and workloads do and leaves out what
// the cluster does to keep itself running.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users:
  - system:apiserver
  - system:kube-controller-manager
  - system:kube-scheduler
  - ` + pki.Operator + `
- level: None
  userGroups: ["system:nodes", "system:serviceaccounts:kube-system"]
- level: None
  nonResourceURLs: ["/livez*", "/readyz*", "/healthz*"]
- level: Metadata
`

func (c *cluster) etcdArgs() []string {
	client, peer := loopback(c.ports.Etcd), loopback(c.ports.EtcdPeer)
	return []string{
		"--data-dir", filepath.Join(c.dir, "etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default=" + peer,
		"--client-cert-auth", "--trusted-ca-file", c.pki.Cert("etcd-ca"),
		"--cert-file", c.pki.Cert("etcd"), "--key-file", c.pki.Key("etcd"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file", c.pki.Cert("etcd-ca"),
		"--peer-cert-file", c.pki.Cert("etcd"), "--peer-key-file", c.pki.Key("etcd"),
		"--unsafe-no-fsync", // nothing here is worth a disk's patience
		"--log-level", "warn",
	}
}

func (c *cluster) apiserverArgs() []string {
	args := []string{
		"--etcd-servers", loopback(c.ports.Etcd),
		"--etcd-cafile", c.pki.Cert("etcd-ca"),
		"--etcd-certfile", c.pki.Cert("etcd-client"), "--etcd-keyfile", c.pki.Key("etcd-client"),
		"--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
		"--secure-port", strconv.Itoa(c.ports.APIServer),
		"--endpoint-reconciler-type", "none", // a loopback address is refused in Endpoints
		"--tls-cert-file", c.pki.Cert("apiserver"), "--tls-private-key-file", c.pki.Key("apiserver"),
		"--client-ca-file", c.pki.Cert("ca"),
		// Not our URL: the port may change from one run to the next.
		"--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file", c.pki.Key("sa"), "--service-account-signing-key-file", c.pki.Key("sa"),
		"--service-cluster-ip-range", "10.96.0.0/16",
		"--authorization-mode", "Node,RBAC",
		"--enable-admission-plugins", "NodeRestriction",
		"--allow-privileged=true",
		"--kubelet-certificate-authority", c.pki.Cert("ca"),
		"--kubelet-client-certificate", c.pki.Cert("kubelet-client"), "--kubelet-client-key", c.pki.Key("kubelet-client"),
		"--kubelet-preferred-address-types", "InternalIP",
		"--audit-policy-file", filepath.Join(c.dir, "audit-policy.yaml"),
		"--audit-log-path", c.auditLog(),
		"--shutdown-delay-duration", "0s",
		"--profiling=false",
	}
	if c.cfg.tokenWebhook != "" {
		args = append(args,
			"--authentication-token-webhook-config-file", c.cfg.tokenWebhook,
			"--authentication-token-webhook-version", "v1",
			"--authentication-token-webhook-cache-ttl", c.cfg.tokenCache.String())
	}
	return args
}

func (c *cluster) controllerArgs() []string {
	return []string{
		"--kubeconfig", c.kubeconfig("kube-controller-manager"),
		"--service-account-private-key-file", c.pki.Key("sa"), "--root-ca-file", c.pki.Cert("ca"),
		"--cluster-signing-cert-file", c.pki.Cert("ca"), "--cluster-signing-key-file", c.pki.Key("ca"),
		"--use-service-account-credentials",
		"--leader-elect=false",
		"--secure-port", "0", // it has nothing to tell anybody
		"--profiling=false",
		// Off are those that need a cloud or volumes that do not exist here.
		"--controllers", "*,-persistentvolume-attach-detach-controller,-persistentvolume-expander-controller,-selinux-warning-controller,-node-ipam-controller,-storage-version-migrator-controller",
	}
}

func (c *cluster) schedulerArgs() []string {
	return []string{
		"--kubeconfig", c.kubeconfig("kube-scheduler"),
		"--leader-elect=false",
		"--secure-port", "0",
		"--profiling=false",
	}
}

func (c *cluster) nodeArgs() []string {
	return []string{
		"--kubeconfig", c.kubeconfig("hostnode"),
		"--node-name", nodeName,
		"--dir", c.dir,
		"--listen", fmt.Sprintf("127.0.0.1:%d", c.ports.Node),
		"--tls-cert", c.pki.Cert("hostnode"), "--tls-key", c.pki.Key("hostnode"),
		"--client-ca", c.pki.Cert("ca"), "--client-name", pki.KubeletClient,
		"--pod-net", c.cfg.podNet.String(),
	}
}

func loopback(port int) string {
	return fmt.Sprintf("https://127.0.0.1:%d", port)
}
