#!/bin/sh
# The metrics' tests want promtool, which comes with Prometheus; without it those are skipped and say so.
set -eu
command -v promtool >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "penstock: installing Debian packages: prometheus" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null
else
    echo "penstock: there is no promtool, so its tests are skipped (Debian, Ubuntu: sudo apt-get install prometheus)" >&2
fi
