package view

import (
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/shared/access"
)

// applied shows what a server-side apply makes of the live object, merged by the API server's own library.
func (b *builder) applied() error {
	switch {
	case b.in.Live == nil && b.in.Missing:
		return b.diff(nil, b.in.Object.Value)
	case b.in.Live == nil:
		b.view.Approximate = unread + ", so all of what is applied is shown as new"
		return b.diff(nil, b.in.Object.Value)
	}
	made, err := b.merge()
	if err != nil {
		if access.KindOf(err) == access.Denied {
			return err
		}
		b.view.Approximate = "what is applied could not be merged with the live object, so it is shown as it is, and not what it makes"
		value, err := object(b.in.Object.Value)
		if err != nil {
			return err
		}
		b.secret = b.secrets()
		_, shown := b.mask(absent{}, value, "")
		return b.set("/dev/null", "applied", absent{}, shown)
	}
	return b.diff(b.in.Live, made)
}

// merge applies the object to the live one. It is forced, so that there is something to show of an apply that conflicts.
func (b *builder) merge() (map[string]any, error) {
	live, err := object(b.in.Live)
	if err != nil {
		return nil, err
	}
	applied, err := object(b.in.Object.Value)
	if err != nil {
		return nil, err
	}
	q := query(b.in.Query)
	manager := q.Get("fieldManager")
	if manager == "" {
		manager = "unknown"
	}
	kind := kindOf(applied)
	try := func(types managedfields.TypeConverter, force bool) (map[string]any, error) {
		return apply(types, kind, b.in.Action.Subresource, live, applied, manager, force)
	}
	b.view.Approximate = "the change was merged here; the cluster's defaults and admission may add to it"
	types := applyconfigurations.NewTypeConverter(scheme.Scheme)
	made, err := try(types, false)
	var conflict *apierrors.StatusError
	if err != nil && !errors.As(err, &conflict) {
		types = managedfields.NewDeducedTypeConverter()
		b.view.Approximate = "the kind's schema is not known here, so its lists are shown as replaced; the cluster may merge them, and its defaults and admission may add to it"
		made, err = try(types, false)
	}
	if err == nil || !errors.As(err, &conflict) || !apierrors.IsConflict(conflict) {
		return made, err
	}
	force, _ := strconv.ParseBool(q.Get("force"))
	for _, c := range conflict.ErrStatus.Details.Causes {
		if force {
			b.note(b.line(Masked(fmt.Sprintf("It takes %s over: %s.", c.Field, c.Message))))
		} else {
			b.note(b.line(Masked(fmt.Sprintf("It may not change %s: %s.", c.Field, c.Message))))
		}
	}
	if !force {
		b.view.Approximate = "as things are the cluster refuses it, for others manage fields it changes, and shown is what it would make; " + b.view.Approximate
	}
	return try(types, true)
}

// apply runs the API server's merge. The library was not written for objects nobody validated, so a panic of it is an error.
func apply(types managedfields.TypeConverter, kind schema.GroupVersionKind, subresource string, live, applied map[string]any, manager string, force bool) (made map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			made, err = nil, fmt.Errorf("merging: %v", r)
		}
	}()
	fields, err := managedfields.NewDefaultCRDFieldManager(types, versions{}, nothing{}, nothing{}, kind, kind.GroupVersion(), subresource, nil)
	if err != nil {
		return nil, err
	}
	// The library works in place.
	was, what := (&unstructured.Unstructured{Object: live}).DeepCopy(), (&unstructured.Unstructured{Object: applied}).DeepCopy()
	result, err := fields.Apply(was, what, manager, force)
	if err != nil {
		return nil, err
	}
	u, ok := result.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("merging gave a %T", result)
	}
	return u.Object, nil
}

// versions converts between versions of a kind: only to the one an object has. Fields that are managed in another version
// count as managed by nobody.
type versions struct{}

func (versions) Convert(_, _, _ any) error { return errors.New("not used") }

func (versions) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	kind := in.GetObjectKind().GroupVersionKind()
	if to, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{kind}); !ok || to != kind {
		return nil, runtime.NewNotRegisteredErrForTarget("versions", nil, target)
	}
	return in, nil
}

func (versions) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// nothing sets no defaults and makes empty objects.
type nothing struct{}

func (nothing) Default(runtime.Object) {}

func (nothing) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(kind)
	return u, nil
}
