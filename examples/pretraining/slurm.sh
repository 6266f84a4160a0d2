#!/bin/bash
# Pre-training on two machines under Slurm. Every submission is one stretch of the run, and begins when the one before
# has ended:
#     for i in 1 2 3; do sbatch slurm.sh; done
# Two minutes before the time limit the run writes a checkpoint and stops; the next job goes on from there. Where a
# machine fails, Slurm queues the job anew. Once the run is done, further jobs end at once.
#SBATCH --job-name=pretrain-large
#SBATCH --dependency=singleton
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# OUT and the text must be seen by all machines.
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_PER_NODE" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m electra_fast pretrain --preset large --data /shared/corpus --out /shared/large --accumulate 4 --parallel fsdp
