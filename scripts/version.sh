#!/usr/bin/env bash
# Prints this tree's version: its tag's (v1.2.3 is 1.2.3), with what came after it; without a tag, Cargo's.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
if described=$(git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null); then
    echo "${described#v}"
else
    sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml
fi
