#!/bin/bash
# A rank of a heterogeneous job: runs a command and leaves its exit code in a folder.
# usage: slurm/rank.sh FOLDER COMMAND...   (slurm/run.sh says what for)
folder=$1
shift
# Slurm may signal this shell alone: where it tracks processes by control groups, children get nothing but SIGKILL.
trap 'told=yes; kill -USR1 $!' USR1
trap 'told=yes; kill -TERM $!' TERM
"$@" &
while :; do # a signal ends `wait` before the command has ended
    told=no
    wait $!
    code=$?
    [ "$told" = yes ] || break
done
# By another name first: a file that is there is whole.
echo "$code" >"$folder/.$SLURM_PROCID" && mv "$folder/.$SLURM_PROCID" "$folder/rank-$SLURM_PROCID"
exit "$code"
