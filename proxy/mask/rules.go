package mask

import (
	"regexp"
	"slices"
	"strconv"
)

// lastApplied is where kubectl apply keeps what was applied: the whole object, values and all.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// always are the rules for every resource. What they name at any depth may be in a pod template of whatever kind, in a
// ControllerRevision, or in a custom resource that keeps objects.
var always = []rule{
	at(restart, "items", every),          // a list
	at(restart, "object"),                // a watch event
	at(restart, "rows", every, "object"), // a table

	at(object, deep, lastApplied),
	at(object, deep, "kapp.k14s.io/original"),
	at(plain, deep, "objectset.rio.cattle.io/applied"), // the same, compressed

	at(name, deep, "env", every, "name"),
	at(alias, deep, "env", every, "name"),
	at(value, deep, "env", every, "value"),
	at(scalar, deep, "env", named),

	// A Status, which says what is wrong with what a patch makes of what is stored, and quotes it.
	at(sentence, "message"),
	at(sentence, "details", "causes", every, "message"),

	at(keep, "apiVersion"),
	at(keep, "kind"),
	at(scope, "metadata", "namespace"),
	at(keep, "metadata", "name"),
	at(keep, "metadata", "generateName"),
	at(keep, "metadata", "uid"),
	at(keep, "metadata", "resourceVersion"),
	at(keep, "metadata", "continue"),
	at(keep, "metadata", "selfLink"),
	at(keep, "metadata", "creationTimestamp"),
	at(keep, "metadata", "deletionTimestamp"),
	at(skip, "metadata", "managedFields", every, "fieldsV1"), // keys and empty objects
}

// What the API has of its own.
var (
	ofSecrets = []rule{
		at(mapping, "data"), at(mapping, "stringData"),
		at(encoded, "data", everyKey),
		at(plain, "stringData", everyKey),
		at(helm2, "data", "release"),
	}
	ofConfigMaps = []rule{
		at(scalar, "data", named),
		at(encoded, "binaryData", named),
		at(helm1, "data", "release"),
	}
	ofTokens       = []rule{at(plain, "status", "token"), at(plain, "spec", "token")}
	ofCertificates = []rule{at(encoded, "status", "certificate"), at(encoded, "spec", "request")}
)

// printed are the API groups whose tables are known: no column shows a value that may be a secret.
var printed = []string{
	"", "apps", "autoscaling", "batch", "policy", "events.k8s.io", "networking.k8s.io", "rbac.authorization.k8s.io", "storage.k8s.io",
	"coordination.k8s.io", "discovery.k8s.io", "certificates.k8s.io", "scheduling.k8s.io", "node.k8s.io", "apiextensions.k8s.io",
	"apiregistration.k8s.io", "admissionregistration.k8s.io", "flowcontrol.apiserver.k8s.io", "resource.k8s.io",
}

func secrets(r Request) bool { return r.Group == "" && r.Resource == "secrets" }

func certificates(r Request) bool {
	return r.Group == "certificates.k8s.io" && r.Resource == "certificatesigningrequests"
}

// secretKey is what the key of a Secret may be.
var secretKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// own are the rules for what the API has of its own, by a name.
func own(r Request) (string, []rule) {
	switch {
	case secrets(r):
		return "secrets", ofSecrets
	case r.Group == "" && r.Resource == "configmaps":
		return "configmaps", ofConfigMaps
	case r.Group == "" && r.Resource == "serviceaccounts" && r.Subresource == "token", r.Group == "authentication.k8s.io" && r.Resource == "tokenreviews":
		return "tokens", ofTokens
	case certificates(r):
		return "certificates", ofCertificates
	}
	return "", nil
}

// reveals says whether people let a value through for this request.
func (r Request) reveals() bool {
	return secrets(r) && secretKey.MatchString(r.Reveal) && r.Name != "" && r.Subresource == "" && (r.Verb == "get" || r.Verb == "reveal")
}

// choose names the rules that apply to a request: what has the same name is the same.
func (c *Config) choose(r Request) string {
	id, _ := own(r)
	if r.Reveal != "" && r.reveals() {
		id += "/" + r.Reveal
	}
	for i, p := range c.Paths {
		if p.of(r) {
			id += " " + strconv.Itoa(i)
		}
	}
	if len(c.Paths) > 0 && !slices.Contains(printed, r.Group) {
		id += " cells"
	}
	for i, p := range c.Exempt {
		if p.exempts(r) {
			id += " !" + strconv.Itoa(i)
		}
	}
	return id
}

// rules are those that apply to a request.
func (c *Config) rules(r Request) []rule {
	_, more := own(r)
	rules := slices.Concat(always, more)
	if r.Reveal != "" && r.reveals() {
		rules = append(rules, at(reveal, "data", r.Reveal))
	}
	named := false
	for _, p := range c.Paths {
		if p.of(r) {
			rules, named = append(rules, at(ordered, p.Steps...)), true
		}
	}
	if named && !slices.Contains(printed, r.Group) {
		// A column of a custom resource's table may show what the path names, and does not say so.
		rules = append(rules, at(plain, "rows", every, "cells", rest))
	}
	for _, p := range c.Exempt {
		if p.exempts(r) {
			rules = append(rules, at(skip, p.Steps...))
		}
	}
	return rules
}

// of says whether a path is one in the objects of a request. An answer of a subresource is the object, or about it.
func (p Path) of(r Request) bool {
	return (slices.Contains(p.APIGroups, "*") || slices.Contains(p.APIGroups, r.Group)) &&
		(slices.Contains(p.Resources, "*") || slices.Contains(p.Resources, r.Resource) || p.exactly(r))
}

func (p Path) exempts(r Request) bool {
	return p.of(r) && (r.Subresource == "" || r.Subresource == "status" || p.exactly(r))
}

func (p Path) exactly(r Request) bool {
	return r.Subresource != "" && (slices.Contains(p.Resources, r.Resource+"/"+r.Subresource) || slices.Contains(p.Resources, "*/"+r.Subresource))
}
