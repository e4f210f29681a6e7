# What this cluster calls things. Edit it, or copy it and name the copy: `slurm/submit --site FILE`, COMIGS_SITE=FILE.
# `slurm/submit` reads it when a job is submitted, the batch scripts source it when the job runs.
# shellcheck shell=bash disable=SC2034

partition=       # --partition; empty: the cluster's default. The same for account and qos
account=
qos=
options=()       # whatever else sbatch needs here: options=(--constraint=a100 --mail-type=FAIL)

gpus_per_task=0  # 1: every rank gets a GPU
cpus_per_task=1  # cores of a rank, at most; users with less work get fewer
longest=         # the longest time limit allowed, as sbatch writes it: 24:00:00. Longer runs are requeued and go on
lead=120         # seconds before the limit at which ranks are told to write a checkpoint and leave
restarts=100     # a job that was requeued so many times ends instead

launcher=pmix    # what `srun --mpi=` is given (`srun --mpi=list` shows what there is); mpirun: ranks by Open MPI's own

enter() { # runs in the job before the ranks start
    : # module purge; module load gcc openmpi hdf5 boost
}
