#!/bin/sh
# Makes the virtual environment $1 with penstock, its extras and the development tools; says plainly what is missing.
set -eu
venv=$1
python=${PYTHON:-python3}

say() { printf 'penstock: %s\n' "$*" >&2; }

# Debian keeps venv in a package of its own; root may install it, anybody else is told its name.
debian() {
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        say "installing Debian packages: $*"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
    else
        say "missing: $*. Install it (Debian, Ubuntu: sudo apt-get install $*), then run make again."
        exit 1
    fi
}

command -v "$python" >/dev/null 2>&1 || debian python3 python3-venv
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "$("$python" --version 2>&1) is too old: Python 3.11 or newer is needed. Name another one: make PYTHON=python3.12"
    exit 1
}
"$python" -c 'import ensurepip, venv' 2>/dev/null || debian python3-venv

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# Dependency groups need pip 25.1; Debian's is older.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[drill]' --group dev
