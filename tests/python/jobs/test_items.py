"""The item files: those that ship say what the paper says, and a mistake in one is told in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.paper.prompt_weights import FIGURES
from console.mistakes import JobError, in_natural_order
from console.program import methods
from jobs.items import Case, Item, cases, item_files, read_item
from jobs.runs import Run, run_of
from jobs.scale import DataSet, data_set, data_sets
from tests.helpers.built_program import built_program, run_program

ROOT = Path(__file__).resolve().parents[3]
PAPER = ("ag_news", "multilingual", "slimpajama")
PRUNED = {
    "75": 0.75, "85": 0.85, "90": 0.9, "2of4": (2, 4), "4of8": (4, 8), "3of4": (3, 4), "7of8": (7, 8),
}  # fmt: skip
BASES = ("instructions", *(f"instructions-{name}" for name in PRUNED))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def shipped() -> dict[str, Item]:
    files = item_files()
    return {name: read_item(name, files, PAPER + BASES) for name in files}


def shipped_cases(item: str, name: str) -> list[Case]:
    return cases(shipped()[item], name)


def rows(item: str, name: str) -> list[str]:
    return list(dict.fromkeys(case.row for case in shipped_cases(item, name)))


def read(scale: str, name: str) -> DataSet:
    return data_set(scale, name, {}, built_program("job_settings"))


def runs(scale: str) -> list[Run]:
    items = shipped().values()
    there = {name: read(scale, name) for name in data_sets(scale)}
    return [run_of(case, there[name], 0) for item in items for name in there for case in cases(item, name)]


def test_every_item_of_the_paper_that_needs_runs_is_there() -> None:
    figures = [f"figure{number}" for number in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16)]
    tables = ["table1", "table2", "table4", "table5"]
    published = [f"as-published-{name}" for name in tables]
    mop = ["mop-table", "mop-ablation", *(f"mop-figure{number}" for number in range(1, 13))]
    assert set(shipped()) == {*tables, *published, "validation-data", *figures, *mop}
    assert "quickstart" not in shipped()


@pytest.mark.parametrize("scale", ["paper", "small"])
def test_comigs_knows_every_option_and_method(scale: str) -> None:
    options = run_program("comigs", "train", "--help")
    known = methods(built_program("comigs"))
    for run in runs(scale):
        assert run.options["method"] in known
        for name in [*run.options, *run.data_set.settings]:
            flag = "--" + name.replace("_", "-")
            assert re.search(rf"^  {flag} ", options, re.M), f"{run.data_set.job_file}: {flag}"


def test_what_the_common_job_file_says_is_comigs_default() -> None:
    options = run_program("comigs", "train", "--help")
    for name, value in {"router-every": "30", "router-steps": "10", "load-balancing": "generalist"}.items():
        assert read("paper", "ag_news").settings[name.replace("-", "_")] == value
        assert re.search(rf"^  --{name} .*\[{value}\]$", options, re.M)


def test_rounds_and_training_tokens_are_the_papers() -> None:
    settings = {name: read("paper", name).settings for name in PAPER}
    assert {name: settings[name].get("rounds", "20") for name in PAPER} == {
        "ag_news": "20", "multilingual": "20", "slimpajama": "50",
    }  # fmt: skip
    assert settings["ag_news"]["train_tokens"] == "761924,756719,814131,771460"
    assert settings["multilingual"]["train_tokens"] == "557662,407498,556796,451584"


def test_table_4_has_the_papers_rows_and_gaps() -> None:
    assert len(rows("table4", "multilingual")) == 14
    missing = set(rows("table4", "slimpajama")) - set(rows("table4", "ag_news"))
    assert missing == {"Local-MoE - tr", "FedAvg-MoE - tr", "1G1S - tr"}
    assert len({case.section for case in shipped_cases("table4", "multilingual")}) == 4


@pytest.mark.parametrize("table", ["table1", "table2", "table4", "table5"])
def test_as_published_is_the_table_with_other_settings(table: str) -> None:
    for name in PAPER:
        mine = rows(table, name)
        assert [row for row in rows(f"as-published-{table}", name) if row in mine] == mine
    options = {case.row: case.options for case in shipped_cases("as-published-table4", "ag_news")}
    assert options["CoMiGS - 2S"] == {
        "method": "comigs-2s", "attention_sharing": "own", "load_balancing_strength": "published",
        "carry_phase_gradients": "true",
    }  # fmt: skip
    ranks = {name: one.get("attention_rank") for name, one in options.items() if "lora_rank" in one}
    assert ranks == {"FFA-LoRA": "8", "FedSA-LoRA": "8"}
    for case in shipped_cases("as-published-table2", "ag_news"):
        assert case.options["method"] == "comigs-1gxs" or case.options["attention_rank"] == "8"


def test_table_1_is_part_of_table_4() -> None:
    there = [case.options for case in shipped_cases("table4", "ag_news")]
    assert all(case.options in there and case.section == "" for case in shipped_cases("table1", "ag_news"))
    assert rows("table1", "ag_news") == [
        "Pretrained", "Centralized", "Local", "FedAvg", "PCL", "CoMiGS - 2S", "CoMiGS - 2G", "CoMiGS - 1G1S",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("ag_news", ["4,2,2,2", "2,4,4,4"]),
        ("multilingual", ["2,2,4,4", "4,4,2,2"]),
        ("slimpajama", ["2,4,4,2", "4,2,2,4"]),
    ],
)
def test_table_2_matches_active_and_full_parameters(name: str, patterns: list[str]) -> None:
    found = shipped_cases("table2", name)
    assert [case.options["experts"] for case in found if case.row.startswith("Ours")] == patterns
    for pattern in patterns:
        ranks = ",".join(str(8 * int(experts)) for experts in pattern.split(","))
        full = [case.options for case in found if case.row.endswith(f"full ({pattern})")]
        assert [options["method"] for options in full] == ["hetlora"] * 3 + ["flexlora"]
        assert {options["lora_rank"] for options in full} == {ranks}
    active = [case.options for case in found if case.row.endswith("active")]
    assert {options["lora_rank"] for options in active} == {"16"}
    assert [options.get("rank_regulariser") for options in active] == ["5e-2", "5e-3", "5e-4", None]


def test_table_5_shares_what_other_tables_run() -> None:
    multilingual = read("paper", "multilingual")
    folders = [run_of(case, multilingual, 0).folder.name for case in shipped_cases("table5", "multilingual")]
    homo = [f"comigs-1g1s{end}-seed0" for end in ("-load-balancing-none", "-load-balancing-uniform", "")]
    assert folders == homo + [name.replace("1g1s", "1gxs-experts-2,2,4,4") for name in homo]


@pytest.mark.parametrize("number", [6, 7, 8])
def test_figures_10_to_12_are_6_to_8_with_less_data_for_two_users(number: int) -> None:
    first = [case.options for case in shipped_cases(f"figure{number}", "multilingual")]
    second = [case.options for case in shipped_cases(f"figure{number + 4}", "slimpajama")]
    assert second == [{**options, "train_share": "0.25,0.25,1,1"} for options in first]
    assert len(first) == 3


def test_figures_of_mop_are_rows_of_its_table_on_one_base() -> None:
    for number, (_, base) in FIGURES.items():
        item = shipped()[f"mop-figure{number}"]
        assert item.datasets == (base,)
        (case,) = cases(item, base)
        assert case.options["method"] == ("mop-centralized" if number <= 6 else "mop")
        assert case.options in [one.options for one in shipped_cases("mop-table", base)]
    assert {base for _, base in FIGURES.values()} == set(BASES[1:])


def test_all_rows_of_mop_s_table_have_as_many_prompts() -> None:
    found = {case.row: case.options for case in shipped_cases("mop-table", "instructions")}
    prompts = {
        row: int(options.get("experts", "2" if options["method"] == "mop-1g1s" else "1"))
        * int(options.get("prompt_tokens", "10"))
        for row, options in found.items()
        if "prompt" in options["method"] or "mop" in options["method"]
    }
    assert len(prompts) == 11 and set(prompts.values()) == {80}
    plain = [options for options in found.values() if "prompt" in options["method"]]
    assert all(options["prompt_layer"] == "0" for options in plain) and len(plain) == 3


@pytest.mark.parametrize("scale", ["paper", "small", "real"])
def test_the_bases_of_mop_are_pruned_as_its_figures_say(scale: str) -> None:
    dense = read(scale, "instructions")
    for name, pattern in PRUNED.items():
        found = read(scale, f"instructions-{name}")
        words = (
            ["--sparsity", f"{pattern:g}"]
            if isinstance(pattern, float)
            else ["--pattern", f"zeros={pattern[0]},of={pattern[1]}"]
        )
        assert found.pruning is not None and found.pruning.base == dense.base != found.base
        assert [*found.pruning.arguments] == ["--method", "sparsegpt", *words]
        assert (found.data, found.job_file) == (dense.data, dense.job_file)
        step, command = found.preparation("python", "comigs")[-1]
        assert step == "pruned" and command[:2] == ["comigs", "prune"]
        assert found.preparation("python", "comigs")[:-1] == dense.preparation("python", "comigs")
        run = run_of(shipped_cases("mop-table", found.name)[0], found, 0)
        assert run.arguments()[1:3] == ["--model", str(found.base)]
        assert run.folder.parent.name == f"instructions-{name}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("of = own\n", "[pruned] has of; expected of and prune, or data"),
        ("of = own\nprune = --sparsity 'a\n", "[pruned] prune: no closing quotation"),
        ("of = pruned\nprune = x\n", "unknown data set of its own, for [pruned]"),
        ("of = own\nprune = x\nbase = y\n", "[pruned] has of, prune, base; expected of and prune"),
    ],
)
def test_mistakes_in_how_a_base_is_pruned(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("jobs/datasets")
    folder.mkdir(parents=True)
    (folder / "prepare.ini").write_text(f"[own]\ndata = text\n[pruned]\n{text}")
    (folder / "own.ini").write_text("[data]\nfolder = d\n[model]\nfolder = m\n")
    with pytest.raises(JobError, match=re.escape(told)):
        read("paper", "pruned")


def test_names_are_in_natural_order() -> None:
    assert in_natural_order(["table1", "figure10", "figure9"]) == ["figure9", "figure10", "table1"]


HEAD = "[item]\ndatasets = alpha, beta\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD, "no row, expected [row.NAME] sections or 'use' and 'rows'"),
        (HEAD + "[row.A]\n", "[row.A] has no 'method'"),
        (HEAD + "[row.A]\nmethod =\n", "[row.A] has no 'method'"),
        (HEAD + "[row.]\nmethod = a\n", "unknown section [row.], expected [item] or [row.NAME]"),
        (HEAD + "[raw.A]\nmethod = a\n", "unknown section [raw.A]"),
        (HEAD + "[row.A]\nmethod = a\n[row.A]\nmethod = b\n", "section [row.A] stands there twice"),
        (HEAD + "[row.A]\nmethod = a\nmethod = b\n", "'method' stands twice in [row.A]"),
        (HEAD + "[row.A]\nmethod = a\n[row.B]\nmethod = a\n", "rows 'A' and 'B' are the same run on alpha"),
        (HEAD + "[row.A]\nmethod = a\nx = 1 | | 2\n", "x: found '1 | | 2', expected a value, or different"),
        (HEAD + "[row.A]\nmethod = a\nx = 1 | 1\n", "x: found '1 | 1', expected a value, or different"),
        (HEAD + "[row.A]\nmethod = a\nx =\n", "x: found '', expected a value"),
        (HEAD + "[row.A]\nmethod = a\nx = 1\n  y = 2\n", "[row.A] x: found '1' and an indented line 'y = 2'"),
        (HEAD + "title = a\n  b\n[row.A]\nmethod = a\n", "[item] title: found 'a' and an indented line 'b'"),
        (HEAD + "[row.A]\nmethod = a\ntop-k = 1\ntop_k = 2\n", "[row.A] option 'top_k' stands there twice"),
        (HEAD + "[row.A]\nmethod = a\nname = b\n", "option 'method' stands there twice, once as 'name'"),
        (HEAD + "[row.A]\nmethod = a\nseed = 1\n", "'seed' is what jobs.sweep gives to every run"),
        (HEAD + "[row.A]\nmethod = a\ndatasets = alfa\n", "unknown data set 'alfa'; did you mean 'alpha'?"),
        (HEAD + "[row.A]\nmethod = a\ndatasets = alpha,\n", "datasets = alpha,: expected names separated"),
        (HEAD.replace("beta", "alpha"), "datasets = alpha, alpha: 'alpha' stands there twice, expected once"),
        (HEAD.replace("beta", "bete"), "unknown data set 'bete'; did you mean 'beta'?"),
        (HEAD + "dataset = beta\n", "unknown 'dataset' in [item]"),
        (HEAD + "use = good\n", "'use' (an item) and 'rows' (its rows, one a line) go together"),
        (HEAD + "use = goood\nrows = A\n", "unknown item 'goood'; did you mean 'good'?"),
        (HEAD + "use = good\nrows = Aaa\n", "use = good: unknown row 'Aaa'"),
        (HEAD + "use = this\nrows = A\n", "use = this: expected an item that has all its rows itself"),
        (HEAD + "use = good\nrows = A\n[row.A]\nmethod = c\n", "row 'A' stands there twice"),
        ("[item]\n[row.A]\nmethod = a\n", "[item] datasets = : expected names"),
        ("method = a\n", "found 'method = a' before any [section]"),
        (HEAD + "[row.A]\nmethod\n", "found 'method\\n', expected [section] or name = value"),
    ],
)
def test_mistakes_in_an_item_file(text: str, told: str, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.ini" for name in ("this", "good")}
    files["this"].write_text(text)
    files["good"].write_text(HEAD + "[row.A]\nmethod = a\n")
    with pytest.raises(JobError) as caught:
        read_item("this", files, ("alpha", "beta"))
    assert str(caught.value).startswith(str(files["this"])) and told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_another_item_come_without_headings_and_on_its_data_sets(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.ini" for name in ("this", "good")}
    files["good"].write_text(
        HEAD + "[row.A]\nmethod = a\nsection = x\n[row.B]\ndatasets = beta\nmethod = b\n"
    )
    files["this"].write_text(HEAD + "use = good\nrows =\n    B\n    A\n[row.C]\nsection = y\nmethod = c\n")
    item = read_item("this", files, ("alpha", "beta"))
    assert [(row.name, row.section, row.datasets) for row in item.rows] == [
        ("B", "", ("beta",)), ("A", "", ("alpha", "beta")), ("C", "y", ("alpha", "beta")),
    ]  # fmt: skip
    assert [case.row for case in cases(item, "alpha")] == ["A", "C"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[job]\ninherit = own.ini\n", "inherits itself"),
        ("[job]\ninherit = none.ini\n", "cannot read the job file 'jobs/datasets/none.ini': No such file"),
        ("[data]\nfolder = d\n", "no 'folder' in [model]"),
        ("[job]\ninherit =\n", "own.ini:2: [job] inherit: found nothing, expected a job file"),
        ("[job]\ninherits = x.ini\n", "own.ini:2: unknown option 'inherits' in [job], which knows 'inherit'"),
        ("[user]\nx = 1\n  y = 2\n", "own.ini:2: unknown option 'x' in [user]"),
        ("[user]\ntop_k = 1\n  y\n", "own.ini:3: found 'y', expected [section] or name = value"),
        ("[user]\ntop-k = 1\ntop_k = 2\n", "own.ini:3: [user] top_k: given more than once, expected once"),
        (
            "[method]\nname = a\nmethod = b\n",
            "own.ini:3: unknown option 'method' in [method]; did you mean 'name'",
        ),
    ],
)
def test_mistakes_in_a_job_file(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("jobs/datasets")
    folder.mkdir(parents=True)
    (folder / "prepare.ini").write_text("[own]\ndata = text\n")
    (folder / "own.ini").write_text(text)
    with pytest.raises(JobError, match=re.escape(told)):
        read("paper", "own")


def test_a_job_file_says_more_than_what_it_inherits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("jobs/datasets/tiny")
    folder.mkdir(parents=True)
    (folder / "prepare.ini").write_text("[own]\ndata = text --user 'A=a b.txt'\nbase = own-base.ini\n")
    (folder.parent / "own.ini").write_text("[data]\nfolder = d\n[model]\nfolder = m\n[user]\ntop-k = 2\n")
    (folder / "own.ini").write_text("[job]\ninherit = ../own.ini\n[model]\nfolder = n\n[user.1]\ntop_k = 1\n")
    found = read("tiny", "own")
    assert found.settings == {"data": "d", "model": "n", "top_k": "2", "user.1.top_k": "1"}
    assert found.data_arguments == ("text", "--user", "A=a b.txt")
    assert found.base_from == folder / "own-base.ini"
    assert [what for what, _ in found.preparation("python", "comigs")] == ["data", "base"]


def test_a_base_from_elsewhere_comes_before_the_data_that_its_tokeniser_makes() -> None:
    first, second = read("real", "multilingual").preparation("python", "comigs")
    assert first == ("base", "python -m data_prep base smollm2-135m --output data/real/smollm2-135m".split())
    assert second[0] == "data" and "data/real/smollm2-135m/tokenizer.json" in second[1]


def test_how_data_is_made_must_be_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("jobs/datasets")
    folder.mkdir(parents=True)
    (folder / "prepare.ini").write_text("[own]\ndata = text --user 'A=a\n")
    (folder / "own.ini").write_text("[data]\nfolder = d\n[model]\nfolder = m\n")
    with pytest.raises(JobError, match=r"prepare.ini: \[own\] data: no closing quotation, expected words"):
        read("paper", "own")


def test_an_option_goes_unsaid_only_where_the_job_file_says_it_for_all_users(tmp_path: Path) -> None:
    settings = {"top_k": "2", "rounds": "5", "user.1.top_k": "1", "user.0.experts": "4"}
    own = DataSet("own", "paper", tmp_path / "own.ini", settings, (), None)
    row = {"method": "a", "top_k": "2", "rounds": "5", "user.0.experts": "4"}
    options = run_of(Case("item", "row", "", {}, row), own, 0).options
    assert options == {"method": "a", "top_k": "2", "user.0.experts": "4"}
