"""SLURM's commands as submitit uses them, on one machine: fake_slurm.py COMMAND ARGUMENT ..., files in $FAKE_SLURM.

sbatch keeps each script as ID.sh and runs its array at once, srun notes each task's process in TASK.pid, scontrol
requeues, sacct tells the states.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(os.environ["FAKE_SLURM"])


def install(folder: Path) -> None:
    """Put the commands into `folder`, for PATH."""
    for name in ("sbatch", "srun", "scontrol", "sacct"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        (folder / name).chmod(0o755)


def sbatch(script: str) -> None:
    number = 100 + len(list(HERE.glob("*.sh")))
    text = Path(script).read_text()
    (HERE / f"{number}.sh").write_text(text)
    array = re.search(r"#SBATCH --array=0-(\d+)", text)
    tasks = [f"{number}_{index}" for index in range(int(array[1]) + 1)] if array else [f"{number}"]
    for task in tasks:
        log = open(HERE / f"{task}.log", "w")  # noqa: SIM115
        subprocess.Popen([sys.executable, __file__, "run", task], stdout=log, stderr=log)
    print(f"Submitted batch job {number}")


def run(task: str) -> None:
    number, _, index = task.partition("_")
    cores = re.search(r"#SBATCH --cpus-per-task=(\d+)", (HERE / f"{number}.sh").read_text())
    environment = {"SLURM_JOB_ID": number, "SLURM_CPUS_PER_TASK": cores[1] if cores else "1"}
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    while True:
        (HERE / f"{task}.state").write_text("RUNNING")
        code = subprocess.run(["bash", HERE / f"{number}.sh"], env={**os.environ, **environment}).returncode
        if not (HERE / f"{task}.requeue").exists():
            break
        (HERE / f"{task}.requeue").rename(HERE / f"{task}.requeued")
    (HERE / f"{task}.state").write_text("FAILED" if code else "COMPLETED")


def srun(*arguments: str) -> None:
    words = list(arguments)
    while words[0].startswith("--"):
        del words[: 2 if words[0] in ("--output", "--error") else 1]
    task = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        task += f"_{os.environ['SLURM_ARRAY_TASK_ID']}"
    (HERE / f"{task}.pid").write_text(str(os.getpid()))
    os.execvp(words[0], words)


def scontrol(verb: str, task: str) -> None:
    assert verb == "requeue"
    (HERE / f"{task}.requeue").touch()


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for file in sorted(HERE.glob("*.state")):
        print(f"{file.stem}|{file.read_text()}|here")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
