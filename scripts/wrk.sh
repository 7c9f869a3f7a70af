#!/bin/sh
# The bench's FastAPI claim wants wrk; without it the claim says so, and nothing is measured.
set -eu
command -v wrk >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "penstock: installing Debian packages: wrk" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq wrk >/dev/null
else
    echo "penstock: there is no wrk, so the FastAPI claim is not measured (Debian, Ubuntu: sudo apt-get install wrk)" >&2
fi
