#!/bin/sh
# The tests of MySQL's drivers want a real MariaDB and, for mysqlclient, a compiler; without them they are skipped.
# The package with the server alone starts no service.
set -u
venv=.venv

say() { printf 'penstock: %s\n' "$*" >&2; }

# Installs packages if root may; anybody else is told their names.
debian() {
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        say "installing Debian packages: $*"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        say "missing: $*, so $why are skipped (Debian, Ubuntu: sudo apt-get install $*)"
        return 1
    fi
}

why="the tests of MySQL's drivers"
PATH=$PATH:/usr/sbin
command -v mariadbd >/dev/null 2>&1 && command -v mariadb-install-db >/dev/null 2>&1 ||
    debian mariadb-server-core mariadb-client-core

# mysqlclient is published as source only, and built against MariaDB's library.
"$venv/bin/python" -c 'import MySQLdb' 2>/dev/null && exit 0
why="the tests of mysqlclient"
pkg-config --exists libmariadb 2>/dev/null && command -v cc >/dev/null 2>&1 ||
    debian gcc libc6-dev libmariadb-dev pkg-config || exit 0
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'mysqlclient>=2.2' ||
    say "mysqlclient cannot be built here (does Python have its headers: python3-dev?), so its tests are skipped"
