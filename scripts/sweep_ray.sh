#!/usr/bin/env bash
# A sweep through Ray, on this machine. Further settings can be appended.
set -euo pipefail

# On a cluster that `ray start` made, with metarun and the folder on every node: hydra.launcher.ray.init.address=auto
# Each job asks for one GPU where there are any: hydra.launcher.ray.remote.num_gpus=0.25 puts four on one.
uv run --extra ray metarun -m algo=maml,protonet seed=0,1,2 hydra/launcher=ray "$@"
