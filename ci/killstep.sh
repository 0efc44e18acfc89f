#!/usr/bin/env bash
# Kills every operation at each of its states, and hunts the planted bugs.
#   ci/killstep.sh                every commit: distinct states, and a sample of the three modes below
#   ci/killstep.sh --all          every instruction, and all modes at each distinct state; for the night
#   ci/killstep.sh --mode double  two kills: each state of the victim with each of its heir's
#   ci/killstep.sh --mode freeze  the victim is stopped, others go on, then it goes on
#   ci/killstep.sh --mode missed  killed, and the kernel does not walk its robust list
#   ci/killstep.sh --only PREFIX  some cases, in any mode; --step K repeats one kill
# The last line is `killstep: N operations, N kills, N hangs, N torn, N lost, N leaked, zoo F/P`. The exit code is 1 unless hangs, torn, lost
# and leaked are 0 and F = P; 77 where the system does not let us trace a child, and nothing was tested.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}

# build DIRECTORY ARGUMENT…: the path of the program that this builds.
build() {
    local directory=$1
    shift
    CARGO_TARGET_DIR=$directory cargo "$@" --release --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

table=$(build "$target" test --test killstep --no-run)
KILLSTEP_MODELS=$(build "$target" build --package multiproc-models)
# The bugs are compiled in behind a cfg; optimised less, so that this second build is quick.
KILLSTEP_ZOO=$(RUSTFLAGS='--cfg multiproc_planted_bugs' CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    build "$target/zoo" test --test killstep --no-run)
export KILLSTEP_MODELS KILLSTEP_ZOO
zoo=(--zoo)
[[ " $* " != *' --only '* && " $* " != *' --mode '* ]] || zoo=()
exec "$table" "${zoo[@]}" "$@"
