"""Bad input ends every rank, soon, with exit code 2 and one message of what is wrong; no results are left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.tiny import USERS, Done, alone, comigs, data_set, gpt2_folder

SECONDS = 60  # to be gone in


@dataclass
class Job:
    """A job that would run, for a test to spoil."""

    folder: Path
    ranks: int
    options: dict[str, object] = field(default_factory=dict)
    words: list[object] = field(default_factory=list)  # before the options

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def model(self) -> Path:
        return self.folder / "base"

    @property
    def results(self) -> Path:
        return self.folder / "out" / "results.h5"

    def run(self, ranks: int | None = None) -> Done:
        words = ("train", *self.words, *(word for option in self.options.items() for word in option))
        if (ranks or self.ranks) == 1:
            return alone(*words, seconds=SECONDS)
        return comigs(*words, ranks=ranks or self.ranks, seconds=SECONDS)


def make_job(folder: Path, base: Path, ranks: int) -> Job:
    job = Job(folder, ranks)
    data_set(job.data, users=USERS[:ranks])
    shutil.copytree(base, job.model)
    job.options = {
        "--data": job.data,
        "--model": job.model,
        "--output": folder / "out",
        "--method": "comigs-1g1s",
    }
    job.options |= {"--rounds": 1, "--local-steps": 2, "--batch-sequences": 2, "--context-tokens": 12}
    job.options |= {"--lora-rank": 2, "--device": "cpu", "--threads": 1}
    return job


@pytest.fixture(params=[1, 4], ids=["1 rank", "4 ranks"])
def job(request, tmp_path, tiny_base) -> Job:
    return make_job(tmp_path, tiny_base, request.param)


def own_lines(done: Done) -> list[str]:
    """The lines on stderr but for the note that ranks outnumber cores."""
    return [line for line in done.errors.splitlines() if line.strip() and "share the cores" not in line]


def assert_refused(done: Done, *words: object, code: int = 2, lines: int = 1) -> None:
    assert done.code == code, done.output + done.errors
    found = own_lines(done)
    assert len(found) == lines and found[0].startswith("comigs: "), done.errors
    for word in words:
        assert str(word) in done.errors
    assert "MPI_ABORT" not in done.epilogue  # all ranks left of their own accord


def test_the_job_that_is_spoilt_below_runs(job):
    done = job.run()
    assert done.code == 0 and own_lines(done) == [], done.errors
    assert job.results.exists()


# One thing wrong --------------------------------------------------------------------------------------------


def unknown_option(job: Job) -> list[object]:
    job.options["--local-stesp"] = 3
    return ["unknown option '--local-stesp'", "did you mean '--local-steps'?"]


def unknown_key(job: Job) -> list[object]:
    job_file = job.folder / "job.ini"
    job_file.write_text("[run]\nseed = 1\n\n[user]\nexperst = 2\n", encoding="utf-8")
    job.words.append(job_file)
    return [f"{job_file}:5", "unknown option 'experst' in [user]", "did you mean 'experts'?"]


def missing_job_file(job: Job) -> list[object]:
    job.words.append(job.folder / "absent.ini")
    return [f"cannot read the job file '{job.folder}/absent.ini'", "No such file"]


def value_out_of_range(job: Job) -> list[object]:
    job.options["--batch-sequences"] = 0
    return ["--batch-sequences", "found '0'", "from 1"]


def memory_that_nothing_fits_in(job: Job) -> list[object]:
    job.options[f"--user.{job.ranks - 1}.memory"] = 1e-5
    return [f"[user.{job.ranks - 1}] memory = 1e-05 GiB", "one sequence of 12 tokens takes 0.000"]


def memory_that_nobody_has(job: Job) -> list[object]:
    job.options["--memory"] = 1e-5
    return ["[user.0] memory = 1e-05 GiB", "one sequence of 12 tokens takes 0.000"]


def communication_without_sums(job: Job) -> list[object]:
    job.options |= {"--method": "local", "--communication": "bf16"}
    return ["[run] communication = bf16", "'local' sends nothing"]


def missing_data_folder(job: Job) -> list[object]:
    shutil.rmtree(job.data)
    return [job.data, "no such data-set folder", "python -m data_prep"]


def damaged_manifest(job: Job) -> list[object]:
    manifest = job.data / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:200])
    return [f"{manifest}: not valid JSON"]


def incomplete_manifest(job: Job) -> list[object]:
    manifest = job.data / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    del content["users"][-1]["splits"]["test"]
    manifest.write_text(json.dumps(content), encoding="utf-8")
    return [manifest, f"users[{job.ranks - 1}].splits.test"]


def missing_model_folder(job: Job) -> list[object]:
    shutil.rmtree(job.model)
    return [f"{job.model}/config.json", "Hugging Face folder"]


def truncated_weights(job: Job) -> list[object]:
    weights = job.model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return [weights, "bytes"]


def missing_weights(job: Job) -> list[object]:
    (job.model / "model.safetensors").unlink()
    return [f"{job.model}: there is neither model.safetensors nor model.safetensors.index.json"]


def other_vocabulary(job: Job) -> list[object]:
    gpt2_folder(job.model, vocabulary=400)
    (job.model / "tokenizer.json").unlink()  # which would show that the tokens are its own
    return [job.model, "a vocabulary of 400", job.data, "97 entries"]


def token_out_of_range_for_one_user(job: Job) -> list[object]:
    user = job.ranks // 2
    file = job.data / f"user{user}/train.bin"
    tokens = np.fromfile(file, dtype="<u2")
    tokens[33] = 97
    tokens.tofile(file)
    who = f"rank {user} (user {USERS[user]} on " if job.ranks > 1 else ""
    return [who, f"{file}: token 97 at position 33", "vocabulary of 97"]


def truncated_shard(job: Job) -> list[object]:
    file = job.data / f"user{job.ranks - 1}/test.bin"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-2])
    return [file, f"{size - 2} bytes", f"{size // 2} tokens"]


def short_validation_split(job: Job) -> list[object]:
    data_set(job.data, users=USERS[: job.ranks], lengths={"validation": 9})
    return [job.data / "user0/validation.bin", "9 tokens", "at least 13", USERS[0], "context_tokens = 12"]


def unknown_method(job: Job) -> list[object]:
    job.options["--method"] = "comigs-1g1z"
    return ["unknown method 'comigs-1g1z'", "did you mean 'comigs-1g1s'?", "known: pretrained, centralized"]


def experts_that_the_method_fixes(job: Job) -> list[object]:
    job.options["--experts"] = 4
    return [
        "[user.0] experts = 4",
        "method 'comigs-1g1s' has 2 for every user",
        "'comigs-1gxs' takes any number",
    ]


def experts_that_hetlora_does_not_have(job: Job) -> list[object]:
    job.options |= {"--method": "hetlora", "--experts": 2}
    return ["[user.0] experts = 2", "method 'hetlora' has 1 for every user"]


def long_context(job: Job) -> list[object]:
    job.options["--context-tokens"] = 17
    return ["context_tokens = 17", job.model, "16 positions"]


SPOILT: list[Callable[[Job], list[object]]] = [
    unknown_option,
    unknown_key,
    missing_job_file,
    value_out_of_range,
    memory_that_nothing_fits_in,
    memory_that_nobody_has,
    communication_without_sums,
    missing_data_folder,
    damaged_manifest,
    incomplete_manifest,
    missing_model_folder,
    truncated_weights,
    missing_weights,
    other_vocabulary,
    token_out_of_range_for_one_user,
    truncated_shard,
    short_validation_split,
    unknown_method,
    experts_that_the_method_fixes,
    experts_that_hetlora_does_not_have,
    long_context,
]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.replace("_", " "))
def test_one_message_and_exit_code_2(job, spoil):
    words = spoil(job)
    assert_refused(job.run(), *words)
    assert not job.results.exists()


def test_mpirun_passes_on_the_exit_code_of_one_rank(tmp_path, tiny_base):
    job = make_job(tmp_path, tiny_base, 1)
    words = unknown_option(job)
    given = [word for option in job.options.items() for word in option]
    assert_refused(comigs("train", *given, ranks=1, seconds=SECONDS), *words)


# More than one, and what depends on the number of ranks -----------------------------------------------------


def test_two_problems_are_reported_together(job):
    job.options |= {"--router-evry": 3, "--lora-rank": 0}
    done = job.run()
    assert_refused(done, "2 problems", "unknown option '--router-evry'", "--lora-rank", "found '0'", lines=3)
    assert not job.results.exists()


def test_existing_results_are_kept(job):
    job.results.parent.mkdir()
    job.results.write_bytes(b"precious")
    assert_refused(job.run(), job.results, "there already")
    assert job.results.read_bytes() == b"precious"
    assert [entry.name for entry in job.results.parent.iterdir()] == ["results.h5"]


@pytest.mark.parametrize("ranks", [1, 3, 5])
def test_ranks_must_be_users(tmp_path, tiny_base, ranks):
    job = make_job(tmp_path, tiny_base, 4)
    expected = f"{ranks} MPI rank{'' if ranks == 1 else 's'} for the 4 users of data set 'tiny'"
    assert_refused(job.run(ranks), expected, ", ".join(USERS), "mpirun -n 4")
    assert not job.results.exists()


def test_ranks_of_lora_must_agree_where_factors_are_averaged(tmp_path, tiny_base):
    job = make_job(tmp_path, tiny_base, 4)
    job.options["--lora-rank"] = "2,2,4,2"
    assert_refused(
        job.run(), "method 'comigs-1g1s' averages LoRA factors", "[user.2] lora_rank = 4", "user 0 has 2"
    )


def test_numbers_that_are_not_finite_end_the_run(job):
    """Exit code 1, and the rounds done before are kept."""
    job.options |= {"--expert-learning-rate": 1e30, "--rounds": 3}
    done = job.run()
    assert_refused(done, "round 1", "not finite", "expert_learning_rate", code=1)
    with h5py.File(job.results) as file:
        assert file["round"][()].tolist() == [0]
        assert np.isfinite(file["perplexity/test"][0]).all()
    assert [entry.name for entry in job.results.parent.iterdir()] == ["results.h5"]


def test_numbers_of_one_user_that_are_not_finite_end_all(tmp_path, tiny_base):
    """One user's local steps fail while the others wait for the mean."""
    job = make_job(tmp_path, tiny_base, 4)
    # A LoRA scale that makes this user's activations overflow; methods that average insist on one scale.
    job.options |= {"--method": "local", "--user.2.lora-alpha": 1e20}
    assert_refused(job.run(), "rank 2 (user", "round 1", "not finite", code=1)
    with h5py.File(job.results) as file:
        assert file["round"][()].tolist() == [0]
