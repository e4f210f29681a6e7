#!/bin/bash
# Four users on one node.  usage: slurm/one-node.sh JOB.ini [options of comigs train]
#SBATCH --job-name=comigs
#SBATCH --nodes=1
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log

. slurm/run.sh
federate "${COMIGS:-build/release/comigs}" train "$@"
