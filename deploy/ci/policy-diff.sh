#!/bin/sh
# Compares the policy of a change with the policy that it began from.
#
#   policy-diff.sh BASE HEAD [PATH]
#
# BASE and HEAD are revisions of the repository in this folder, PATH is the policy in it. Writes
# policy-diff.md for a comment, prints annotations where GitHub Actions runs it, and ends with 1 where
# TIDEGATE_REQUIRE (`equal`, `narrower`, `no-wider-in=TIER`) does not hold.
set -eu

range="$1...$2"
path="${3:-tidegate.toml}"

tidegate diff "$range" --path "$path" --format markdown > policy-diff.md
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
    cat policy-diff.md >> "$GITHUB_STEP_SUMMARY"
fi
format=text
if [ -n "${GITHUB_ACTIONS:-}" ]; then
    format=github
fi
tidegate diff "$range" --path "$path" --format "$format" ${TIDEGATE_REQUIRE:+--require "$TIDEGATE_REQUIRE"}
