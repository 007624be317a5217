SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test containers build bench soak lint fmt reference dist dist-image clean

CARGO ?= cargo
# For the test programs, such as: make test TEST_ARGS='retention --nocapture'
TEST_ARGS ?=
# For the benchmark, such as: make bench BENCH_ARGS='--sizes 1,4 --rounds 5'
BENCH_ARGS ?=
# For the part of it about whole servers, such as: make bench BENCH_PHYSICAL_ARGS='--rounds 5'
BENCH_PHYSICAL_ARGS ?=

include backup.mk

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo:  ## back up a sample shop and its media, in the foreground, until Ctrl-C
	@exec scripts/demo.sh

# A test waits for servers and schedules about half of its time: with twice as many at once as there are cores,
# half of a machine is not left idle.
test: export RUST_TEST_THREADS ?= $(shell expr 2 '*' $$(nproc))
test:  ## install what the tests need, run them all against real servers, print the counts
	@scripts/test-servers.sh
	@$(CARGO) test --all-targets --locked --no-fail-fast -- $(TEST_ARGS) | scripts/test-counts.sh

containers:  ## build the image and live through backups, stops, kills and a disaster in a Docker engine of its own
	@scripts/test-containers.sh

build:  ## the release binary
	$(CARGO) build --release --locked --bin respaldo

dist:  ## a release in dist/: a static binary, its licences, bill of materials and digests
	@scripts/dist.sh

dist-image:  ## the container image, with this tree's version in it
	@version=$$(scripts/version.sh) && docker build --build-arg "VERSION=$$version" \
		--build-arg "REVISION=$$(git rev-parse HEAD)" --tag "respaldo:$$version" --tag respaldo:latest .

bench:  ## respaldo beside pg_dump, the pipelines it replaces, a shell pipe, and pgBackRest
	@scripts/test-servers.sh pgbackrest
	$(CARGO) build --release --locked --bin respaldo --example s3_server
	@/usr/bin/python3 bench/bench.py $(BENCH_ARGS)
	@exec /usr/bin/python3 bench/physical.py $(BENCH_PHYSICAL_ARGS)

soak:  ## the long tests: backups, restores and the log killed (-9) at random instants, a 1 GB database
	@scripts/test-servers.sh
	@RESPALDO_SOAK=1 $(CARGO) test --release --locked --test suite -- soak --test-threads=1 --nocapture $(TEST_ARGS)

lint:  ## what .ci/run checks before the tests
	$(CARGO) fmt --check
	$(CARGO) deny check bans licenses sources
	$(CARGO) clippy --all-targets --locked -- -D warnings

fmt:  ## format the code
	$(CARGO) fmt

reference:  ## write docs/reference from the code
	RESPALDO_WRITE_REFERENCE=1 $(CARGO) test --locked --test suite -- promises::reference

clean:  ## remove what was built and the demo; leaves the test servers' venv
	$(CARGO) clean
	rm -rf demo bench/results.json
