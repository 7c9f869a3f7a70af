#!/bin/sh
# The tests of multiplexing want two real PgBouncers: one too old for prepared statements, and one that carries them.
# Each is some Debian release's package, unpacked with its own libraries: nothing is installed, no service is started.
set -u
programs=.venv/pgbouncer

say() { printf 'penstock: %s\n' "$*" >&2; }

# The mirror that apt uses here already. A fresh machine's apt knows of none before its first update.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1
}

# apt with everything it writes in $work, in whose eyes what PgBouncer wants of Perl and of the system is there already.
private_apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
        -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root \
        -o Acquire::Retries=0 -o Acquire::http::Timeout=10 "$@" >/dev/null
}

unpack() {
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/made/lib" "$programs"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $1 main" >"$work/sources.list"
    for there in postgresql-common debconf init-system-helpers; do
        printf 'Package: %s\nStatus: install ok installed\nVersion: 999\nArchitecture: all\n' $there
        printf 'Maintainer: nobody\nDescription: none\n\n'
    done >"$work/status"
    private_apt update && private_apt install --download-only --no-install-recommends -y pgbouncer || return
    for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root" || return; done
    find "$work/root" -path '*/lib/*-linux-gnu*/*.so*' ! -path '*-linux-gnu*/*/*' -exec mv {} "$work/made/lib" \;
    mv "$work/root/usr/sbin/pgbouncer" "$work/made/program"
    # A library may be newer than this machine's own, so all of them are the package's, the loader included.
    cat >"$work/made/pgbouncer" <<'END'
#!/bin/sh
here=$(dirname "$0")
exec "$here"/lib/ld-linux*.so.* --library-path "$here/lib" "$here/program" "$@"
END
    chmod +x "$work/made/pgbouncer"
    "$work/made/pgbouncer" --version >/dev/null && mv "$work/made" "$programs/$1"
}

for release in bookworm trixie; do  # PgBouncer 1.18 and 1.24
    [ -x "$programs/$release/pgbouncer" ] && continue
    if command -v apt-get >/dev/null 2>&1; then
        [ -n "$(mirror)" ] || [ "$(id -u)" != 0 ] || apt-get update -qq
        uri=$(mirror)
    fi
    if [ -z "${uri:-}" ]; then
        say "no Debian mirror is known to apt here, so the tests of PgBouncer run only with one on PATH"
        break
    fi
    work=$(mktemp -d) || exit
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    say "unpacking PgBouncer of Debian $release into $programs"
    unpack $release || say "Debian $release's PgBouncer cannot be had, so its tests are skipped"
    rm -rf "$work"
done
