#!/bin/bash
# Two nodes with four GPUs each: sbatch configs/slurm.sh PROCESSED_DIR FEATURES_DIR [options]
# A job that ran out of time goes on from where it was when it is submitted again.
#SBATCH --job-name=featx
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
set -euo pipefail
root=$1 output_dir=$2
shift 2
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" featx predict --config configs/efficientnet_v2_m.yaml \
  --data.root "$root" --writer.output_dir "$output_dir" \
  --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" "$@"
