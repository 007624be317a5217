#!/usr/bin/env bash
# Makes a release in dist/: one static binary for any Linux on x86_64, its licences, its bill of materials, and
# the digests of all of them. Installs what it needs on Debian: musl-tools, Rust's musl target, cargo-cyclonedx.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-musl
cyclonedx=0.5.9
fail() { echo "dist: $*" >&2; exit 1; }

if ! command -v musl-gcc >/dev/null; then
    as_root=()
    if ((EUID)); then as_root=(sudo); fi
    "${as_root[@]}" apt-get -q update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends musl-tools
fi
[[ -d $(rustc --print sysroot)/lib/rustlib/$target ]] || rustup target add "$target"
if [[ $(cargo cyclonedx --version 2>/dev/null) != *" $cyclonedx" ]]; then
    cargo install --locked "cargo-cyclonedx@$cyclonedx"
fi

version=$(scripts/version.sh)
export RESPALDO_VERSION=$version
# C sources inside crates (zstd, SQLite, libdeflate, AWS-LC) are for musl too.
CC_x86_64_unknown_linux_musl=musl-gcc \
    cargo build --release --locked --bin respaldo --target "$target"

rm -rf dist
mkdir dist
name=respaldo-$version-x86_64-linux
strip -o "dist/$name" "${CARGO_TARGET_DIR:-target}/$target/release/respaldo"

# It asks for no loader and for no library: it runs wherever there is a kernel.
if readelf --program-headers "dist/$name" | grep -q INTERP; then fail "$name wants a loader: it is not static"; fi
if readelf --dynamic "dist/$name" | grep -q NEEDED; then fail "$name wants a library: it is not static"; fi
said=$(env -i "dist/$name" --version)
[[ $said == "respaldo $version" ]] || fail "$name says '$said', and not 'respaldo $version'"

cp LICENSE LICENSE-APACHE LICENSE-MIT dist/
python3 scripts/third_party.py "$target" >dist/THIRD-PARTY.txt
cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --no-build-deps \
    --override-filename respaldo-sbom
# The tool names Cargo's version, and the folder in which it ran.
sed -e "s|$PWD|/respaldo|g" respaldo-sbom.json |
    python3 -c 'import json, sys
bill = json.load(sys.stdin)
bill["metadata"]["component"]["version"] = sys.argv[1]
json.dump(bill, sys.stdout, indent=1)' "$version" >"dist/$name.cdx.json"
rm respaldo-sbom.json
(cd dist && sha256sum -- * >SHA256SUMS)
ls -l dist
