#!/bin/sh
# A Prefect server on loopback with everything deployed but stations, and a worker. Ctrl-C ends all of it.
#   FEDPATCH_PORT (4200), FEDPATCH_DATASET (where the worker's data set lies), FEDPATCH_STORE
set -eu
port=${FEDPATCH_PORT:-4200}
export PREFECT_SERVER_API_HOST=127.0.0.1 PREFECT_SERVER_API_PORT="$port" PREFECT_API_URL="http://127.0.0.1:$port/api"
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false
export PREFECT_LOGGING_EXTRA_LOGGERS=pipeline_lib PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30

# A session of its own, so that Ctrl-C reaches the worker first and the server when the worker is gone.
python -c 'import os, sys; os.setsid(); os.execvp("prefect", ["prefect", *sys.argv[1:]])' \
    server start --host 127.0.0.1 --port "$port" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
trap 'exit 130' INT TERM

tries=0
until python -c "import urllib.request as u; u.urlopen('$PREFECT_API_URL/health', timeout=2)" 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -ge 120 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "serve: the server did not start on port $port" >&2
        exit 1
    fi
    sleep 1
done
prefect work-pool create local --type process --overwrite
# All but the stations' deployments, which need workers of their own (docs/stations.md: prefect deploy --all).
deployed=.prefect-serve-$$.yaml
trap 'rm -f "$deployed"; kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
python - "$deployed" <<'EOF'
import sys

import yaml

with open("prefect.yaml") as file:
    values = yaml.safe_load(file)
values["deployments"] = [one for one in values["deployments"] if "stations" not in one.get("tags", [])]
with open(sys.argv[1], "w") as file:
    yaml.safe_dump(values, file)
EOF
prefect deploy --all --no-prompt --prefect-file "$deployed"
rm -f "$deployed"
python -m flows.automations
echo "serve: UI at http://127.0.0.1:$port  (deployments: prefect deployment ls)"
prefect worker start --pool local
