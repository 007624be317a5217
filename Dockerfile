# respaldo beside a database: see docker/README.md.

FROM rust:1.95-slim-trixie AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
# Cargo wants every declared target to exist, even the tests that are not built here.
RUN mkdir -p src tests && echo 'fn main() {}' >src/main.rs && touch src/lib.rs tests/suite.rs \
    && cargo build --release --locked --bin respaldo \
    && rm -rf src
# The layer above holds the dependencies: it changes with Cargo.lock, this one with the code.
COPY config config
COPY src src
# Cargo goes by modification times; those of a checkout may be older than the stand-ins above.
RUN find src -type f -exec touch {} + && cargo build --release --locked --bin respaldo \
    && strip target/release/respaldo

FROM debian:trixie-slim
# setpriv (util-linux) ties children to the daemon's life; tini reaps and passes signals on.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates postgresql-client tar tini util-linux \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 respaldo \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/respaldo \
        --shell /usr/sbin/nologin respaldo \
    && install -d -m 0700 -o respaldo -g respaldo /var/lib/respaldo /backups
COPY --from=build /build/target/release/respaldo /usr/local/bin/respaldo
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
