#!/usr/bin/env bash
# A study on SLURM: a Ray cluster on the nodes of one job. From the root of a clone, in an
# environment with nnclr-study that every node sees:
#
#   sbatch deploy/slurm.sh                          # search_spaces/queue_size.toml
#   sbatch deploy/slurm.sh /shared/my_study.toml    # or your own
#
# Three minutes before the time limit the study stops and the job goes back into the queue, where
# it goes on from the last epoch of each trial. On preemption SLURM itself requeues the job; it
# warns with the same signal if its administrator has set PreemptParameters=send_user_signal, and
# without a warning the study goes on from the last epoch all the same. Submitting the script
# again does no harm: what has ended is kept. `scancel --batch --signal TERM ID` stops the study
# for now; plain `scancel ID` does so without a farewell.
#
# Change the lines marked CHANGE: what each node gives, the shared folder, the network.
#
# Not run on a real cluster by us. tests/test_deploy.py runs this script with stand-ins for
# SLURM's and Ray's commands, and checks its command against the options of `nnclr-study`.
#
# CHANGE: how many nodes, and what each of them has; at least one CPU a GPU
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#
# One Ray node a machine, which nobody else uses: a second Ray there would want the same ports.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#
# B: the script alone gets the signal, so that Ray is still there while the study stops.
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
# A lost node takes its trials back to their last epoch, not the job.
#SBATCH --no-kill
#SBATCH --job-name=nnclr-study
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
set -euo pipefail

study=${1:-search_spaces/queue_size.toml}
shared=${SHARED:-/shared} # CHANGE: a folder that every node sees
# source "$shared/venv/bin/activate"  # CHANGE: unless you submit from an activated environment

nodes=$SLURM_JOB_NUM_NODES
cpus=$SLURM_CPUS_PER_TASK
mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# This script runs on the first node. CHANGE: with several networks, the address on the fast one.
read -r ip _ < <(hostname --all-ip-addresses)
port=6379
address=$ip:$port
mkdir -p "$shared"

# A signal before the study runs is remembered; afterwards it is passed on.
run=
stopped=no
requeue=no
stop() {
    stopped=yes
    [ -z "$run" ] || kill -TERM "$run" 2>/dev/null || true
}
trap 'requeue=yes; stop' USR1
trap stop TERM INT

# Whoever has the token can run code as you: readable by you alone, and new for every job.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$shared/.ray-token-$SLURM_JOB_ID
rm -f "$RAY_AUTH_TOKEN_PATH"
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

farewell() {
    rm -f "$RAY_AUTH_TOKEN_PATH"
    # shellcheck disable=SC2046
    kill $(jobs -p) 2>/dev/null || true
}
trap farewell EXIT

# One step a node: a node that is lost takes no other step with it.
start_ray() { # NODE OPTION...
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$cpus" \
        ray start --num-cpus="$cpus" --temp-dir="/tmp/ray-$SLURM_JOB_ID" --block "$@" &
}

start_ray "${names[0]}" --head --node-ip-address="$ip" --port="$port"
python deploy/when_ready.py --address "$address" --nodes 1 --timeout 300
for node in "${names[@]:1}"; do
    start_ray "$node" --address="$address"
done
python deploy/when_ready.py --address "$address" --nodes "$nodes" --timeout 600

code=130
if [ "$stopped" = no ]; then
    # --gpus-per-trial 1 ends with exit code 3 where there is no GPU, instead of using CPUs.
    nnclr-study run "$study" --address "$address" \
        --storage "$shared/runs" --data "$shared/data" --gpus-per-trial 1 &
    run=$!
    # A signal ends `wait` before the study has stopped: wait again.
    while :; do
        stopped=no
        code=0
        wait "$run" || code=$?
        [ "$stopped" = yes ] || break
    done
fi

# 130: interrupted, and goes on when run again. Any other code is the study's last word.
if [ "$requeue" = yes ] && [ "$code" = 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
