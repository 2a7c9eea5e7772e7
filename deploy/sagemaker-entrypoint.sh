#!/bin/bash
# The entry point of the SageMaker image: its variables become ours, and its port is 8080.
# SageMaker starts the container with the one argument `serve`; others go to `tgi serve`.
set -euo pipefail

if [[ -z "${HF_MODEL_ID:-}" ]]; then
    echo "HF_MODEL_ID must be set" >&2
    exit 1
fi

while read -r theirs ours; do
    if [[ -n "${!theirs:-}" ]]; then
        export "$ours=${!theirs}"
    fi
done <<'NAMES'
HF_MODEL_ID MODEL_ID
HF_MODEL_REVISION REVISION
SM_NUM_GPUS NUM_SHARD
HF_MODEL_QUANTIZE QUANTIZE
HF_MODEL_TRUST_REMOTE_CODE TRUST_REMOTE_CODE
NAMES

if [[ "${1:-}" == serve ]]; then
    shift
fi
exec tgi serve --port 8080 "$@"
