#!/bin/bash
# Two users with big allocations, then two with small ones, in one run: users are ranks in order, the big ones first.
# usage: slurm/heterogeneous.sh JOB.ini [options of comigs train: --method comigs-1gxs --experts 4,2,1,1]
#SBATCH --job-name=comigs
#SBATCH --ntasks=2
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log
#SBATCH hetjob
#SBATCH --ntasks=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@120

. slurm/run.sh
federate "${COMIGS:-build/release/comigs}" train "$@"
