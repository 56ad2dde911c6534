#!/bin/bash
# Several machines, of which any may lose a process, or be gone for a while. On each of them, start
#   configs/torchrun.sh HOST NODES PROCESSED_DIR FEATURES_DIR [options of featx predict]
# HOST is the name of one of them, NODES is how many there are; all see both folders at these paths.
#
# When a process dies, all begin anew and go on from what is on disk; and so they do when a machine
# comes back, or another one joins. As long as it is missing, the others go on without it; but HOST
# has to live. Status 0 means that all files are published. After another one, or after SIGTERM to
# torchrun, finished videos are safe: start the same again.
#
# RESTARTS=N   how often, for each machine; what is wrong with an option ends at once, but torchrun
#              cannot tell a bad input from a bad disk, and tries that as often
# PROCESSES=N  processes for each machine; by default, one for each GPU
# PORT=N       of HOST, where the machines meet
set -euo pipefail
host=$1 nodes=$2
options=(--config "${CONFIG:-configs/efficientnet_v2_m.yaml}" --data.root "$3" --writer.output_dir "$4" "${@:5}")

featx predict "${options[@]}" --print_config > /dev/null

# Without it, processes that begin anew may take the addresses of those that are gone.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# shellcheck disable=SC2016  # the variables are torchrun's
exec torchrun --nnodes "1:$nodes" --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-10}" \
  --rdzv-backend c10d --rdzv-endpoint "$host:${PORT:-29400}" --rdzv-id "featx ${4//[^[:alnum:]]/-}" \
  --no-python bash -c 'exec featx predict "$@" \
    --trainer.num_nodes "$GROUP_WORLD_SIZE" --trainer.devices "$LOCAL_WORLD_SIZE"' featx "${options[@]}"
