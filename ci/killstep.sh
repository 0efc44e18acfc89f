#!/usr/bin/env bash
# Kills every public operation at each of its distinct states, and hunts the planted bugs. All CPUs sweep.
#   ci/killstep.sh                    every commit: distinct states, samples of the modes below, planted bugs
#   ci/killstep.sh --whole             the same, with every state of the longest operation, too
#   ci/killstep.sh --all --minutes 30  a slice of every step in all modes; the next call goes on with the rest
#       … --minutes 30 --stale         begins with what was not swept for the longest time
#   ci/killstep.sh --all --record      only prints what was swept when
#   ci/killstep.sh --mode double       two kills: each state of the victim with each of the recovering process
#   ci/killstep.sh --mode freeze       the victim is stopped, other processes go on, then the victim goes on
#   ci/killstep.sh --mode missed       killed, and the kernel does not walk the victim's robust list
#   ci/killstep.sh --only PREFIX       some cases, in any mode; --step K repeats one kill
#   ci/killstep.sh --seed TEXT         chooses the sample; without it the commit's hash does
# killstep/README.md describes the other arguments, and the record, which is target/killstep-record.tsv. The
# last line is `killstep: N operations, N kills, N hangs, N torn, N lost, N leaked, planted F/P`. The exit
# code is 1 unless hangs, torn, lost and leaked are 0 and F = P. It is 77 where the system does not let us
# trace a child: then nothing was tested.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}

# build ARGUMENT…: the path of the program that cargo builds.
build() {
    cargo "$@" --release --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# given FLAG: whether it is among the arguments.
arguments=("$@")
given() { [[ " ${arguments[*]} " == *" $1 "* ]]; }

# Most users link without whole-program optimisation, too, which would cost half a minute here.
quickly=(env CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16)
building=$SECONDS
table=$("${quickly[@]}" bash -c "$(declare -f build); build test --test killstep --no-run")

planted=()
if ! given --only && ! given --mode && ! given --minutes && ! given --record; then
    planted=(--planted)
    KILLSTEP_MODELS=$(build build --package multiproc-models)
    # The bugs are behind a cfg that only this workspace's crates get: both builds share all other crates.
    KILLSTEP_PLANTED=$(RUSTC_WORKSPACE_WRAPPER=$PWD/ci/rustc-with-planted-bugs.sh \
        "${quickly[@]}" bash -c "$(declare -f build); build test --test killstep --no-run")
    export KILLSTEP_MODELS KILLSTEP_PLANTED
fi
given --record || printf 'killstep: built in %d s\n' $((SECONDS - building)) >&2

commit=$(git rev-parse --verify --quiet HEAD || echo unknown)
seed=$commit
# What was swept with changes that no commit has is not what the commit is.
[[ -z $(git status --porcelain 2>/dev/null) ]] || commit+=+

sweeping=$SECONDS code=0
"$table" --workers "$(nproc)" --seed "$seed" --commit "$commit" --record-file "$target/killstep-record.tsv" \
    "${planted[@]}" "$@" || code=$?
given --record || printf 'killstep: swept in %d s\n' $((SECONDS - sweeping)) >&2
exit "$code"
