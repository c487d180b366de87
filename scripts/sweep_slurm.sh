#!/usr/bin/env bash
# A sweep on a SLURM cluster, as one job array: run this on the login node, in a folder that the nodes see as well,
# with the data there already (paths.data=FOLDER or METARUN_DATA). Further settings can be appended.
set -euo pipefail

# A job that is preempted, or is about to run into timeout_min, saves, is requeued and resumes where it was.
# Its output is under outputs/sweeps/NAME/.submitit/. Without a cluster, hydra/launcher=submitit_local does the same.
uv run --extra slurm metarun -m algo=maml,protonet seed=0,1,2 data=omniglot \
    hydra/launcher=slurm \
    hydra.launcher.timeout_min=120 \
    hydra.launcher.cpus_per_task=4 \
    hydra.launcher.gpus_per_node=1 \
    hydra.launcher.array_parallelism=8 \
    "$@" # as hydra.launcher.partition=NAME hydra.launcher.account=NAME

# Ctrl-C leaves the table and not the jobs: squeue, scancel and `metarun list outputs/sweeps/NAME` know them.
