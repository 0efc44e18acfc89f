#!/usr/bin/env bash
# Queues in hostile memory under AddressSanitizer: ci/asan.sh [SECONDS] (of each of the two fuzzers; 20 by
# default). First rings whose every word is rubbish, in vectors of exactly their size (ring/src/hostile.rs).
# Then whole queues between processes, while another process scribbles over their memory
# (tests/queue/hostile.rs). The exit code is 1 if memory outside of the object is reached, if a call hangs
# past its time-out, or if it panics. The stable toolchain is enough: RUSTC_BOOTSTRAP lets it take a nightly
# option.
set -euo pipefail
cd "$(dirname "$0")/.."

MULTIPROC_DIR=$(mktemp -d /dev/shm/multiproc-asan.XXXXXX)
export MULTIPROC_DIR MULTIPROC_FUZZ_SECONDS=${1:-20}
trap 'rm -rf "$MULTIPROC_DIR"' EXIT

export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address --cfg multiproc_asan'
# What the library keeps on purpose (blocks of threads, mappings) is no leak. And a spawn searches this
# program's own image, across the gaps between its constants.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:intercept_memmem=0}
test=(cargo test --target "$(uname -m)-unknown-linux-gnu" --quiet)

"${test[@]}" -p multiproc-ring --lib -- hostile
"${test[@]}" -p multiproc-shm --lib -- copy
"${test[@]}" -p multiproc --test queue -- hostile
