#!/bin/sh
# Remake requirements.lock from pyproject.toml: all extras and the dev group, for every platform, with hashes.
#
#   scripts/lock.sh                  keep the versions that still fit
#   scripts/lock.sh --upgrade        take the newest of everything
#   scripts/lock.sh -P polars        take the newest of one package
#
# scripts/uv.lock is the lock's entry for uv alone: what installs the rest is installed from it, checked too.
# The package index is whatever this machine is configured with; its address is not written into the lock.
# The lock is replaced only when it was made whole and holds no address.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd -- "$root"

if [ -x .venv/bin/uv ]; then
    uv=$root/.venv/bin/uv
elif uv=$(command -v uv); then
    :
else
    echo "lock.sh: uv was found neither in .venv/bin nor on PATH. Make the environment first: make run" >&2
    exit 1
fi

draft=requirements.lock.draft
trap 'rm -f -- "$draft" "$draft.uv"' EXIT
trap 'exit 130' INT TERM HUP

# uv keeps the versions that the output file already names, unless it is told otherwise.
if [ -f requirements.lock ]; then
    cp -- requirements.lock "$draft"
fi
"$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
    --all-extras --group dev \
    --no-emit-index-url --no-emit-find-links --no-emit-index-annotation --no-header --no-annotate \
    --output-file "$draft" "$@" pyproject.toml >/dev/null

if grep -nE '://|^[[:space:]]*-(i|f)[[:space:]]|^[[:space:]]*--(index|extra|find|trusted)' "$draft" >&2; then
    echo "lock.sh: the lines above hold an address, so requirements.lock was left as it was." >&2
    exit 1
fi
# The line that names uv, and the lines of its hashes.
awk '/^uv==/ { ours = 1; print; next } /^[^ ]/ { ours = 0 } ours' "$draft" >"$draft.uv"
if [ ! -s "$draft.uv" ]; then
    echo "lock.sh: the new lock has no uv, so requirements.lock was left as it was." >&2
    exit 1
fi
mv -- "$draft.uv" scripts/uv.lock
mv -- "$draft" requirements.lock
