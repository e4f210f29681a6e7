#!/bin/bash
# Four users, each with a GPU, on as many nodes as Slurm finds.  usage: slurm/many-nodes.sh JOB.ini [options of comigs train]
#SBATCH --job-name=comigs
#SBATCH --ntasks=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log

. slurm/run.sh
federate "${COMIGS:-build/release/comigs}" train "$@"
