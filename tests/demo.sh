#!/usr/bin/env bash
# Shows the proxy with real clients and real registries: on its built-in policy plus one rule file,
# npm, pip and cargo fetch what they are known to need, an unlisted site is refused, and each flow
# is on record. Where a registry's name leads to a private or reserved address (a mirror), shows the
# floor refusing that, then the rule that names the network. Stops, saying so, where no registry can
# be reached. Builds a release (or takes TIDEGATE_BIN); needs curl, npm, pip and cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
gate=
dir=$(mktemp -d)
cleanup() {
    if [ -n "$gate" ]; then kill "$gate" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap cleanup EXIT

if [ -n "${TIDEGATE_BIN:-}" ]; then
    bin=$(realpath "$TIDEGATE_BIN")
else
    cargo build --release --locked --quiet
    bin=$PWD/target/release/tidegate
fi

# The hosts, as each client's own configuration says them; without one, as their domains are known.
host_of() { sed -E 's#^[a-z+]*://([^/@]*@)?([^/:]+).*#\2#' <<<"$1"; }
npm_domain=npmjs.org pypi_domain=pypi.org files_domain=pythonhosted.org crates_domain=crates.io
npm_host=$(host_of "$(npm config get registry)")
[[ $npm_host == *.* ]] || npm_host=registry.$npm_domain
pip_url=$(pip config get global.index-url 2>/dev/null || echo "https://$pypi_domain/simple")
pip_host=$(host_of "$pip_url")
hosts=("$npm_host" "$pip_host" "files.$files_domain" "index.$crates_domain" "static.$crates_domain" "$crates_domain")

# Which of them lead to addresses that are not public, and into which networks.
networks=$(python3 - "${hosts[@]}" <<'PYTHON'
import ipaddress, socket, sys
found = set()
for host in sys.argv[1:]:
    try:
        answers = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except OSError:
        continue
    for answer in answers:
        address = ipaddress.ip_address(answer[4][0])
        if not address.is_global:
            width = 24 if address.version == 4 else 64
            found.add(str(ipaddress.ip_network(f"{address}/{width}", strict=False)))
print(", ".join(f'"{network}"' for network in sorted(found)))
PYTHON
)

reachable=
for host in "${hosts[@]}"; do
    if curl -s -o /dev/null --noproxy '*' --connect-timeout 5 -m 10 "https://$host/"; then reachable=yes; break; fi
done
if [ -z "$reachable" ]; then
    echo "No registry can be reached from here (tried: ${hosts[*]}): nothing to show."
    exit 0
fi

# start NAME RULES: a gate with these rules; sets $gate, $proxy and $log.
start() {
    if [ -n "$gate" ]; then kill "$gate"; wait "$gate" || true; gate=; fi
    log=$dir/$1.jsonl
    printf '[listen]\nproxy = ["127.0.0.1:0"]\n\n[record]\nfile = "%s"\n\n%s\n' "$log" "$2" >"$dir/$1.toml"
    "$bin" run --config "$dir/$1.toml" 2>"$dir/$1.err" &
    gate=$!
    local tries=0
    until grep -q '^tidegate: ready' "$dir/$1.err"; do
        kill -0 "$gate" 2>/dev/null || { cat "$dir/$1.err"; gate=; exit 1; }
        tries=$((tries + 1)); [ "$tries" -lt 600 ] || { echo "it does not start"; exit 1; }
        read -rt 0.05 <> <(:) || true
    done
    proxy=http://$(sed -n 's/^tidegate: proxy on //p' "$dir/$1.err" | head -n 1)
}

# through COMMAND…: runs it behind the proxy, with nothing else to go by.
through() {
    printf '\n$ %s\n' "$*"
    (cd "$dir" && env HTTP_PROXY="$proxy" HTTPS_PROXY="$proxy" http_proxy="$proxy" https_proxy="$proxy" \
        NO_PROXY= no_proxy= npm_config_cache="$dir/npm" CARGO_HOME="$dir/cargo" "$@") 2>&1 | tail -n "${lines:-6}" || true
}

# What the log says of decided flows.
decided() {
    python3 - "$log" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    record = json.loads(line)
    if record["event.name"] != "decision":
        continue
    print("  {:<6} {:<15} {:<17} tier {:<10} {:<28} {}".format(
        record["tidegate.verdict"], record["tidegate.reason"], record.get("tidegate.category", "-"),
        record.get("tidegate.tier", "-"), record.get("security_rule.name", "-"), record.get("server.address", "-")))
PYTHON
}

clients() {
    through npm view is-number version
    through pip download --no-deps --no-cache-dir --disable-pip-version-check --retries 0 six
    through cargo info itoa
    through curl -sS -o /dev/null -w '%{http_code}\n' https://example.com
}

if [ -n "$networks" ]; then
    say "a registry's name leads to an address that is not public; the floor refuses that"
    start floor ''
    through npm view is-number version --fetch-retries=0
    decided
    say "one rule file names that network: $networks"
    quoted=$(printf '"%s", ' "${hosts[@]}")
    start demo "[[rule]]
id = \"registry-mirror\"
verdict = \"allow\"
to.hosts = [${quoted%, }]
grant.addresses = [$networks]
reason = \"the registries' names lead to a mirror here\""
else
    say "the built-in policy, and one rule file"
    start demo '[[rule]]
id = "docs"
verdict = "allow"
category = "webfetch"
hosts = ["docs.rs"]
reason = "documentation"'
fi
clients
say "what is on record"
decided
