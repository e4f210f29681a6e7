"""What tests.hostile calls clean, correct and neither; that it breaks what it says; that a seed gives the same again."""

from __future__ import annotations

import json
import random

import pytest

from tests.hostile import damage, trial
from tests.hostile.trial import CLEAN_REFUSAL, CORRECT_RUN, OTHER, Ended

LEAK = "==1==ERROR: LeakSanitizer: detected memory leaks\n"
NESTED = 500


@pytest.mark.parametrize(
    ("code", "errors", "kind"),
    [
        (2, "comigs: /place/a.bin: it is empty\n", CLEAN_REFUSAL),
        (2, "comigs: 2 problems in /place/job.ini:\n  - one\n  - another\n", CLEAN_REFUSAL),
        (0, "", CORRECT_RUN),
        (0, "comigs: checkpoint /place/1 cannot be used\n", CORRECT_RUN),
        (0, LEAK, OTHER),
        (2, "comigs: /place/a.bin: it is empty\n" + LEAK, OTHER),
        (99, "/src/a.cpp:3:1: runtime error: signed integer overflow\n", OTHER),
        (1, "comigs: /place/a.bin: out of memory\n", OTHER),
        (-11, "", OTHER),
        (None, "", OTHER),
        (2, "", OTHER),
        (2, "/place/a.bin: it is empty\n", OTHER),
        (2, "comigs: it is empty\n", OTHER),
        (2, "comigs: /place/a\nfake line\n", OTHER),
        (2, "comigs: /place/a\x1b[2J\n", OTHER),
        (0, "comigs: \x1b[2J\n", OTHER),
        (2, "Traceback (most recent call last):\n", OTHER),
        (2, "comigs: /place/" + 10_000 * "x", OTHER),
    ],
)
def test_verdicts(code, errors, kind):
    assert trial.judge(Ended(code, errors), ["/place"], "comigs: ", may_run=True).kind == kind


def test_running_is_wrong_where_an_input_must_be_refused():
    assert trial.judge(Ended(0, ""), ["/place"], "comigs: ", may_run=False).kind == OTHER


def test_damage_is_damage_and_the_same_for_the_same_seed():
    document = {"a": [1, 2, {"b": "text"}], "c": None}
    found = [damage.as_json(damage.damaged_json(document, random.Random(seed))[1]) for seed in range(200)]
    assert found == [
        damage.as_json(damage.damaged_json(document, random.Random(seed))[1]) for seed in range(200)
    ]
    assert sum(one != json.dumps(document).encode() for one in found) > 180
    assert any(one.count(b"[") > NESTED for one in found) and any(one.count(b'"a"') > 1 for one in found)
    data = bytes(range(256)) * 4
    kinds = {damage.damaged_bytes(data, random.Random(seed))[0] for seed in range(200)}
    assert len(kinds) == 7 and all(damage.damaged_bytes(data, random.Random(s))[1] != data for s in range(50))
