#!/usr/bin/env bash
# `behind-gate.sh CONFIG COMMAND…`: a gate that runs on its own, and the command while it runs.
set -uo pipefail

config=$1
shift
folder=$(dirname "$config")
tidegate run --config "$config" > "$folder/gate.log" 2>&1 &
gate=$!
for _ in $(seq 600); do
    grep -q 'tidegate: ready' "$folder/gate.log" && break
    sleep 0.05
done
"$@"
code=$?
kill -TERM "$gate"
wait "$gate"
exit "$code"
