#!/usr/bin/env bash
# `run.sh FOLDER COMMAND…`, as root: the command as an ordinary user, in a network whose only other
# machine is the scripted model. FOLDER has `origin.pem` and `origin.key` in `certificates/`,
# `roots.pem`, `scenario.json`, and the folder `notes/` for what happens. Exits with the code of the
# command; 125 where this kernel or user cannot make such a network; 99 where the model ended before
# the command did.
set -euo pipefail

agents=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
uid=${AGENT_UID:-1000}
export NOTES="$folder/notes" CERTIFICATES="$folder/certificates" FORGE="$folder/forge"
export SCENARIO="$folder/scenario.json"
# An address that is nobody's here: the built-in policy is asked as it is.
export ADDRESS=45.77.1.1

if [ -z "${INSIDE:-}" ]; then
    export INSIDE=1
    exec unshare --net --mount --pid --fork --kill-child --mount-proc -- "$0" "$folder" "$@"
fi

cannot() { echo "run.sh: $*" >&2; exit 125; }

# Waits for a line in a file, for at most half a minute.
await() {
    local count
    for count in $(seq 600); do
        grep -qs "$1" "$2" && return
        sleep 0.05
    done
    cannot "no \"$1\" in $2: $(tail -n 5 "$2")"
}

mount --make-rprivate /
ip link set lo up
unshare --net -- sleep infinity &
far=$!
for _ in $(seq 100); do
    [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break
    sleep 0.05
done
ip link add gate type veth peer name model netns "$far" || cannot "no veth"
ip address add 45.77.1.2/24 dev gate
ip link set gate up
there() { nsenter --target "$far" --net -- "$@"; }
there ip link set lo up
there ip address add "$ADDRESS/24" dev model
there ip link set model up

printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' > "$folder/resolv.conf"
mount --bind "$folder/resolv.conf" "$(readlink -f /etc/resolv.conf)"
mount --bind "$folder/roots.pem" "$(readlink -f /etc/ssl/certs/ca-certificates.crt)"
# The agents and the MCP server, where every user can read them.
mount --bind "$AGENTS" "$folder/agents"
mount --bind "$agents/model" "$folder/model"
mount --bind "$(dirname "$TIDEGATE")" "$folder/program"

there node "$agents/model/outside.mjs" > "$NOTES/outside.log" 2>&1 &
model=$!
node "$agents/model/inside.mjs" > "$NOTES/inside.log" 2>&1 &
await ready "$NOTES/outside.log"
await ready "$NOTES/inside.log"

cd "$folder/home/web"
exec 3>&-
set +e
timeout --foreground --kill-after=5 "${RUN_SECONDS:-220}" \
    setpriv --reuid="$uid" --regid="$uid" --clear-groups -- \
    env -i HOME="$folder/home" USER=agent LOGNAME=agent SHELL=/bin/bash TERM=xterm LANG=C.UTF-8 \
    npm_config_globalconfig=/nonexistent npm_config_update_notifier=false \
    PATH="$folder/bin:/usr/local/bin:/usr/bin:/bin" NOTES="$NOTES" "$@"
code=$?
kill -0 "$model" || { cat "$NOTES/outside.log" >&2; exit 99; }
exit "$code"
