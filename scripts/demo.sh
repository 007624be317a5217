#!/usr/bin/env bash
# Builds respaldo, makes a sample shop database and a media folder, and runs the daemon on them.
# May be run again: what is there is kept. RESPALDO_DEMO_DIR says where (default: demo/).
set -euo pipefail
cd "$(dirname "$0")/.."

RESPALDO_DEMO_DIR=$(realpath -m -- "${RESPALDO_DEMO_DIR:-demo}")
export RESPALDO_DEMO_DIR
dir=$RESPALDO_DEMO_DIR

cargo build --release --locked --bin respaldo --example make_shop
release=$(realpath -- "${CARGO_TARGET_DIR:-target}")/release
respaldo=$release/respaldo

mkdir -p "$dir/backups"
[[ -e $dir/shop.sqlite3 ]] || "$release/examples/make_shop" "$dir/shop.sqlite3"

if [[ ! -e $dir/media ]]; then
    # Under another name until it is whole.
    media=$dir/media.part
    rm -rf "$media"
    mkdir -p "$media/products/2025" "$media/invoices" "$media/cache" "$media/empty"
    for n in {1..12}; do
        head -c $((n * 20000)) /dev/urandom >"$media/products/2025/photo-$n.jpg"
    done
    for n in {1..40}; do
        printf 'Invoice %d\nTotal: %d.00\n' "$n" $((n * 37)) >"$media/invoices/$n.txt"
    done
    echo 'a name that scripts trip over' >"$media/Ünï côdé & \"quotes\", spaces.txt"
    echo 'left out by exclude' >"$media/cache/thumbnail.tmp"
    ln -s products/2025 "$media/latest"
    # 64 MiB that take no room on the disk, and next to none in the backup.
    truncate -s 64M "$media/scan.sparse"
    chmod 640 "$media/invoices/1.txt"
    mv "$media" "$dir/media"
fi

listen=${RESPALDO__SERVER__LISTEN:-$(sed -n 's/^listen *= *"\([^"]*\)".*/\1/p' config/demo.toml)}
cat >&2 <<TEXT

  respaldo demo: a shop database twice a day, its media once a week

  database   $dir/shop.sqlite3
  media      $dir/media
  backups    $dir/backups
  config     $PWD/config/demo.toml

  The first backups are made at once. Then, in another terminal:

    cd ${PWD@Q}
    export RESPALDO_DEMO_DIR=${dir@Q}
    respaldo() { ${respaldo@Q} --config config/demo.toml "\$@"; }

    curl http://$listen/health          (the page: http://$listen/)
    respaldo list
    respaldo verify shop
    respaldo drill shop
    respaldo backup shop --label by-hand
    respaldo restore shop --to /tmp/shop-restored.sqlite3
    respaldo restore media --to /tmp/media-restored

  Ctrl-C stops the daemon; "rm -r ${dir@Q}" forgets the demo.

TEXT

# Replaced by the daemon, so that Ctrl-C and SIGTERM reach it and nothing else.
exec "$respaldo" --config config/demo.toml run
