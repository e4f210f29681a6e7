"""Broken inputs through the real command line: a clean refusal or a correct run, nothing else."""
