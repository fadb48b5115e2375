#!/bin/sh
# Fetches DynamoDB Local and what it runs with, once, and prints the directory: nothing else goes to stdout.
#
#   SALLYPORT_DYNAMODB=$(local/aws/dynamodb/fetch.sh)
#
# Maven fetches what pom.xml pins, from wherever Maven's own settings say (~/.m2/settings.xml; a mirror goes there), and every
# file must be the one that jars.sha256 lists, no more and no less. They are kept in
# ${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/dynamodb/KEY, where KEY is the SHA-256 of both files, so a change of either makes
# a new directory and never alters one in use. It is filled beside its final place and renamed into it: a cancelled run
# leaves nothing half made, and of two runs at once both fetch and the first to finish wins.
# After another version in pom.xml: fetch.sh --pin writes jars.sha256.
set -eu
export LC_ALL=C # one order of files everywhere

say() { printf '%s\n' "dynamodb: $*" >&2; }
die() { say "$*"; exit 1; }

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

sum() { if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

fetch() { # into directory $1
	command -v mvn >/dev/null 2>&1 || die "mvn is missing; install Maven (Debian, Ubuntu: apt-get install maven; macOS: brew install maven)"
	say "fetching DynamoDB Local, once (50 MB)"
	mvn --batch-mode --no-transfer-progress -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$1" >"$1.log" 2>&1 || {
		tail -n 20 "$1.log" >&2
		die "Maven could not fetch it; see its messages above"
	}
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/dynamodb
mkdir -p "$cache"
work=$(mktemp -d "$cache/.fetching.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ "${1:-}" = --pin ]; then
	fetch "$work/jars"
	(cd "$work/jars" && sum ./* | sed 's#\./##') >"$work/jars.sha256"
	mv "$work/jars.sha256" "$here/jars.sha256"
	say "wrote jars.sha256"
	exit
fi

key=$(cat "$here/pom.xml" "$here/jars.sha256" | sum | cut -d' ' -f1)
jars=$cache/$key
if [ ! -d "$jars" ]; then
	fetch "$work/jars"
	(cd "$work/jars" && sum ./* | sed 's#\./##') >"$work/got"
	diff "$here/jars.sha256" "$work/got" >&2 || die "what Maven fetched is not what jars.sha256 lists; see the lines above (> is what came). A file that was damaged on the way is mended by removing it from ~/.m2/repository"
	mv "$work/jars" "$work/$key"
	# mv into a directory that another run put there meanwhile would land inside of it: then theirs is as good.
	[ -d "$jars" ] || mv "$work/$key" "$cache/" 2>/dev/null || [ -d "$jars" ] || die "could not move the files to $jars"
	say "done"
fi
printf '%s\n' "$jars"
