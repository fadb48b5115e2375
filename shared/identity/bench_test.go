package identity_test

import (
	"testing"

	"sallyport/shared/access"
)

// BenchmarkVerify compares a token that was verified before with one that was not.
func BenchmarkVerify(b *testing.B) {
	change := func(i *access.Issuer) { i.GroupsClaim, i.Run = "groups", []string{"run_id"} }
	claims := with(map[string]any{"groups": []string{"agents", "developers"}, "run_id": 1})
	for _, s := range []signer{es256, rs256, ed} {
		token := s.sign(s.header(), claims)
		b.Run(s.alg+"/remembered", func(b *testing.B) {
			v, _, _ := newVerifier(b, change)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.alg+"/verified", func(b *testing.B) {
			v, _, _ := newVerifier(b, change)
			v.SetMemory(0)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyParallel(b *testing.B) {
	v, _, _ := newVerifier(b)
	token := es256.sign(es256.header(), with(nil))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v.Verify(b.Context(), token)
		}
	})
}

// BenchmarkRefused is what hostile tokens cost: those that are too large, and those that are well made but for the key.
func BenchmarkRefused(b *testing.B) {
	v, _, _ := newVerifier(b)
	for name, token := range map[string]string{
		"dots":     string(make([]byte, 1<<20)),
		"stranger": stranger.sign(stranger.header(), with(nil)),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				v.Verify(b.Context(), token)
			}
		})
	}
}
