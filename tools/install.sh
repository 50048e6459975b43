#!/bin/sh
# Makes .venv from the lock files. Usage: install.sh [product]
# "product" leaves the development tools out: `make demo` on a user's machine needs no linter.
set -eu
python="${PYTHON:-python3}"
what="${1:-all}"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Tramontane needs Python 3.11 or newer; $python is $("$python" --version 2>&1)." >&2
  echo "Name a newer one: make PYTHON=/path/to/python3.12 install" >&2
  exit 1
}
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv 2>/dev/null || {
    rm -rf .venv
    echo "$python cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv" >&2
    exit 1
  }
fi
if [ ! -x .venv/bin/uv ]; then
  # uv's own version and hashes stand in the lock like everything else's.
  awk '/^uv==/{on=1} on{print} on && !/\\$/{exit}' requirements/product.lock > .venv/uv.lock
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
fi
echo "Installing Tramontane into .venv" >&2
if [ "$what" = product ] && [ ! -e .venv/.installed ]; then
  .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r requirements/product.lock
else
  .venv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements/product.lock requirements/dev.lock
fi
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
# Bytecode now, or every start of every process compiles what it imports where none may be kept.
.venv/bin/python -m compileall -q src
touch .venv/.product
if [ "$what" != product ]; then touch .venv/.installed; fi
