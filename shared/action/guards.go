package action

import (
	"strings"

	"sallyport/shared/access"
)

// guards are the traits that hang on a field, by its name.
var guards = map[string][]access.Trait{
	"securityContext": {access.Privileged}, "privileged": {access.Privileged}, "hostProcess": {access.Privileged}, "capabilities": {access.Privileged},
	"procMount": {access.Privileged}, "seccompProfile": {access.Privileged}, "appArmorProfile": {access.Privileged}, "seLinuxOptions": {access.Privileged},
	"sysctls": {access.Privileged}, "windowsOptions": {access.Privileged}, "httpGet": {access.Privileged}, "tcpSocket": {access.Privileged},
	"hostNetwork": {access.HostNamespace}, "hostPID": {access.HostNamespace}, "hostIPC": {access.HostNamespace}, "hostPort": {access.HostNamespace},
	"volumes": {access.HostPath, access.ServiceAccount, access.SecretRef}, "hostPath": {access.HostPath}, "local": {access.HostPath},
	"serviceAccountName": {access.ServiceAccount}, "serviceAccount": {access.ServiceAccount},
	"valueFrom": {access.SecretRef}, "envFrom": {access.SecretRef},
	"rules": {access.GrantsPower}, "aggregationRule": {access.GrantsPower}, "roleRef": {access.BindsPower}, "subjects": {access.BindsPower},
	"webhooks": {access.Webhook}, "conversion": {access.Webhook}, roleARN: {access.RoleARN},
}

var podTraits = []access.Trait{access.Privileged, access.HostPath, access.HostNamespace, access.ServiceAccount, access.SecretRef}

// near are the traits that a directive may bring out when it stands in a field: $patch, $retainKeys and what may come.
var near = map[string][]access.Trait{
	"": access.Traits, "spec": podTraits, "template": podTraits, "jobTemplate": podTraits, "metadata": {access.RoleARN, access.Privileged}, "annotations": {access.RoleARN, access.Privileged},
	"containers": podTraits, "initContainers": podTraits, "ephemeralContainers": podTraits, "env": {access.SecretRef}, "ports": {access.HostNamespace},
	"livenessProbe": {access.Privileged}, "readinessProbe": {access.Privileged}, "startupProbe": {access.Privileged}, "lifecycle": {access.Privileged},
	"postStart": {access.Privileged}, "preStop": {access.Privileged},
}

// guarded are the traits on whose fields a patch lays hands, whatever it makes of them.
func guarded(a access.Action, patch map[string]any) map[access.Trait]bool {
	set := map[access.Trait]bool{}
	guardedIn(a, patch, "", set)
	return set
}

func guardedIn(a access.Action, v any, in string, set map[access.Trait]bool) {
	add := func(traits []access.Trait) {
		for _, t := range traits {
			set[t] = true
		}
	}
	switch v := v.(type) {
	case []any:
		for _, c := range v {
			guardedIn(a, c, in, set)
		}
	case map[string]any:
		for k, c := range v {
			field := k
			if directive, name, _ := strings.Cut(k, "/"); strings.HasPrefix(k, "$") {
				if field = name; directive != "$setElementOrder" && directive != "$deleteFromPrimitiveList" {
					add(near[in])
				}
			}
			switch {
			case field == "rules" && a.Group != rbac && groups[a.Group]: // an Ingress has rules too
			case strings.HasPrefix(field, appArmor):
				add([]access.Trait{access.Privileged})
			default:
				add(guards[field])
			}
			guardedIn(a, c, field, set)
		}
	}
}
