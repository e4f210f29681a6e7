#!/bin/bash
# Makes a base model, and waits until it is there.  usage: slurm/pretrain.sh JOB.ini [options of comigs pretrain]
#SBATCH --job-name=comigs-base
#SBATCH --ntasks=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --wait
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log

. slurm/run.sh
begin
launch "${COMIGS:-build/release/comigs}" pretrain "$@"
