#!/bin/bash
# Methods x seeds, a task of the array each.  usage: slurm/array.sh JOB.ini FOLDER [options of comigs train]
#SBATCH --job-name=comigs
#SBATCH --array=0-5
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A_%a.log
methods=(comigs-1g1s fedavg)
seeds=3

. slurm/run.sh
job=$1 folder=$2 method=${methods[SLURM_ARRAY_TASK_ID / seeds]} seed=$((SLURM_ARRAY_TASK_ID % seeds))
shift 2
federate "${COMIGS:-build/release/comigs}" train "$job" --method "$method" --seed "$seed" \
    --output "$folder/$method-seed$seed" "$@"
