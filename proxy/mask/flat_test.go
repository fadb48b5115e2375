package mask_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"sallyport/proxy/mask"
	"sallyport/proxy/mask/masktest"
)

// What a body takes does not grow with it: not with its objects, and not with one string.
func TestFlat(t *testing.T) {
	const short, long = 64 << 20, 500 << 20
	list := func(l masktest.List) func(int64) io.Reader {
		return func(size int64) io.Reader {
			return masktest.Endless(size, string(l[0]), string(l[1])+",", string(l[1])+"]}")
		}
	}
	text := strings.Repeat("a longer text, ", 1000)
	for _, tt := range []struct {
		name string
		req  mask.Request
		most int64
		body func(size int64) io.Reader
	}{
		{"secrets", mask.Request{Resource: "secrets", Verb: "list"}, long, list(masktest.SecretList(1))},
		{"pods", mask.Request{Resource: "pods", Verb: "list"}, short, list(masktest.PodList(1))},
		{"watch", mask.Request{Resource: "secrets", Verb: "watch"}, short, func(size int64) io.Reader {
			event := fmt.Sprintf(`{"type":"ADDED","object":%s}`+"\n", masktest.SecretList(1)[1])
			return masktest.Endless(size, event, event, event)
		}},
		{"a masked string", mask.Request{Resource: "secrets", Verb: "get"}, short, func(size int64) io.Reader {
			return masktest.Endless(size, `{"data":{"a":"`, text, `"}}`)
		}},
		{"a string", mask.Request{Resource: "pods", Verb: "get"}, short, func(size int64) io.Reader {
			return masktest.Endless(size, `{"a":"`, text, `"}`)
		}},
		{"spaces", mask.Request{Resource: "pods", Verb: "get"}, short, func(size int64) io.Reader {
			return masktest.Endless(size, `{`, strings.Repeat(" ", 4096), `}`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() {
				tt.most = 32 << 20
			}
			rules, err := mask.Compile(config, tt.req)
			if err != nil {
				t.Fatal(err)
			}
			masktest.Flat(t, tt.most, func(size int64, watch func(io.Reader) io.Reader) error {
				n, err := io.Copy(sink{}, only{rules.Reader(watch(tt.body(size)), session)})
				if err == nil && n == 0 {
					err = io.ErrUnexpectedEOF
				}
				return err
			})
		})
	}
}
