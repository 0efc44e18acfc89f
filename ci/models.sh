#!/bin/sh
# Explicit-state models of the lock, the condition, the semaphore, the rwlock, the barrier, the ring,
# leased jobs, membership and reservations, with death as a step.
#   ci/models.sh          every commit: under a minute
#   ci/models.sh --deep   the large configurations: some 30 minutes, 10 GiB
#   ci/models.sh --trace closer     words select rows; --trace shows how a planted bug goes wrong
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release --quiet --package multiproc-models -- "$@"
