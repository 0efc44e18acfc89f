#!/usr/bin/env bash
# Queues in hostile memory under AddressSanitizer: ci/asan.sh [SECONDS] (of each of the two fuzzers, 20 if nothing is said). First rings whose every word is rubbish, in vectors of exactly their size
# (ring/src/hostile.rs), then whole queues between processes over whose memory somebody scribbles (tests/queue/hostile.rs). Exit code 1 if memory is reached that is nobody's business, if a call hangs
# past its time-out, or panics. The stable toolchain does, for it is told to be a nightly one.
set -euo pipefail
cd "$(dirname "$0")/.."

MULTIPROC_DIR=$(mktemp -d /dev/shm/multiproc-asan.XXXXXX)
export MULTIPROC_DIR MULTIPROC_FUZZ_SECONDS=${1:-20}
trap 'rm -rf "$MULTIPROC_DIR"' EXIT

export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address --cfg multiproc_asan'
# What the library keeps on purpose (blocks of threads, mappings) is no leak; and a spawn searches this program's own image, across the gaps between its constants.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:intercept_memmem=0}
test=(cargo test --target "$(uname -m)-unknown-linux-gnu" --quiet)

"${test[@]}" -p multiproc-ring --lib -- hostile
"${test[@]}" -p multiproc-shm --lib -- copy
"${test[@]}" -p multiproc --test queue -- hostile
