#!/bin/sh
# Runs the tests on every CPython from 3.11 to 3.13 found here; fails if one of them fails.
set -u
failed=
for version in 3.11 3.12 3.13; do
    # A pyenv shim is on PATH for versions that are not switched on: only one that really runs counts.
    python=
    for candidate in "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python; do
        "$candidate" -c '' 2>/dev/null && python=$candidate
    done
    [ -n "$python" ] || { echo "Python $version: not found, skipped"; continue; }
    echo "Python $version: $python"
    PYTHON=$python sh scripts/venv.sh ".venv-$version" &&
        ".venv-$version/bin/python" -m pytest -n "${PROCESSES:-4}" || failed="$failed $version"
done
[ -z "$failed" ] || { echo "failed on Python$failed"; exit 1; }
