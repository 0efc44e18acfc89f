#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER for the build with planted bugs: rustc for this workspace's own crates, with one more cfg.
exec "$@" --cfg multiproc_planted_bugs
