#!/bin/sh
# The fallback's tests want a real Redis; without one they are skipped and say so.
set -eu
command -v redis-server >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "penstock: installing Debian packages: redis-server" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server >/dev/null
else
    echo "penstock: there is no redis-server, so its tests are skipped (Debian, Ubuntu: sudo apt-get install redis-server)" >&2
fi
