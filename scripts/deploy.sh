#!/bin/sh
# Deploys all of prefect.yaml but the stations' blocks, which need workers of their own (docs/stations.md: prefect deploy
# --all). Runs go to runs/ below the directory that it is called in, which must be writable.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
chosen=.prefect-deploy-$$.yaml
trap 'rm -f "$chosen"' EXIT
python - "$checkout/prefect.yaml" "$chosen" <<'END'
import sys

import yaml

with open(sys.argv[1]) as file:
    values = yaml.safe_load(file)
values["deployments"] = [one for one in values["deployments"] if "stations" not in one.get("tags", [])]
with open(sys.argv[2], "w") as file:
    yaml.safe_dump(values, file)
END
prefect deploy --all --no-prompt --prefect-file "$chosen"
