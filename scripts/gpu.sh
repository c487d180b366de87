#!/usr/bin/env bash
# Everything worth doing in ten minutes on a machine with a GPU and no network, stage by stage.
#
#   bash scripts/gpu.sh setup check micro bench profile overlap  # is it right, how fast is it, where does the time go
#   bash scripts/gpu.sh setup omniglot                        # starts runs that go on when the script has ended
#   WAIT=240 bash scripts/gpu.sh setup cifar collect          # more of them; waits for all, and gathers what they found
#   DEVICE=cpu STEPS=4 bash scripts/gpu.sh setup check ...    # a dry run: every block, cut short
#
# scripts/gpu/prepare.py makes the folder .gpu, whose files setup takes in as they come. A stage that fails does not stop
# the next; the last lines name each with its seconds and exit code. No stage changes a setting of the GPU.

set -uo pipefail
cd "$(dirname "$0")/.." || exit

DEVICE=${DEVICE:-cuda}                  # by torch's name
STEPS=${STEPS:-}                        # outer steps of every run; default: its experiment's
OUT=${OUT:-outputs/gpu}                 # for what is to be kept
WORK=${WORK:-${HOME:-/tmp}/metarun-gpu}       # packages, data and runs, which later calls find again
BUNDLE=${BUNDLE:-.gpu}                  # what scripts/gpu/prepare.py made, or a part of it
MAML_SEEDS=${MAML_SEEDS-0 1 2}          # of MAML on Omniglot
PROTONET_SEEDS=${PROTONET_SEEDS-0}      # of ProtoNet on Omniglot
CIFAR=${CIFAR-protonet_cifar_fs_5w1s protonet_cifar_fs_5w5s r2d2_cifar_fs_5w1s r2d2_cifar_fs_5w5s}  # experiments, seed 0
TESTS=${TESTS:-}                        # those of `check`, as pytest -k has them; default: all that are marked gpu
CHECK_SECONDS=${CHECK_SECONDS:-90}      # for them
SETTINGS=${SETTINGS:-maml-5w1s-t32,fomaml-5w1s,maml-5w5s-q15-5steps,anil-5w1s-5steps,maml-84-5w1s,protonet-20w1s-q5,protonet-5w1s-q15,test-maml-5w1s,scaling}  # of `bench`
ONLY=${ONLY:-learn2learn,metarun,plain,tf32}  # its contestants
WAIT=${WAIT:-240}                       # seconds from the start of this script to the end of `collect`
RUN_OVERRIDES=${RUN_OVERRIDES:-}        # more settings of every run, as: run.compile=false

mkdir -p "$OUT" "$WORK"/{data,runs,parts}
OUT=$(realpath "$OUT") WORK=$(realpath "$WORK") RUNS=$WORK/runs
CODE=$(mktemp -d "$WORK/code.XXX") && cp -r metarun conf "$CODE"  # for runs that go on, whatever becomes of the checkout
export PYTHONPATH=$PWD:$WORK/packages PYTHONUNBUFFERED=1
export METARUN_DATA=$WORK/data METARUN_CACHE=$WORK/cache METARUN_TEST_DEVICE=$DEVICE
export CUBLAS_WORKSPACE_CONFIG=:4096:8  # the same sums in every run

within() {  # SECONDS COMMAND...: interrupts the command then; a CPU's dry run has three times as long
    local seconds=$1
    shift
    if [[ $DEVICE == cpu ]]; then seconds=$((3 * seconds)); fi
    timeout --signal=INT --kill-after=10 "$seconds" "$@"
}

setup() {
    if [[ -e $BUNDLE/packages.tar.gz && ! -d $WORK/packages ]]; then
        tar xzf "$BUNDLE/packages.tar.gz" -C "$WORK" || return
    fi
    if [[ -d $BUNDLE/omniglot && ! -d $WORK/data/omniglot ]]; then cp -a "$BUNDLE/omniglot" "$WORK/data/"; fi
    for part in "$BUNDLE"/cifar_fs-*.zip; do
        if [[ -e $part ]]; then cp -a "$part" "$WORK/parts/"; fi
    done
    if [[ $DEVICE != cpu ]]; then nvidia-smi | head -16; fi
    within 60 python3 scripts/gpu/machine.py "$DEVICE"
}

check() {
    local tests
    mapfile -t tests < <(grep -l "mark.gpu" tests/test_*.py)
    within "$CHECK_SECONDS" python3 -m pytest -n 4 -m gpu "${tests[@]}" ${TESTS:+-k "$TESTS"} -vv -rA --durations=10 --tb=short \
        -p no:cacheprovider > "$OUT/pytest.txt" 2>&1
    local code=$?
    grep -E "^(FAILED|ERROR)|^E  |passed|failed|error" "$OUT/pytest.txt" | cut -c1-180 | tail -25
    return $code
}

micro() {
    within 60 python3 scripts/convolutions.py --device "$DEVICE" ${STEPS:+--quick} --json "$OUT/convolutions.json"
}

bench() {
    local settings=$SETTINGS only=$ONLY rounds=3 seconds=0.2 curve=tasks
    if [[ $STEPS ]]; then settings=maml-5w1s-t4,scaling only=learn2learn,metarun rounds=1 seconds=0.01 curve=shots; fi
    within 100 python3 scripts/bench.py --device "$DEVICE" --only $only --rounds $rounds --seconds $seconds \
        --settings $settings --curve $curve --json "$OUT/bench.json"
}

profile() {
    within 40 python3 scripts/gpu/kernels.py --device "$DEVICE" ${STEPS:+--tasks 2 --timed 1} --out "$OUT/profile.txt"
}

overlap() {
    within 60 python3 scripts/gpu/overlap.py --device "$DEVICE" ${STEPS:+--tasks 2 --timed 1} --out "$OUT/overlap.txt"
}

start() {  # NAME SETTING...: a run of its own, which goes on when this script has ended
    local name=$1 settings
    shift
    settings=(device="$DEVICE" threads=2 logger=none run.log_every=500 run.checkpoint_every=2000 run.eval_batch_size=200)
    if [[ $STEPS ]]; then
        settings+=(run.steps="$STEPS" run.val_every="$STEPS" run.val_tasks=4 run.test_tasks=4 run.meta_batch_size=2 threads=1)
    fi
    if [[ -e $RUNS/$name.pid ]]; then echo "$name has been started before"; return; fi
    (
        cd "$WORK" || exit
        PYTHONPATH=$CODE:$WORK/packages exec setsid nohup python3 -m metarun "$@" "${settings[@]}" $RUN_OVERRIDES \
            hydra.run.dir="$RUNS/$name" > "$RUNS/$name.log" 2>&1 < /dev/null
    ) &
    echo $! > "$RUNS/$name.pid"
    echo "started $name"
}

omniglot() {
    for seed in $MAML_SEEDS; do
        start "maml_omniglot_5w1s-s$seed" +experiment=maml_omniglot_5w1s seed="$seed" run.val_every=6000
    done
    for seed in $PROTONET_SEEDS; do
        start "protonet_omniglot_5w1s-s$seed" +experiment=protonet_omniglot_5w1s seed="$seed" run.val_every=2000
    done
}

cifar() {
    if [[ ! -d $WORK/data/cifar_fs ]]; then
        within 120 python3 scripts/gpu/packing.py "$WORK"/parts/cifar_fs-*.zip "$WORK/data/cifar_fs" || return
    fi
    for experiment in $CIFAR; do
        start "$experiment-s0" +experiment="$experiment" run.val_every=2000
    done
}

collect() {
    python3 scripts/gpu/collect.py "$RUNS" --seconds $((WAIT - SECONDS)) --out "$OUT"
}

failed=0 summary=()
for stage in "$@"; do
    case $stage in
        setup | check | micro | bench | profile | overlap | omniglot | cifar | collect) ;;
        *) echo "there is no stage $stage; see the first lines of $0" && exit 2 ;;
    esac
done
for stage in "$@"; do
    printf '\n== %s, at %d s\n' "$stage" $SECONDS
    began=$SECONDS
    "$stage" 2>&1 | tee -a "$OUT/log.txt"
    code=${PIPESTATUS[0]}
    if ((code)); then failed=1; fi
    summary+=("$(printf '%-9s %4d s  exit code %d' "$stage" $((SECONDS - began)) "$code")")
done
printf '\n'
printf '%s\n' "${summary[@]}" | tee -a "$OUT/log.txt"
exit $failed
