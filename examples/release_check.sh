#!/bin/sh
# A release-phase smoke test in plain shell: boot the web server on a port of its own, ask it how it
# is, stop it. Exits 0 if the answer was OKAY and 1 if not, which halts the release.
#
#     PORT=5999 ./release_check.sh sh -c 'exec gunicorn --bind 127.0.0.1:$PORT shop:app'
#
# The command is told the port as $PORT. It has to be the server itself (hence `exec`), or to pass
# signals on to it. Other variables: HEALTH_PATH (/health_check), BOOT_SECONDS (60), TRIES (3).
#
# Needs nc (Debian: netcat-openbsd) and curl. `healthmw smoke -- COMMAND` needs neither; it also
# picks the port, ends whatever the server has started, and shows what the server said last.

set -u

PORT=${PORT:-5999}
export PORT
path=${HEALTH_PATH:-/health_check}
boot_seconds=${BOOT_SECONDS:-60}
tries=${TRIES:-3}
server=

say() {
    echo "release check: $*" >&2
}

fail() {
    stop
    say "FAILED: $*"
    exit 1
}

listening() {
    nc -z 127.0.0.1 "$PORT" 2>/dev/null
}

running() {
    kill -0 "$server" 2>/dev/null
}

stop() {
    [ -n "$server" ] || return 0
    kill -TERM "$server" 2>/dev/null
    left=10
    while running && [ "$left" -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
    kill -KILL "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    server=
}

[ $# -gt 0 ] || fail "which command? $0 COMMAND..."
for tool in nc curl; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done
listening && fail "port $PORT is taken; name another one: PORT=..."

trap 'fail interrupted' INT TERM
"$@" &
server=$!

waited=0
until listening; do
    running || fail "the server ended before it listened on port $PORT"
    [ "$waited" -lt "$boot_seconds" ] || fail "nothing on port $PORT after $boot_seconds s"
    sleep 1
    waited=$((waited + 1))
done

while :; do
    body=$(curl --silent --show-error --noproxy '*' --max-time 10 "http://127.0.0.1:$PORT$path")
    running || fail "the server has ended"
    [ "$body" = OKAY ] && break
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "$path says: $body"
    sleep 1
done

stop
say "PASSED: $path says OKAY"
