#!/usr/bin/env bash
# Builds the image from the Dockerfile and lives through what tests/containers/shows.py tells, in a
# Docker engine of its own, on Debian 12. Needs root (or sudo) and a Rust toolchain.
#
# With arguments, runs those instead, with the engine up: scripts/test-containers.sh bash
#
# No image registry is asked: what the Dockerfile starts from is made here, from Debian's packages
# and this machine's toolchain, under the same names. Layers are kept in .testbed/engine.
set -euo pipefail
cd "$(dirname "$0")/.."
((!EUID)) || exec sudo --preserve-env=PATH,RUSTUP_HOME,CARGO_HOME "HOME=$HOME" "$0" "$@"

say() { printf '%-14s %s\n' "$1" "$2"; }
fail() { echo "test-containers: $*" >&2; exit 1; }
# Runs quietly; what it said is shown when it fails.
quietly() {
    local log=$run/log
    "$@" </dev/null >"$log" 2>&1 || { tail -n 60 "$log" >&2; fail "this failed: $*"; }
}

run=$(mktemp -d /tmp/respaldo-engine-XXXXXX)
daemon=
stop() {
    if [[ -n $daemon ]]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
        # It makes a mount of its own folder, and leaves it.
        umount --quiet "$(realpath "$engine")/data" || true
    fi
    rm -rf "$run"
}
trap stop EXIT
trap 'exit 130' INT TERM

packages=(docker.io containerd runc iptables debootstrap ca-certificates gcc libc6-dev make python3)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if ((${#missing[@]})); then
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -q update
    quietly apt-get -q install -y --no-install-recommends "${missing[@]}"
fi
say docker.io "$(dpkg-query -W -f '${Version}' docker.io)${missing[*]:+ (installed now: ${missing[*]})}"

# ---- the engine: its own data, socket, networks and containerd, whatever else runs here ----------
engine=$PWD/.testbed/engine
mkdir -p "$engine" "$run/config/cli-plugins"
exec 9>"$engine/lock"
flock -n 9 || fail "another run uses $engine"
dockerd --data-root "$engine/data" --exec-root "$run/exec" --pidfile "$run/pid" \
    --host "unix://$run/sock" --bridge none --default-address-pool base=10.213.0.0/16,size=24 \
    --containerd-namespace respaldo-tests --containerd-plugins-namespace respaldo-tests-plugins \
    >"$engine/dockerd.log" 2>&1 9>&- </dev/null &
daemon=$!
export DOCKER_HOST=unix://$run/sock DOCKER_CONFIG=$run/config DOCKER_BUILDKIT=1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
for _ in {1..300}; do
    docker version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || { tail -n 20 "$engine/dockerd.log" >&2; fail "dockerd did not start"; }
    sleep 0.2
done
docker version >/dev/null || fail "dockerd does not answer"
# What a killed run left.
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force >/dev/null
docker volume ls --quiet | xargs --no-run-if-empty docker volume rm >/dev/null
say engine "$(docker info --format '{{.ServerVersion}}, {{.Driver}}')"

# ---- what a registry would give -----------------------------------------------------------------
have() { docker image inspect "$1" >/dev/null 2>&1; }
mirror=$(sed -n 's/^URIs: *//p; s/^deb  *\(\[[^]]*\] *\)\?\([^ ]*\).*/\2/p' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1 || true)

if ! have debian:trixie-slim; then
    [[ -n $mirror ]] || fail "no Debian mirror in /etc/apt"
    quietly debootstrap --variant=minbase trixie "$run/root" "$mirror"
    # As the official one is: no lists, no documents.
    rm -rf "$run"/root/var/{cache/apt/*.bin,cache/apt/archives/*.deb,lib/apt/lists/*,log/*} \
        "$run"/root/usr/share/{doc,man,info,locale}/*
    tar -C "$run/root" --one-file-system -c . | docker import --change 'CMD ["bash"]' - debian:trixie-slim >/dev/null
    rm -rf "$run/root"
fi
say debian "trixie-slim $(docker image inspect --format '{{.Size}}' debian:trixie-slim | numfmt --to=si)"

rust=$(sed -n 's/^FROM rust:\([0-9.]*\)-slim-trixie.*/\1/p' Dockerfile)
if ! have "rust:$rust-slim-trixie"; then
    rustc --version | grep -q "^rustc $rust[. ]" || fail "the Dockerfile wants Rust $rust; here is $(rustc --version)"
    toolchain=$(rustc --print sysroot)
    mkdir -p "$run/rust/certificates" "$run/rust/bin"
    cp -a "$toolchain/lib" "$run/rust/lib"
    cp -a "$toolchain"/bin/{rustc,cargo} "$run/rust/bin/"
    cp -a /usr/local/share/ca-certificates/. "$run/rust/certificates/"
    cat >"$run/rust/Dockerfile" <<'END'
FROM debian:trixie-slim
COPY certificates /usr/local/share/ca-certificates
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY bin /usr/local/bin
COPY lib /usr/local/lib
END
    quietly docker build --network host --tag "rust:$rust-slim-trixie" "$run/rust"
    rm -rf "$run/rust"
fi
say rust "$rust-slim-trixie"

# Compose v2 is in Debian 13 only; its one program runs here too.
if [[ ! -x $engine/docker-compose ]]; then
    mkdir "$run/fetch"
    cat >"$run/fetch/Dockerfile" <<'END'
FROM debian:trixie-slim AS fetch
WORKDIR /fetch
RUN apt-get update && apt-get download docker-compose && dpkg -x docker-compose_*.deb .
FROM scratch
COPY --from=fetch /fetch/usr/libexec/docker/cli-plugins/docker-compose /
END
    quietly docker build --network host --output "type=local,dest=$run/compose" "$run/fetch"
    mv "$run/compose/docker-compose" "$engine/docker-compose"
fi
ln -s "$engine/docker-compose" "$run/config/cli-plugins/docker-compose"
say compose "$(docker compose version --short)"

# ---- the image, and what stands in for those that a stack pulls -----------------------------------
version=$(scripts/version.sh)
began=$SECONDS
quietly docker build --network host --tag respaldo:latest --build-arg "VERSION=$version" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || true)" .
said=$(docker run --rm --network none respaldo:latest --version)
[[ $said == "respaldo $version" ]] || fail "the image says '$said', and not 'respaldo $version'"
say respaldo "$(docker image inspect --format '{{.Size}}' respaldo:latest | numfmt --to=si)B, built in $((SECONDS - began)) s"

mkdir "$run/stand-ins"
quietly cargo build --locked --example s3_server
cp tests/containers/{Dockerfile,postgres.sh,mariadb.sh} "${CARGO_TARGET_DIR:-target}/debug/examples/s3_server" "$run/stand-ins/"
for name in postgres mariadb s3 mail; do
    quietly docker build --network host --target "$name" --tag "respaldo-shows-$name" "$run/stand-ins"
done
# What former builds left; the newest layers stay.
quietly docker image prune --force
quietly docker builder prune --force --keep-storage 6GB

if (($#)); then
    "$@"
else
    /usr/bin/python3 tests/containers/shows.py
fi
