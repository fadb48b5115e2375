package hostnode

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// snapshot is a copy of the pod with its present status.
func (p *pod) snapshot() *corev1.Pod {
	// Containers look at the pod's spec under their own lock, so their statuses
	// are taken before ours.
	inits, mains := statuses(p.init), statuses(p.main)
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.object.Status.DeepCopy() // keeps what others wrote, such as the QoS class
	s.HostIP, s.HostIPs = p.node.api.Hostname(), []corev1.HostIP{{IP: p.node.api.Hostname()}}
	s.PodIP = p.address.addr.String()
	s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	s.StartTime = &p.started
	s.Message = p.trouble
	s.InitContainerStatuses, s.ContainerStatuses = inits, mains
	s.Phase = phase(p.object.Spec.RestartPolicy, inits, mains, p.ending)

	initialized, ready := true, len(mains) > 0
	for i := range inits {
		c := &inits[i]
		done := c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
		if spec := p.object.Spec.InitContainers[i]; spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			done = c.State.Running != nil
		}
		c.Ready = done
		initialized = initialized && done
	}
	for _, c := range mains {
		ready = ready && c.Ready
	}
	ready = ready && !p.ending
	for _, c := range []struct {
		kind corev1.PodConditionType
		is   bool
	}{
		{corev1.PodScheduled, true},
		{corev1.PodReadyToStartContainers, p.volumes != nil},
		{corev1.PodInitialized, initialized},
		{corev1.ContainersReady, ready},
		{corev1.PodReady, ready},
	} {
		setCondition(s, c.kind, c.is)
	}
	p.object.Status = *s
	out := p.object.DeepCopy()
	return out
}

func statuses(list []*container) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, c := range list {
		out = append(out, c.status())
	}
	return out
}

// setCondition keeps the time of a condition that does not change.
func setCondition(s *corev1.PodStatus, kind corev1.PodConditionType, is bool) {
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if c.Type == kind {
			if c.Status != status {
				c.Status, c.LastTransitionTime, c.Reason, c.Message = status, metav1.Now(), "", ""
			}
			return
		}
	}
	s.Conditions = append(s.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.Now()})
}

// phase sums a pod up as the kubelet does.
func phase(policy corev1.RestartPolicy, inits, mains []corev1.ContainerStatus, ending bool) corev1.PodPhase {
	for _, c := range inits {
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 && policy == corev1.RestartPolicyNever {
			return corev1.PodFailed
		}
	}
	running, waiting, failed := 0, 0, 0
	for _, c := range mains {
		switch t := c.State.Terminated; {
		case c.State.Running != nil:
			running++
		case t == nil && c.LastTerminationState.Terminated == nil:
			waiting++ // never ran
		case t == nil:
			running++ // about to run again
		case policy == corev1.RestartPolicyAlways && !ending:
			running++
		case t.ExitCode != 0 && policy == corev1.RestartPolicyOnFailure && !ending:
			running++
		case t.ExitCode != 0:
			failed++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case failed > 0:
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}
