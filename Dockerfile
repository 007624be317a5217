# respaldo beside a database: docker/README.md says how to use it, and what may be chosen here.

FROM rust:1.95-slim-trixie AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
# Cargo wants every declared target to exist, even the tests that are not built here.
RUN mkdir -p src tests && echo 'fn main() {}' >src/main.rs && touch src/lib.rs tests/suite.rs \
    && cargo build --release --locked --bin respaldo \
    && rm -rf src
# The layer above holds the dependencies: it changes with Cargo.lock, this one with the code.
# (`[l]`: with the templates' settings, where there are any.)
COPY Cargo.toml askama.toml ./
COPY config config
COPY src src
# What `respaldo --version` says; without it, Cargo.toml's.
ARG VERSION=""
# Cargo goes by modification times; those of a checkout may be older than the stand-ins above.
RUN find src -type f -exec touch {} + \
    && RESPALDO_VERSION="$VERSION" cargo build --release --locked --bin respaldo \
    && strip -o respaldo target/release/respaldo

FROM debian:trixie-slim
# The majors of the servers that are backed up. A drill starts a server of the source's own major,
# and pg_dump should be of it too.
ARG POSTGRES_MAJORS="17"
# A line of sources.list, for majors that Debian trixie does not have.
ARG APT_SOURCE=""
# Locales of the databases: a drill needs them. The official postgres image's is en_US.UTF-8.
ARG LOCALES="en_US.UTF-8"

# What respaldo does not use of what it needs, here and in images that are made from this one:
# a server that lives for one drill compiles no queries (jit=off).
COPY docker/dpkg-excludes /etc/dpkg/dpkg.cfg.d/respaldo
# setpriv (util-linux) ties children to the daemon's life; tini reaps and passes signals on.
RUN set -eu; export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates postgresql-common; \
    # Its key for apt.postgresql.org comes with postgresql-common.
    if [ -n "$APT_SOURCE" ]; then \
        echo "$APT_SOURCE" >/etc/apt/sources.list.d/postgresql.list; \
        apt-get update; \
    fi; \
    # Nobody wants a cluster here.
    sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf; \
    set --; \
    for major in $POSTGRES_MAJORS; do set -- "$@" "postgresql-$major"; done; \
    apt-get install -y --no-install-recommends "$@" \
        locales mariadb-client mariadb-server-core age tar tini util-linux zstd; \
    for locale in $LOCALES; do \
        localedef -i "${locale%%.*}" -c -f "${locale#*.}" "$locale"; \
    done; \
    # A private key that everybody has, the sources of locales, logs.
    rm -rf /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem \
        /usr/share/i18n /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old \
        /var/lib/dpkg/*-old /var/log/*; \
    groupadd --gid 10001 respaldo; \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/respaldo \
        --shell /usr/sbin/nologin respaldo; \
    install -d -m 0700 -o respaldo -g respaldo /var/lib/respaldo /backups
COPY --from=build /build/respaldo /usr/local/bin/respaldo
COPY LICENSE LICENSE-APACHE LICENSE-MIT /usr/share/doc/respaldo/

USER 10001:10001
WORKDIR /var/lib/respaldo
VOLUME ["/var/lib/respaldo", "/backups"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# From stored facts, of the running daemon; the start period leaves room for the first backup.
HEALTHCHECK --interval=60s --timeout=10s --start-period=10m --retries=3 CMD ["respaldo", "health"]
ENTRYPOINT ["tini", "--", "respaldo"]
CMD ["run"]

ARG VERSION="dev"
ARG REVISION=""
LABEL org.opencontainers.image.title="respaldo" \
    org.opencontainers.image.description="A backup daemon that lives beside a database and proves that its backups restore" \
    org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
