#!/usr/bin/env bash
# A storm of kills over a few names: ci/storm.sh KILLS [SEED]. Eight processes make, find, drop and unlink
# objects; tests/shm/storm.rs judges them. The last line is
# `storm: N kills, N splits, N uninitialised, N files left`. The exit code is 1 unless the last three numbers
# are 0. A thousand kills take five to ten seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || { echo 'usage: ci/storm.sh KILLS [SEED]' >&2 && exit 2; }

export STORM_KILLS=$1 STORM_SEED=${2:-}
output=$(mktemp)
trap 'rm -f "$output"' EXIT
code=0
cargo test --release --quiet --test shm -- --exact storm::as_many_as_asked_for --ignored --nocapture 2>&1 |
    tee "$output" || code=$?
grep '^storm: ' "$output" || { echo 'storm: did not end' && exit 1; }
exit "$code"
