#!/bin/sh
# Makes the environment: a virtual environment, the locked packages, this project. Run again, it repairs.
#   install.sh PYTHON DIRECTORY
set -eu
python=$1
venv=$2

"$python" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit("Python %d.%d was found; streamlab needs 3.11 or later. Say which: make PYTHON=python3.12 ..." % sys.version_info[:2])
PY

if ! "$venv/bin/python" -c '' 2>/dev/null; then
  echo "Making the environment in $venv"
  rm -rf "$venv"
  "$python" -m venv "$venv" || {
    echo "python -m venv failed. On Debian and Ubuntu: apt-get install python3-venv" >&2
    rm -rf "$venv"
    exit 1
  }
fi

# uv installs in seconds what pip installs in a minute and a half; where it cannot be had, pip does.
if command -v uv >/dev/null 2>&1; then
  uv=uv
else
  "$venv/bin/python" -m uv --version >/dev/null 2>&1 ||
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
      -r scripts/uv.lock >/dev/null 2>&1 || true
  if "$venv/bin/python" -m uv --version >/dev/null 2>&1; then uv="$venv/bin/python -m uv"; else uv=""; fi
fi

echo "Installing the locked packages"
if [ -n "$uv" ]; then
  # shellcheck disable=SC2086 - the command may be three words
  VIRTUAL_ENV= $uv pip install --quiet --python "$venv/bin/python" --require-hashes -r requirements.lock
else
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
fi
if [ -n "$uv" ]; then
  # shellcheck disable=SC2086
  VIRTUAL_ENV= $uv pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
else
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi
touch "$venv/.installed"
