package zz
import (
 _ "cel.dev/cel-go/cel"
 _ "cel.dev/cel-go/ext"
 _ "gopkg.in/evanphx/json-patch.v4"
 _ "k8s.io/client-go/kubernetes/scheme"
 _ "k8s.io/apimachinery/pkg/util/strategicpatch"
 _ "sigs.k8s.io/json"
 _ "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)
