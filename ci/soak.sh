#!/usr/bin/env bash
# A storm of kills over small queues, some 300 in a second: ci/soak.sh SECONDS [SEED]. The exit code is 1 if a
# message was torn, doubled, disordered or lost without a killed consumer, if nothing moved for 0.8 seconds,
# or if something was left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || { echo 'usage: ci/soak.sh SECONDS [SEED]' >&2 && exit 2; }

MULTIPROC_DIR=$(mktemp -d /dev/shm/multiproc-soak.XXXXXX)
export MULTIPROC_DIR
trap 'rm -rf "$MULTIPROC_DIR"' EXIT
cargo test --release --quiet --test soak -- "$@"
