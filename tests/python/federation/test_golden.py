"""Every method gives the bits that it gave: see tests/golden."""

from __future__ import annotations

import pytest

from tests.golden import golden, runs
from tests.helpers.built_program import ROOT


def test_every_run_gives_the_digests_that_are_kept():
    kept = golden.read()
    found = runs.made()
    if kept is None:
        file = golden.write(found)
        pytest.skip(
            f"no golden digests of {golden.machine()} yet: made {file.relative_to(ROOT)}, which can be committed"
        )
    assert set(kept) <= set(runs.RUNS)
    assert golden.differences(kept, {name: found[name] for name in kept}) == []
    if missing := sorted(set(runs.RUNS) - set(kept)):
        pytest.skip(
            f"no golden digests of {golden.machine()} for {', '.join(missing)}: python -m tests.golden --renew"
        )


def test_the_runs_are_of_every_method_in_the_table():
    from tests.helpers.tiny import alone

    names = [line.split()[0] for line in alone("methods").output.split("\n\n")[0].splitlines()[2:]]
    assert {runs.method_of(name) for name in runs.RUNS} == set(names)


def test_one_changed_bit_is_told():
    kept = {"fedavg": {"loss/test": "0", "round": "1"}, "gone": {}}
    assert golden.differences(kept, {"fedavg": {"loss/test": "0", "round": "1"}}) == []
    assert golden.differences(kept, {"fedavg": {"loss/test": "2", "round": "1"}}) == [
        "fedavg: loss/test of 2"
    ]
    assert golden.differences(kept, {"fedavg": {"loss/test": "0"}}) == ["fedavg: round of 2"]
    assert golden.differences(kept, {"new": {}}) == ["new: there are no digests of it"]
