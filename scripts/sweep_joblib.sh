#!/usr/bin/env bash
# A sweep on this machine: as many jobs at a time as it has GPUs, or else cores; further settings can be appended.
set -euo pipefail

# More jobs on a GPU: hydra.launcher.n_jobs=4 (runs spread over the GPUs). More cores for each job: threads=4.
uv run metarun -m algo=maml,protonet seed=0,1,2 hydra/launcher=joblib "$@"

# Ctrl-C saves what runs. The same command again goes on, and does nothing twice.
