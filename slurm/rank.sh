#!/bin/bash
# A rank of a heterogeneous job: runs a command and leaves its exit code in a folder.
# usage: slurm/rank.sh FOLDER COMMAND...   (slurm/run.sh says what for)
folder=$1
shift
# Slurm signals the command as well: this shell only has to outlive it.
trap : USR1 TERM
"$@"
code=$?
# By another name first: a file that is there is whole.
echo "$code" >"$folder/.$SLURM_PROCID" && mv "$folder/.$SLURM_PROCID" "$folder/rank-$SLURM_PROCID"
exit "$code"
