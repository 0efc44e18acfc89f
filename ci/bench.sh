#!/usr/bin/env bash
# The benches, beside other crates: lints them, then measures. They take long and need a quiet machine, so
# they are no part of `.ci/run`. Nightly CI runs them to see that they still run. Arguments go to the benches.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo clippy -p multiproc-bench --all-targets -- -D warnings
cargo run --release -p multiproc-bench -- "$@"
