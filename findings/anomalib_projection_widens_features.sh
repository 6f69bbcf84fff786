#!/usr/bin/env bash
# anomalib 2.7.0: the random projection before PatchCore's coreset widens features that are narrow.
#
# KCenterGreedy projects the features first, which is there to make each of its passes over all of them cheaper. The
# width it projects to is the Johnson-Lindenstrauss bound for eps 0.9, which depends on the number of rows alone: 284
# values for 100,000 rows. So features of 1,536 values become narrower, those of 152 or 64 wider: the passes become
# dearer, and what they measure is off by up to a sixth on top.
#
# Seen (the last lines of this script check it): rows, width, width after the projection
#   100000 1536 284
#   100000 152 284
#   20000 64 244
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet anomalib==2.7.0 torch==2.14.1 torchvision==0.29.1
cd "$work"

seen=$("$work/venv/bin/python" -W ignore - 2>/dev/null <<'PY'
import torch
from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy

for rows, width in ((100_000, 1536), (100_000, 152), (20_000, 64)):
    torch.manual_seed(0)
    selector = KCenterGreedy(torch.randn(rows, width), 0.01)
    selector.model.fit(selector.embedding)
    print(rows, width, selector.model.transform(selector.embedding).shape[1])
PY
)

expected="100000 1536 284
100000 152 284
20000 64 244"
printf '%s\n' "$seen"
if [ "$seen" != "$expected" ]; then
    printf 'the behaviour has changed; it was\n%s\n' "$expected" >&2
    exit 1
fi
