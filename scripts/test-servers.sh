#!/usr/bin/env bash
# Installs what the tests need, on Debian 12. Does nothing, quickly, when everything is there.
# The tests start their own servers on free ports in temporary folders: that Debian creates and
# starts a PostgreSQL cluster of its own on installation does not matter.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%-14s %s\n' "$1" "$2"; }
fail() { echo "test-servers: $*" >&2; exit 1; }

packages=(
    postgresql-15 postgresql-client-15         # servers to back up; contrib and pgbench are inside
    mariadb-server mariadb-client              # another one
    python3 python3-venv                       # SMTP and S3 servers, the benchmark
    openssh-server                             # an SFTP server: the tests start their own
    gnupg age zstd gzip tar sqlite3 openssl curl   # stock tools that must open a backup
    acl attr faketime procps util-linux        # odd files, another clock, who is left running
    strace                                     # a kill at one system call
    prometheus                                 # scrapes, checks and tests what is shipped for it
    systemd                                    # checks the unit
    debootstrap                                # a newer Debian in a folder, for a newer PostgreSQL
    chromium                                   # a browser for the page
    gcc libc6-dev make                         # C sources inside crates
)

# What one target alone needs, given as arguments: what the benchmark compares with.
packages+=("$@")

# Node for the Azure server, from Debian or from wherever this machine has it.
command -v node npm >/dev/null || packages+=(nodejs npm)

command -v dpkg-query apt-get >/dev/null || fail "needs Debian 12 (apt-get); install by hand: ${packages[*]}"
missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null || true)
    case $state in
    "installed "*) say "$package" "${state#installed }" ;;
    *) missing+=("$package") ;;
    esac
done

as_root=()
if ((EUID)); then as_root=(sudo); fi
if ((${#missing[@]})); then
    ((!EUID)) || command -v sudo >/dev/null || fail "run as root, or install by hand: ${missing[*]}"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null >>"$log" 2>&1; }
    if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
        cat "$log" >&2
        fail "could not install: ${missing[*]}"
    fi
    for package in "${missing[@]}"; do
        say "$package" "$(dpkg-query -W -f '${Version}' "$package") (installed now)"
    done
fi
[[ -x /usr/lib/postgresql/15/bin/initdb ]] || fail "no initdb in /usr/lib/postgresql/15/bin"

# Newer servers are in newer Debians only. Each runs in a folder with that Debian, by chroot; its
# programs also outside of it, with that folder's own loader and libraries. The stamp is written last.
postgresql() {
    local major=$1 suite=$2
    local folder=.testbed/$suite note=""
    if [[ $(cat "$folder/stamp" 2>/dev/null) != "$PWD" ]]; then
        local mirror said root loader libraries program
        mirror=$(sed -n 's/^URIs: *//p; s/^deb  *\(\[[^]]*\] *\)\?\([^ ]*\).*/\2/p' \
            /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1 || true)
        [[ -n $mirror ]] || fail "no Debian mirror in /etc/apt: where should PostgreSQL $major come from?"
        "${as_root[@]}" rm -rf "$folder"
        mkdir -p "$folder"
        said=$(mktemp)
        # A suite that is younger than this debootstrap is made as all new ones are.
        "${as_root[@]}" debootstrap --variant=minbase --include="ca-certificates,postgresql-$major" \
            "$suite" "$folder/root" "$mirror" /usr/share/debootstrap/scripts/sid >"$said" 2>&1 ||
            { tail -n 30 "$said" >&2; fail "debootstrap of $suite failed"; }
        rm -f "$said"
        mkdir "$folder/bin"
        root=$PWD/$folder/root
        loader=$(cd "$root" && find -H lib lib64 -maxdepth 1 -name 'ld-linux-*' 2>/dev/null | head -n 1 || true)
        libraries=$(cd "$root" && ls -d usr/lib/*-linux-gnu)
        for program in "$root/usr/lib/postgresql/$major/bin"/*; do
            printf '#!/bin/sh\nexec "%s" --argv0 "$0" --library-path "%s" "%s" "$@"\n' \
                "$root/$loader" "$root/$libraries" "$program" >"$folder/bin/${program##*/}"
        done
        chmod +x "$folder"/bin/*
        echo "$PWD" >"$folder/stamp"
        note=" (installed now)"
    fi
    say "postgresql-$major" "$("$folder/bin/postgres" --version | sed 's/.*) //; s/ .*//') in $folder$note"
}
postgresql 17 trixie
postgresql 18 forky

# kustomize is in the next Debian too; its one program runs outside of that folder as it is.
kustomize=.testbed/kustomize
kustomize_note=""
if [[ ! -x $kustomize/kustomize ]]; then
    said=$(mktemp)
    # shellcheck disable=SC2016
    "${as_root[@]}" chroot .testbed/trixie/root sh -ec 'cd /tmp; rm -rf kustomize*; apt-get update; apt-get download kustomize
        dpkg -x kustomize_*.deb kustomize' >"$said" 2>&1 || { tail -n 30 "$said" >&2; fail "no kustomize"; }
    rm -f "$said"
    mkdir -p "$kustomize"
    cp ".testbed/trixie/root/tmp/kustomize/usr/bin/kustomize" "$kustomize/"
    kustomize_note=" (installed now)"
fi
say kustomize "in $kustomize$kustomize_note"

# The stamp is written last: an interrupted install is done again, and so is one that was moved, for
# a venv holds its own path.
venv=.testbed/venv
want="$PWD $(sha256sum <scripts/test-requirements.txt)"
note=""
if [[ $(cat "$venv/stamp" 2>/dev/null) != "$want" ]]; then
    rm -rf "$venv"
    # Debian's own python3: another one in PATH may be without venv.
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps \
        -r scripts/test-requirements.txt
    echo "$want" >"$venv/stamp"
    note=" (installed now)"
fi
# As its lock file says, every package with its digest.
azurite=.testbed/azurite
want="$PWD $(cat scripts/azurite/package*.json | sha256sum)"
azurite_note=""
if [[ $(cat "$azurite/stamp" 2>/dev/null) != "$want" ]]; then
    rm -rf "$azurite"
    mkdir -p "$azurite"
    cp scripts/azurite/package*.json "$azurite/"
    npm ci --prefix "$azurite" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
    echo "$want" >"$azurite/stamp"
    azurite_note=" (installed now)"
fi
say azurite "$(sed -n 's/.*"azurite": "\(.*\)".*/\1/p' scripts/azurite/package.json) in $azurite$azurite_note"

for tool in aiosmtpd moto schemathesis kubernetes-validate ansible-core ansible-lint; do
    say "$tool" "$(sed -n "s/^$tool==//p" scripts/test-requirements.txt) in $venv$note"
done
