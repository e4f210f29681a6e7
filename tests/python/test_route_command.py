"""`comigs route`: every token's gate weights against the plain reference, texts against `tokenizers`."""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from broken_runs import check_it_ends_at_once
from built_program import ROOT
from data_set_reader import made, refused
from plain_model import PlainModel, Setting, frozen_weights
from tiny import (
    LAYERS,
    USERS,
    Done,
    comigs,
    data_set,
    executable,
    gpt2_folder,
    know_tokeniser,
    run,
    tokens_of,
    train,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EXPERTS, CONTEXTS = [4, 2, 1, 1], [12, 12, 10, 16]
RANK, ALPHA, ROUNDS, TOKENS, VOCABULARY = 4, 8.0, 2, 50, 300
TEXT = "Grüße aus 日本, with <|endoftext|> inside 🙂\n\tand naïve 12 + 3 = 15; the the the cat\x01.\n"
OPTIONS = ["--rounds", ROUNDS, "--lora-rank", RANK, "--lora-alpha", ALPHA, "--batch-sequences", 4]
OPTIONS += ["--local-steps", 4, "--router-every", 2, "--router-steps", 4, "--seed", 5]
# Large steps, so that a forgotten factor shows.
OPTIONS += ["--expert-learning-rate", 0.05, "--router-learning-rate", 0.05]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with `base` and `data` that share a byte-level tokeniser of VOCABULARY entries."""
    folder = tmp_path_factory.mktemp("route")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    words = (ROOT / "README.md").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([words, "日本 日本 🙂 🙂 über über"], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    gpt2_folder(folder / "base", vocabulary=VOCABULARY)
    data_set(folder / "data", vocabulary=VOCABULARY)
    for holder in ("base", "data"):
        tokenizer.save(str(folder / holder / "tokenizer.json"))
    know_tokeniser(folder / "data")
    return folder


def trained(place: Path, name: str, method: str, *options: object) -> Path:
    """The folder of a run, made once."""
    output = place / name
    if not output.exists():
        given = ["--data", place / "data", "--model", place / "base", "--output", output]
        train(*given, "--method", method, *OPTIONS, *options)
    return output


@pytest.fixture
def mixed(place, tmp_path) -> Path:
    """A run of its own for each test, in which users have different numbers of experts and contexts."""
    options = ["--experts", ",".join(map(str, EXPERTS)), "--context-tokens", ",".join(map(str, CONTEXTS))]
    shutil.copytree(trained(place, "mixed", "comigs-1gxs", *options), tmp_path / "run")
    return tmp_path / "run"


def route(*arguments: object, code: int = 0) -> Done:
    """Without mpirun."""
    done = run([executable(), "route", *arguments, "--device", "cpu", "--threads", 1])
    assert done.code == code, done.output + done.errors
    return done


def probe(folder: Path, name: str) -> xr.Dataset:
    with xr.open_dataset(folder / "results.h5", group=f"tokens/{name}", engine="h5netcdf") as dataset:
        return dataset.load()


# The numbers ------------------------------------------------------------------------------------------------


def stored_model(path: Path, base: Path, user: int, *, lora: bool = True) -> PlainModel:
    """The user's model at the last round from the numbers in results.h5; `lora`: or with all B zero."""
    found: dict[str, torch.Tensor] = {}

    def add(name: str, item: h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset) or item.is_scale:
            return
        layer, *rest = name.replace("layer_", "").split("/")
        key = ".".join(rest).replace("expert_", "expert.")
        key = "router" if key == "weight" else f"{key[:-2]}.{key[-1]}"
        value = torch.from_numpy(item[()]).double()
        found[f"{layer}.{key}"] = value if lora or not key.endswith(".B") else 0 * value

    with h5py.File(path) as file:
        for role in ("attention", "expert", "router"):
            group = file[f"{role}/weights/{ROUNDS}"].get(f"user_{user}")
            if group is not None:
                group.visititems(add)
    return PlainModel(frozen_weights(base), found, Setting(EXPERTS[user], ALPHA / math.sqrt(RANK)))


@torch.no_grad()
def reference_gates(model: PlainModel, ids: Sequence[int], context: int) -> np.ndarray:
    """[token, layer, expert], each token after those before it in its window."""
    rows = []
    for begin in range(0, len(ids), context):
        _, routings = model.logits(torch.tensor([ids[begin : begin + context]]))
        rows.append(torch.stack([routing.gate[0] for routing in routings], 1))
    return torch.cat(rows).numpy()


def test_scores_of_every_model_on_every_text(mixed, place):
    done = route(mixed, "--tokens", TOKENS)
    assert done.output.rstrip().splitlines()[-1].startswith(f"tokens: {mixed}/results.h5")
    worst = 0.0
    for owner, name in enumerate(USERS):
        found = probe(mixed, f"user_{owner}")
        ids = tokens_of(place / "data", owner, "test")[:TOKENS].tolist()
        assert found.attrs["owner"] == name and found["ids"].values.tolist() == ids
        assert found["score"].dims == ("user", "token", "layer", "expert")
        assert found["score"].shape == (4, TOKENS, LAYERS, 4) and found["score"].dtype == np.float32
        assert found["user"].values.tolist() == list(USERS)
        for user in (0, 1):
            score = found["score"].values[user]
            model = stored_model(mixed / "results.h5", place / "base", user)
            expected = reference_gates(model, ids, CONTEXTS[user])
            worst = max(worst, np.abs(score[..., : EXPERTS[user]] - expected).max())
            assert np.isnan(score[..., EXPERTS[user] :]).all()
            assert ((expected == 0).sum(-1) == max(0, EXPERTS[user] - 2)).all()  # top-2
            for wrong in (
                reference_gates(
                    stored_model(mixed / "results.h5", place / "base", user, lora=False), ids, CONTEXTS[user]
                ),
                reference_gates(model, ids, CONTEXTS[user] + 1),
            ):
                assert np.abs(wrong - expected).max() > 0.01  # so the model and its windows matter
        score = found["score"].values[2:]
        assert (score[..., 0] == 1).all() and np.isnan(score[..., 1:]).all()
    print(f"largest difference of a gate weight: {worst:.1e}")
    assert worst <= 2e-5


def test_table_tells_the_generalists_share(mixed):
    done = route(mixed, "--tokens", TOKENS)
    lines = [line.split() for line in done.output.splitlines() if line.startswith("  user_")]
    assert len(lines) == 4
    for owner, (name, tokens, of, *shares) in enumerate(lines):
        assert (name, tokens, of) == (f"user_{owner}", str(TOKENS), USERS[owner])
        expected = probe(mixed, name)["score"].sel(expert=0).mean(("token", "layer")).values
        np.testing.assert_allclose(list(map(float, shares)), expected, atol=5.1e-4)


@pytest.mark.parametrize(("method", "share"), [("fedavg", 0.5), ("flexlora", 1.0)])
def test_experts_without_a_router_are_alike(place, tmp_path, method, share):
    folder = tmp_path / "run"
    shutil.copytree(trained(place, method, method, "--context-tokens", 12), folder)
    route(folder, "--tokens", 9)
    score = probe(folder, "user_3")["score"]
    assert score.shape == (4, 9, LAYERS, round(1 / share)) and (score == share).all()


# The file ---------------------------------------------------------------------------------------------------


def data_of(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_the_rest_of_the_file_stays(mixed):
    path = mixed / "results.h5"
    before = data_of(path)
    route(mixed)
    route(mixed, "--tokens", 20)  # other lengths under the same names
    after = data_of(path)
    assert {name for name in after if not name.startswith("tokens/")} == set(before) and len(before) > 100
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert [entry.name for entry in mixed.iterdir()] == ["results.h5"]
    with h5py.File(path) as file:
        assert [len(item["ids"]) for item in file["tokens"].values()] == [20] * 4
        for label in ("user", "layer", "routing/expert"):  # points at nothing that is gone
            assert all(file[reference] for reference, _ in file[label].attrs["REFERENCE_LIST"])
        for name in ("ids", "text", "score"):
            array = file[f"tokens/user_0/{name}"]
            assert array.attrs["units"] == "1" and array.attrs["long_name"]
            assert all(len(dimension) == 1 for dimension in array.dims)
    for engine in ("h5netcdf", "netcdf4"):
        tree = xr.open_datatree(path, engine=engine)
        assert tree["tokens/user_1/score"].sizes == {"user": 4, "token": 20, "layer": LAYERS, "expert": 4}
        assert tree["perplexity/test"].sizes == {"round": ROUNDS + 1, "user": 4}
        tree.close()


def test_all_of_a_short_split_and_mpirun(mixed):
    done = comigs("route", mixed / "results.h5", "--tokens", 65536, "--threads", 1, "--device", "cpu")
    assert done.code == 0, done.errors
    assert [probe(mixed, f"user_{user}").sizes["token"] for user in range(4)] == [120, 127, 134, 141]


def test_texts_are_what_the_tokeniser_decodes(mixed, place):
    route(mixed, "--tokens", 65536)
    tokenizer = Tokenizer.from_file(str(place / "data" / "tokenizer.json"))
    seen = set()
    for user in range(4):
        found = probe(mixed, f"user_{user}")
        for token, text in zip(found["ids"].values.tolist(), found["text"].values.tolist()):
            expected = tokenizer.decode([token], skip_special_tokens=False)
            assert text == expected.replace("\x00", "\ufffd"), token
            seen.add(expected)
    assert len(seen) > 100 and {"\ufffd", " ", "\n"} <= seen


# Own texts --------------------------------------------------------------------------------------------------


@pytest.fixture
def probes(place, tmp_path) -> Path:
    """What data_prep makes of TEXT."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    text = f"out of domain={tmp_path / 'text.txt'}"
    output = tmp_path / "probes.json"
    made("probes", "--tokeniser", place / "data" / "tokenizer.json", "--text", text, "--output", output)
    return output


def test_own_text_is_encoded_whole(probes, place):
    content = json.loads(probes.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(place / "data" / "tokenizer.json"))
    (found,) = content["probes"]
    assert content["vocabulary"] == VOCABULARY and found["name"] == "out of domain"
    assert tokenizer.decode(found["ids"], skip_special_tokens=False) == TEXT.rstrip("\n")
    assert tokenizer.token_to_id("<|endoftext|>") not in found["ids"]  # a text cannot end itself
    assert found["text"] == [tokenizer.decode([token]) for token in found["ids"]]


def test_own_text_through_the_models(mixed, probes, place):
    (expected,) = json.loads(probes.read_text(encoding="utf-8"))["probes"]
    route(mixed, "--probes", probes, "--data", mixed.parent / "absent")  # no data set is needed
    found = probe(mixed, "out of domain")
    assert found.attrs["owner"] == "" and found["ids"].values.tolist() == expected["ids"]
    assert found["text"].values.tolist() == [text.replace("\x00", "\ufffd") for text in expected["text"]]
    for user in (0, 1):
        model = stored_model(mixed / "results.h5", place / "base", user)
        gates = reference_gates(model, expected["ids"], CONTEXTS[user])
        np.testing.assert_allclose(found["score"].values[user, ..., : EXPERTS[user]], gates, atol=2e-5)
    route(mixed)  # beside it, not in its place
    with h5py.File(mixed / "results.h5") as file:
        assert sorted(file["tokens"]) == ["out of domain", "user_0", "user_1", "user_2", "user_3"]


def test_own_texts_that_cannot_be(place, tmp_path):
    tokeniser = place / "data" / "tokenizer.json"
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    (tmp_path / "long.txt").write_text("é " * 40_000, encoding="utf-8")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    good, output = f"a={tmp_path / 'text.txt'}", tmp_path / "probes.json"
    cases = [
        (["--text", "a"], output, "NAME=FILE is expected"),
        (["--text", f"a/b={tmp_path / 'text.txt'}"], output, "without '/'"),
        (["--text", f"..={tmp_path / 'text.txt'}"], output, "without '/'"),
        (["--text", good, "--text", good], output, "two texts of this name"),
        (["--text", f"a={tmp_path / 'absent.txt'}"], output, "absent.txt: no such file"),
        (["--text", f"a={tmp_path / 'empty.txt'}"], output, "empty.txt: 0 tokens"),
        (["--text", f"a={tmp_path / 'long.txt'}"], output, "1 to 65,536 are expected"),
        (["--text", good], tmp_path / "other.json", "other.json: is there already"),
    ]
    for words, file, message in cases:
        assert message in refused("probes", "--tokeniser", tokeniser, *words, "--output", file)
    assert "no such file" in refused(
        "probes", "--tokeniser", tmp_path / "absent", "--text", good, "--output", output
    )
    assert not output.exists() and not list(tmp_path.glob(".*"))


# Analysis ---------------------------------------------------------------------------------------------------


def test_paper_figures_are_made_of_it(place, tmp_path):
    folder = tmp_path / "runs" / "slimpajama" / "one-seed5"
    shutil.copytree(trained(place, "1g1s", "comigs-1g1s", "--context-tokens", 12), folder)
    route(folder, "--tokens", 30)
    row = {"item": "figure13", "row": "CoMiGS - 1G1S", "section": "", "alternative": {}}
    entry = {
        "folder": "slimpajama/one-seed5",
        "dataset": "slimpajama",
        "seed": 5,
        "options": {"method": "comigs-1g1s"},
        "status": "done",
        "seconds": 1.0,
        "items": [row],
    }
    content = {"format": "comigs-sweep-index", "format_version": 1, "scale": "tiny", "runs": [entry]}
    index = tmp_path / "runs" / "index.json"
    index.write_text(json.dumps(content), encoding="utf-8")
    for item in ("figure13", "figure5"):
        command = [sys.executable, "-m", "analysis", item, "--index", index, "--output", tmp_path / "paper"]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "paper" / f"{item}.html").read_text(encoding="utf-8")
        score = probe(folder, "user_1")["score"].values[1, 0, 0]
        assert f"generalist {score[0]:.2f}, specialist {score[1]:.2f}" in page
        assert (tmp_path / "paper" / f"{item}.png").stat().st_size > 10_000


# Bad input --------------------------------------------------------------------------------------------------


def assert_refused(folder: Path, *words: str, arguments: Sequence[object] = ()) -> None:
    """Exit code 2, a message of one line, and the results as they were."""
    path = folder / "results.h5"
    content = path.read_bytes()
    done = route(folder, *arguments, code=2)
    assert len(done.errors.splitlines()) == 1 and not done.output, done.errors
    for word in words:
        assert word in done.errors, done.errors
    assert path.read_bytes() == content and [entry.name for entry in folder.iterdir()] == ["results.h5"]


def test_other_base_and_other_data_are_refused(mixed, place, tmp_path):
    other = gpt2_folder(tmp_path / "other", vocabulary=VOCABULARY, seed=1)
    assert_refused(mixed, "other: not the base model of", "--model", arguments=["--model", other])
    assert_refused(mixed, "absent: no such folder", arguments=["--model", tmp_path / "absent"])
    data = data_set(tmp_path / "data", vocabulary=VOCABULARY, lengths={"test": 90})
    assert_refused(mixed, "data: not the data set of", "--data", arguments=["--data", data])
    assert_refused(mixed, "absent: no such data-set", arguments=["--data", tmp_path / "absent"])
    shutil.copytree(place / "base", tmp_path / "moved")
    route(mixed, "--model", tmp_path / "moved")


def test_runs_without_what_is_needed_are_refused(mixed, place, tmp_path):
    shutil.copytree(trained(place, "pretrained", "pretrained", "--context-tokens", 12), tmp_path / "none")
    assert_refused(tmp_path / "none", "'pretrained' has no experts, so there is nothing to route")
    with h5py.File(mixed / "results.h5", "r+") as file:
        del file[f"attention/weights/{ROUNDS}/user_1/layer_0/attn.c_attn_A"]
    assert_refused(mixed, f"'attention/weights/{ROUNDS}/user_1/layer_0/attn.c_attn_A' is missing")
    with h5py.File(mixed / "results.h5", "r+") as file:
        text = file.attrs["configuration"]
        file.attrs["configuration"] = text.replace(f"rounds = {ROUNDS}", "rounds = 7")
    assert_refused(mixed, f"round {ROUNDS} of 7 is the last one there")
    (mixed / "results.h5").write_text("this is text")
    assert_refused(mixed, "results.h5: not the results of a run")


def test_other_texts_are_refused(mixed, probes):
    content = json.loads(probes.read_text(encoding="utf-8"))

    def refuse(message: str, **changes: object) -> None:
        probes.write_text(json.dumps(content | changes), encoding="utf-8")
        assert_refused(mixed, str(probes), message, arguments=["--probes", probes])

    refuse("a tokeniser of 301 entries", vocabulary=VOCABULARY + 1)
    refuse("'probes[0].ids[0]'", probes=[{"name": "a", "ids": [VOCABULARY], "text": ["b"]}])
    refuse("'probes[0].name'", probes=[{"name": "a/b", "ids": [1], "text": ["b"]}])
    probes.write_text("{", encoding="utf-8")
    assert_refused(mixed, "not valid JSON", arguments=["--probes", probes])


def test_command_lines_that_cannot_be(mixed, tmp_path):
    assert_refused(mixed, "unknown option '--token'; did you mean '--tokens'?", arguments=["--token", 3])
    assert_refused(mixed, "--tokens: found '0'", arguments=["--tokens", 0])
    assert "found no run" in route(code=2).errors
    assert "absent: no such file" in route(tmp_path / "absent", code=2).errors
    two = comigs("route", mixed, ranks=2)
    assert two.code == 2 and "2 MPI ranks: 'comigs route' is one process" in two.errors
    shown = run([executable(), "route", "--help"])
    assert shown.code == 0 and shown.output.startswith("Usage: comigs route RUN")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_ends_it_at_once_and_leaves_the_file(number, mixed):
    before = (mixed / "results.h5").read_bytes()
    check_it_ends_at_once(number, [executable(), "route", mixed])
    assert (mixed / "results.h5").read_bytes() == before


def test_a_step_of_slurm_without_pmi_is_no_obstacle(mixed):
    """`srun --pty bash`: Open MPI would take these for a launch without PMI, and give up."""
    step = ["SLURM_JOBID=7", "SLURM_JOB_ID=7", "SLURM_STEP_ID=0", "SLURM_STEP_NUM_TASKS=1", "SLURM_PROCID=0"]
    done = run(["env", *step, f"SLURM_NODELIST={socket.gethostname()}", executable(), "route", mixed])
    assert done.code == 0, done.errors
