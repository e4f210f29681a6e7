"""The paper's experiments as job files, and the command that runs them: `python -m jobs.sweep table1`."""
