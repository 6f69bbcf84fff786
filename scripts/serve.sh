#!/bin/sh
# For trying: a Prefect server on loopback with everything deployed but stations, and a worker, which is started again
# when it ends. Ctrl-C or SIGTERM ends all of it. For a server that stays: docs/operations.md.
#   FEDPATCH_PORT (4200), FEDPATCH_DATASET (where the worker's data set lies), FEDPATCH_STORE
set -eu
port=${FEDPATCH_PORT:-4200}
export PREFECT_SERVER_API_HOST=127.0.0.1 PREFECT_SERVER_API_PORT="$port" PREFECT_API_URL="http://127.0.0.1:$port/api"
NO_PROXY=127.0.0.1,localhost,${NO_PROXY:-${no_proxy:-}} # a proxy would look for these on its own machine
export NO_PROXY no_proxy="$NO_PROXY"
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false
export PREFECT_LOGGING_EXTRA_LOGGERS=pipeline_lib
export PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED=true PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED=true # for --watch
export PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER=P30D # 30 days: a run cut off that long ago is still marked Crashed
run='"model": {"backbone": "efficientnet_lite0", "coreset_percentage": 0.01}, "federated": {"num_clients": 3}'

say() { echo "serve: $*" >&2; }

# Anything else that listens there would be deployed into, and its runs shared with a second worker.
if ! python -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1]))).close()' "$port" 2>/dev/null
then
    say "port $port is in use, perhaps by another make serve: end that, or take a free one: FEDPATCH_PORT=4300 make serve"
    exit 1
fi
if [ -z "${FEDPATCH_DATASET:-}" ]; then
    say "FEDPATCH_DATASET is not set, so full-benchmark/nightly will fail; for it, end this (Ctrl-C) and start it with" \
        "FEDPATCH_DATASET=DIR make serve"
elif [ ! -d "$FEDPATCH_DATASET" ]; then
    say "FEDPATCH_DATASET is $FEDPATCH_DATASET, which is no directory"
    exit 1
fi

# For the background alone. Sessions of their own, so that Ctrl-C reaches this script alone, which ends the worker first
# and then the server.
started() {
    exec python -c 'import os, signal, sys
os.setsid()
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp("prefect", ["prefect", *sys.argv[1:]])' "$@"
}
server='' worker=''
end() {
    for process in $worker $server; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
}
trap end EXIT
trap 'exit 0' INT TERM
start_worker() {
    since=$(date +%s)
    started worker start --pool local --name serve &
    worker=$!
}

# until CONDITION holds, for two minutes, as long as the process lives
await() {
    what=$1 process=$2 tries=0
    shift 2
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -ge 120 ] || ! kill -0 "$process" 2>/dev/null; then
            say "$what did not start"
            exit 1
        fi
        sleep 1
    done
}

started server start --host 127.0.0.1 --port "$port" &
server=$!
await "the server on port $port" "$server" \
    python -c "import urllib.request as u; u.urlopen('$PREFECT_API_URL/health', timeout=2)"
prefect work-pool create local --type process --overwrite
start_worker
await "the worker" "$worker" python -c "
import datetime, json, urllib.request as u
asked = u.Request('$PREFECT_API_URL/work_pools/local/workers/filter', b'{}', {'Content-Type': 'application/json'})
seen = [w['last_heartbeat_time'] for w in json.load(u.urlopen(asked, timeout=5)) if w['name'] == 'serve']
assert datetime.datetime.fromisoformat(seen[0]).timestamp() >= $since"
sh scripts/deploy.sh
rules=$(python -m flows.automations)

others=''
for name in PREFECT_HOME FEDPATCH_STORE FEDPATCH_DATASET; do
    eval "value=\${$name:-}"
    [ -z "$value" ] || others="$others $name=\"$value\""
done
cat <<END

serve: ready. UI: http://127.0.0.1:$port    Ctrl-C ends all of it.
This is for trying; a server that stays is in docs/operations.md, "One server, without stations".
$rules
In another terminal:

  export PREFECT_API_URL=$PREFECT_API_URL PATH="$(dirname "$(command -v prefect)"):\$PATH"$others
END
if [ -z "${FEDPATCH_DATASET:-}" ]; then
    made=$PWD/made
    [ -d "$made" ] || echo "  fedpatch dataset synthesize --out $made --scale 0.5 --images 24 --category pipe_clip"
    run="\"dataset\": {\"root\": \"$made\"}, $run"
fi
echo "  prefect deployment run federated-experiment/on-demand --param 'config={$run}' --watch"
echo
ended=0
while :; do
    code=0
    wait "$worker" || code=$?
    worker=''
    [ $(($(date +%s) - since)) -lt 600 ] || ended=0
    ended=$((ended + 1))
    [ "$ended" -lt 5 ] || break # one start more would not mend it
    say "the worker ended (exit code $code), and what it ran is Crashed: Retry that; a worker is started again in 5 s"
    sleep 5 & # in the background, so that Ctrl-C does not wait for it
    wait $!
    start_worker
done
say "the worker ended 5 times, each within 10 minutes of its start, so the server is ended too (exit code $code)"
exit 1
