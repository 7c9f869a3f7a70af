#!/bin/sh
# The live page's tests want a real browser; without one they are skipped and say so.
set -eu
command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "penstock: installing Debian packages: chromium chromium-driver" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver >/dev/null
else
    echo "penstock: there is no chromium, so the page's tests are skipped (Debian, Ubuntu: sudo apt-get install chromium chromium-driver)" >&2
fi
