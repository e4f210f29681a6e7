#!/usr/bin/env bash
# Kills, freezes and suspends runs of comigs at random moments: see tests/soak.py.
# usage: bash tests/soak.sh [--kills N] [--freezes N] [--suspensions N] [--seed N]    By hand; needs build/dev (bash tests/run.sh makes it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment=$(bash setup.sh --env)
eval "$environment"
exec .venv/bin/python -m tests.soak "$@"
