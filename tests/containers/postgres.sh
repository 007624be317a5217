#!/bin/sh
# The part of the official image's entrypoint that the stack uses.
set -eu
data=/var/lib/postgresql/data
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }
if [ ! -s "$data/PG_VERSION" ]; then
    install -d -m 0700 -o postgres -g postgres "$data"
    install -m 0400 -o postgres "$POSTGRES_PASSWORD_FILE" /tmp/password
    as_postgres initdb --username=postgres --pwfile=/tmp/password --auth-host=scram-sha-256 \
        --auth-local=trust -D "$data"
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    # Nobody gets in before the database is there.
    as_postgres pg_ctl -D "$data" -o '-c listen_addresses=' -w start
    as_postgres createdb --username=postgres "$POSTGRES_DB"
    as_postgres pg_ctl -D "$data" -m fast -w stop
else
    # A folder that somebody else has prepared.
    find "$data" ! -user postgres -exec chown postgres '{}' +
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups -- \
    postgres -D "$data" -c listen_addresses='*'
