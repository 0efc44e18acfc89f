#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER of the build with planted bugs: cargo runs it in place of rustc for this workspace's
# own crates.
exec "$@" --cfg multiproc_planted_bugs
