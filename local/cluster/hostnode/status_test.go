package hostnode

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestPhase(t *testing.T) {
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	waiting := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}
	ended := func(code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
	}
	crashing := waiting
	crashing.LastTerminationState = ended(1).State
	type list = []corev1.ContainerStatus
	for name, test := range map[string]struct {
		policy       corev1.RestartPolicy
		inits, mains list
		ending       bool
		want         corev1.PodPhase
	}{
		"fresh":              {"Always", nil, list{waiting}, false, "Pending"},
		"initializing":       {"Always", list{running}, list{waiting}, false, "Pending"},
		"running":            {"Always", nil, list{running, running}, false, "Running"},
		"one waits":          {"Always", nil, list{running, waiting}, false, "Pending"},
		"crash loop":         {"Always", nil, list{crashing}, false, "Running"},
		"between restarts":   {"Always", nil, list{ended(1)}, false, "Running"},
		"job done":           {"Never", nil, list{ended(0)}, false, "Succeeded"},
		"job failed":         {"Never", nil, list{ended(0), ended(1)}, false, "Failed"},
		"retry":              {"OnFailure", nil, list{ended(1)}, false, "Running"},
		"done on failure":    {"OnFailure", nil, list{ended(0)}, false, "Succeeded"},
		"init failed":        {"Never", list{ended(1)}, list{waiting}, false, "Failed"},
		"deleted and killed": {"Always", nil, list{ended(143)}, true, "Failed"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := phase(test.policy, test.inits, test.mains, test.ending); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
