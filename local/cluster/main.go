// Cluster is an upstream Kubernetes 1.35 in one static binary, for one
// machine, without root and without a container runtime.
//
// It is a multi-call binary: the applet is the first argument, or the base
// name it was called by, so that a symlink named kubectl is kubectl. The
// control plane is the real one, compiled from k8s.io/kubernetes; only the
// node is ours (package hostnode), because a real kubelet needs a container
// runtime and root.
//
// "cluster up" is the only applet a person calls. It runs all others as its
// children; see package controlplane.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"sallyport/local/cluster/controlplane"
	"sallyport/local/cluster/hostnode"
	"sallyport/local/cluster/sandbox"
	"sallyport/local/cluster/web"
)

// An applet runs with os.Args[0] set to its own name and returns an exit code.
type applet func() int

var applets = map[string]applet{
	"etcd":                    func() int { etcdmain.Main(os.Args); return 0 },
	"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() int { return cli.Run(controllers.NewControllerManagerCommand()) },
	"kube-scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
	"kubectl":                 runKubectl,
	"hostnode":                func() int { return hostnode.Main(os.Args[1:]) },
	"sandbox":                 func() int { return sandbox.Main(os.Args[1:]) },
	"up":                      func() int { return controlplane.Main(os.Args[1:]) },
	"web":                     func() int { return web.Main(os.Args[1:]) },
}

func main() {
	if run := applets[filepath.Base(os.Args[0])]; run != nil {
		os.Exit(run())
	}
	if len(os.Args) > 1 {
		if run := applets[os.Args[1]]; run != nil {
			os.Args = os.Args[1:]
			os.Exit(run())
		}
	}
	usage()
	os.Exit(2)
}

func usage() {
	names := make([]string, 0, len(applets))
	for name := range applets {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "usage: cluster APPLET [flags]\napplets: %s\nstart a cluster with: cluster up --dir DIR\n", names)
}

// runKubectl mirrors k8s.io/kubernetes/cmd/kubectl, which is a program and
// cannot be imported. Verbosity is set before the command is built, because
// building it already logs.
func runKubectl() int {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) //nolint:errcheck // as upstream: a bad -v is reported by the flag parser
	command := kubectl.NewDefaultKubectlCommand()
	if err := cli.RunNoErrOutput(command); err != nil {
		kubectlutil.CheckErr(err) // prints and exits with kubectl's own codes
	}
	return 0
}
