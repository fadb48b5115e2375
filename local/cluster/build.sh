#!/bin/sh
# build.sh: compile the cluster binary once and print its path, and nothing
# else, on standard output. Progress goes to standard error.
#
# The binary is kept under the hash of all it is made of, so a second call
# returns at once. Two calls at a time both compile and agree on the result.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$here"

# Nothing of the caller's build may leak into this one.
unset GOFLAGS GOOS GOARCH GOEXPERIMENT
export GOWORK=off CGO_ENABLED=0

kubernetes=$(sed -n 's|^[[:space:]]*k8s.io/kubernetes \(v[^ ]*\).*|\1|p' go.mod)
minor=${kubernetes#v1.}
minor=${minor%%.*}

# All the binary is made of, as one hash.
hash() {
	{
		go version
		find . -name '*.go' ! -name '*_test.go' -o -name go.mod -o -name go.sum | LC_ALL=C sort |
			while read -r file; do
				echo "$file"
				cat "$file"
			done
	} | sha256sum | cut -d' ' -f1
}
hash=$(hash)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/cluster/$hash
binary=$dir/cluster

if [ -x "$binary" ]; then
	echo "$binary"
	exit 0
fi

mkdir -p "$dir"
tmp=$(mktemp -d "$dir/build.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*" >&2; }
say "compiling Kubernetes $kubernetes; the first time takes minutes, later runs use the result"

total=$(go list -deps . 2>"$tmp/list" | wc -l) || true
if [ "$total" -eq 0 ]; then
	cat "$tmp/list" >&2
	say "build.sh: the list of packages is empty; is the Go module proxy within reach?"
	exit 1
fi

x=k8s.io/component-base/version
# -v names each package as it is begun, which is all the progress go tells.
go build -v -trimpath -buildvcs=false -o "$tmp/cluster" -ldflags "-s -w \
	-X $x.gitVersion=$kubernetes -X $x.gitMajor=1 -X $x.gitMinor=$minor \
	-X $x.gitCommit=modules -X $x.gitTreeState=clean \
	-X k8s.io/client-go/pkg/version.gitVersion=$kubernetes" . 2>"$tmp/log" &
build=$!
trap 'kill $build 2>/dev/null; exit 130' INT TERM

# On a terminal one line is rewritten every second; elsewhere a line is written
# every ten seconds.
tick=0
while kill -0 "$build" 2>/dev/null; do
	sleep 1
	tick=$((tick + 1))
	done=$(wc -l <"$tmp/log")
	line="compiling Kubernetes: $done of at most $total packages, $tick s"
	if [ -t 2 ]; then
		printf '\r%s' "$line" >&2
	elif [ $((tick % 10)) -eq 0 ]; then
		say "$line"
	fi
done
[ -t 2 ] && printf '\n' >&2

if ! wait "$build"; then
	tail -n 20 "$tmp/log" >&2
	say "build.sh: compiling failed; the lines above say why"
	exit 1
fi
if [ "$(hash)" != "$hash" ]; then
	say "build.sh: the sources changed while they were compiled; run it again"
	exit 1
fi
mv -f "$tmp/cluster" "$binary"
say "compiled in $tick s"
echo "$binary"
