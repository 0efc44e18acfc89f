#!/usr/bin/env bash
# Compares two binaries of multiproc-bench, row by row, for this library's rows (impl `multiproc`). Both
# binaries run alternately, so that a change of the machine's speed meets both. For each row it prints the
# medians of all rounds and their ratio, new / old.
#
#   ci/compare-benches.sh OLD_BINARY NEW_BINARY [ROUNDS] [--only ROW]...
#
# ROUNDS is 7 unless given; a round of a row takes about a second for each binary. ROW is the beginning of a
# row's name, such as `lock/` or `queue/1p1c/8`; without it all rows are compared. Exit code 0: no time has
# grown by more than 3 %; 1: a time has; 2: wrong arguments, or a run failed. Rows whose unit is not `ns` are
# shown, and do not count.
set -euo pipefail

limit=1.03
usage() {
    echo "usage: ci/compare-benches.sh OLD_BINARY NEW_BINARY [ROUNDS] [--only ROW]..." >&2
    exit 2
}

binaries=()
rounds=7
only=()
while (($#)); do
    case $1 in
        --only)
            (($# > 1)) || usage
            only+=("$2")
            shift
            ;;
        -*) usage ;;
        *[!0-9]*) binaries+=("$1") ;;
        *) rounds=$1 ;;
    esac
    shift
done
((${#binaries[@]} == 2 && rounds > 0)) || usage
for binary in "${binaries[@]}"; do
    [[ -x $binary ]] || { echo "$binary: not an executable file" >&2; exit 2; }
done
((${#only[@]})) || only=("")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# run BINARY PREFIX [OPTION]...: lines of row, value and unit.
run() {
    local binary=$1 prefix=$2
    shift 2
    "$binary" --json --impl multiproc --only "$prefix" "$@" 2>"$scratch/errors" >"$scratch/json" || {
        cat "$scratch/errors" >&2
        echo "$binary --only '$prefix': failed" >&2
        return 2
    }
    sed -n 's/^{"row":"\([^"]*\)",.*"value":\([0-9.]*\),"unit":"\([^"]*\)"}$/\1 \2 \3/p' "$scratch/json"
}

# The rows that the old binary has.
rows=()
for prefix in "${only[@]}"; do
    run "${binaries[0]}" "$prefix" --quick >"$scratch/rows" || exit 2
    while read -r row _; do rows+=("$row"); done <"$scratch/rows"
done
((${#rows[@]})) || { echo "no such row" >&2; exit 2; }

grep -m1 '^model name' /proc/cpuinfo | sed 's/.*: /machine: /' || true
echo "kernel: $(uname -sr); rounds: $rounds; old: ${binaries[0]}; new: ${binaries[1]}"
printf '%-24s %12s %12s %8s\n' row old new new/old
status=0
for row in "${rows[@]}"; do
    for ((round = 0; round < rounds; round++)); do
        # Each binary comes first in every other round.
        for turn in 0 1; do
            which=$(((round + turn) % 2))
            run "${binaries[which]}" "$row" >"$scratch/lines" || exit 2
            # The row's name may be the beginning of others.
            awk -v row="$row" -v which="$which" '$1 == row { print which, $2, $3 }' "$scratch/lines"
        done
    done >"$scratch/values"
    sort -k1,1n -k2,2g "$scratch/values" | awk -v row="$row" -v limit="$limit" '
        { values[$1, count[$1]++] = $2; unit = $3 }
        function median(which,  n) {
            n = count[which]
            return n % 2 ? values[which, (n - 1) / 2] : (values[which, n / 2 - 1] + values[which, n / 2]) / 2
        }
        END {
            if (!count[0] || !count[1]) { printf "%-24s no value\n", row; exit 2 }
            old = median(0); new = median(1)
            ratio = old > 0 ? new / old : 1
            over = unit == "ns" && ratio > limit
            mark = unit == "ns" ? "" : "  " unit
            printf "%-24s %12.2f %12.2f %8.3f%s\n", row, old, new, ratio, over ? "  slower" : mark
            exit over
        }' || { code=$?; ((code > status)) && status=$code; }
done
exit "$status"
