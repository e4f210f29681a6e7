"""Jobs for Slurm: what they need (`comigs plan`), what the cluster calls things (site file), scripts."""
