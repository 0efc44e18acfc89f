#!/usr/bin/env bash
# The benches, beside the rivals: lint them, then measure. Takes long and needs a quiet machine, so it
# is no part of `.ci/run`; nightly CI runs it to see that it still runs. Arguments go to the benches.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo clippy -p multiproc-bench --all-targets -- -D warnings
cargo run --release -p multiproc-bench -- "$@"
