#!/bin/sh
# Makes the Python environment moto runs in, once, and prints the path of its python: nothing else goes to stdout.
#
#   SALLYPORT_MOTO_PYTHON=$(local/aws/moto/venv.sh)
#
# The environment lives in ${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/moto/KEY, where KEY is the SHA-256 of
# requirements.txt and of the Python that made it, so a change of either makes a new one and never alters one in use.
# It is built beside its final place and renamed into it: a cancelled run leaves nothing half made, and of two runs at
# once one builds while the other waits, or, where there is no flock, both build and the first to finish wins.
# PYTHON names another interpreter than python3.
set -eu

say() { printf '%s\n' "moto: $*" >&2; }
die() { say "$*"; exit 1; }

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}

command -v "$python" >/dev/null 2>&1 ||
	die "$python is missing; install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
	die "$("$python" --version 2>&1) is too old; Python 3.11 or newer is needed (set PYTHON to name another interpreter)"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
	die "$python has no venv or ensurepip module; install it (Debian, Ubuntu: apt-get install python3-venv)"

key=$("$python" -c '
import hashlib, platform, sys
h = hashlib.sha256(open(sys.argv[1], "rb").read())
h.update("\n".join([sys.version, platform.machine(), sys.base_prefix]).encode())
print(h.hexdigest())' "$here/requirements.txt")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/moto
venv=$cache/$key

usable() { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null; }

if ! usable; then
	mkdir -p "$cache"
	if command -v flock >/dev/null 2>&1; then
		exec 9>"$cache/$key.lock"
		flock -n 9 || { say "another run is making the Python environment, waiting"; flock 9; }
	fi
fi
if ! usable; then
	# Only an interpreter that is gone or broken brings us here with a directory in place.
	if [ -e "$venv" ]; then rm -rf "$venv"; fi
	tmp=$(mktemp -d "$cache/.making.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	say "making the Python environment, once, in $venv"
	"$python" -m venv "$tmp" >&2
	"$tmp/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
		--only-binary=:all: --require-hashes -r "$here/requirements.txt" >&2 9>&- ||
		die "installing the packages did not work; see pip's message above"
	"$tmp/bin/python" -c 'import moto.server' >&2 || die "the packages were installed but moto does not start"
	# Python's rename refuses to land inside a directory that another run put there meanwhile; mv would not.
	if "$python" -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$tmp" "$venv" 2>/dev/null; then
		say "done"
	else
		usable || die "could not move the environment to $venv"
	fi
fi
printf '%s\n' "$venv/bin/python"
