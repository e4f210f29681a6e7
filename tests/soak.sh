#!/usr/bin/env bash
# Kills runs of comigs at random moments, resumes them, and compares each with a run that nobody disturbed.
# usage: bash tests/soak.sh [--kills N] [--seed N]    By hand; needs build/dev (bash tests/run.sh makes it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment=$(bash setup.sh --env)
eval "$environment"
exec .venv/bin/python -m tests.soak "$@"
