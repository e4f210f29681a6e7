"""What the report's figures and tables show of runs, against numbers made for it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.draw import curves, formats, phases, routing, style
from analysis.measure import costs
from analysis.measure.groups import Group, evaluated_rounds, group_runs
from analysis.measure.perplexity import perplexities
from analysis.page.tables import final_perplexities
from analysis.read.results import open_run
from tests.helpers.report_page import report
from tests.helpers.results_fixture import default_perplexity, write_results

# Numbers ----------------------------------------------------------------------------------------------------


def test_single_run_in_figures(tmp_path):
    write_results(tmp_path / "run", before={"test": [30.0, 25.0], "validation": [26.0, 27.0]})
    page = report(tmp_path, tmp_path / "run")
    # Round 3 of 100 / (round + 1) + user, round 0 beside it; means over users.
    assert page.line("before training") == ["before training", "0", "100.00", "101.00", "100.50"]
    assert page.line("comigs-1g1s") == ["comigs-1g1s", "3", "25.00", "26.00", "25.50"]
    assert ["comigs-1g1s", "3", "26.00", "27.00", "26.50"] in page.lines  # validation
    assert ["comigs-1g1s", "3", "24.00", "25.00", "24.50"] in page.lines  # training
    minus = "\N{MINUS SIGN}"
    after = ["German", "30.00", "25.00", f"{minus}16.67 %", "26.00", "26.00", "0.00 %"]
    assert page.line("German", "30.00") == after
    assert page.line("mean over users") == [
        "mean over users",
        "27.50",
        "25.50",
        f"{minus}7.27 %",
        "26.50",
        "26.50",
        "0.00 %",
    ]
    costs_line = ["Dutch", "1 generalist + 1 specialist", "8", "10,000", "2,000", "3,000"]
    assert page.line("Dutch", "1 generalist + 1 specialist") == [
        *costs_line,
        "20 s",
        "1.0 MiB",
        "3.0 MiB",
        "2.0 GiB",
    ]
    assert "20 s" in page.text and "62 s for the run" in page.text
    assert "Git commit" in page.text and "0123abcd" in page.text and "f00d" * 16 in page.text


def test_seeds_are_averaged_and_the_best_is_marked(tmp_path):
    for seed, level in enumerate((96.0, 100.0, 104.0)):
        write_results(tmp_path / f"a{seed}", seed=seed, level=level)
    write_results(tmp_path / "b", method="local", level=98.0)
    write_results(tmp_path / "c", method="pretrained", rounds=1, experts=[1, 1], generalists=[0, 0])
    page = report(tmp_path, *sorted(path for path in tmp_path.iterdir() if path.is_dir()))
    # Final test figures are level / 4 + user: 24, 25, 26; sample standard deviation 1.
    assert page.line("comigs-1g1s", "3") == [
        "comigs-1g1s",
        "3",
        "0, 1, 2",
        "25.00 (1.00)",
        "26.00 (1.00)",
        "25.50 (1.00)",
    ]
    assert page.line("local") == ["local", "3", "0", "24.50", "25.50", "25.00"]
    assert page.line("pretrained") == ["pretrained", "0", "0", "100.00", "101.00", "100.50"]
    assert not [line for line in page.lines if line[0] == "before training"]
    groups = group_runs([open_run(tmp_path / name) for name in ("a0", "a1", "a2", "b", "c")])
    figures = perplexities(groups, "test")
    for column in (figures["is_mean"], figures["user"] == "German"):
        assert (figures.loc[column, "rank"] == 1).tolist() == [False, True, False]


def test_rounds_not_evaluated_are_skipped(tmp_path):
    values = default_perplexity(2, 4)
    for split in values:
        values[split][[1, 3]] = math.nan
    write_results(tmp_path / "run", perplexity=values, before={"test": [30.0, 25.0]})
    page = report(tmp_path, tmp_path / "run")
    assert page.line("comigs-1g1s") == ["comigs-1g1s", "3", "33.33", "34.33", "33.83"]
    dash = formats.NONE
    # The last round is not evaluated: an older row is no 'after'.
    assert page.line("German", "30.00") == ["German", "30.00", dash, dash, dash, dash, dash]
    groups = group_runs([open_run(tmp_path / "run")])
    test = curves.by_user(groups).axes[0].lines[1]
    np.testing.assert_allclose(test.get_ydata(), [100.0, 100.0 / 3])
    assert test.get_xdata().tolist() == [0, 2]


def test_captions_say_after_which_rounds(tmp_path):
    def words(name: str, evaluated: list[int]) -> str:
        values = default_perplexity(2, 13)
        for split in values:
            values[split][[number for number in range(13) if number not in evaluated]] = math.nan
        write_results(tmp_path / name, rounds=13, perplexity=values)
        return evaluated_rounds(group_runs([open_run(tmp_path / name)]))

    assert words("all", list(range(13))) == "each communication round"
    # The last round is evaluated whatever the step.
    assert words("fifth", [0, 5, 10, 12]) == "every 5 communication rounds"
    assert words("some", [0, 1, 5, 12]) == "the rounds marked"


def test_long_labels_of_a_legend_stay_inside_the_figure(tmp_path):
    write_results(tmp_path / "run")
    group = group_runs([open_run(tmp_path / "run")])[0]
    groups = [Group(f"method {number} " + "with a long setting, " * 5, group.runs) for number in range(3)]
    drawn = curves.by_user(groups)
    drawn.draw_without_rendering()
    box = drawn.legends[0].get_window_extent()
    assert box.x1 <= drawn.bbox.x1 and box.y1 <= drawn.bbox.y1


def test_unfinished_runs_say_so(tmp_path):
    write_results(tmp_path / "short", rounds=3, planned=20)
    write_results(tmp_path / "long", method="local", rounds=21)
    page = report(tmp_path, tmp_path / "short", tmp_path / "long")
    assert page.line("comigs-1g1s")[1] == "2 of 20"
    assert "short (comigs-1g1s, seed 0) holds 2 of 20 rounds" in page.text
    assert "different numbers of rounds" in page.text


def test_one_method_with_different_settings_is_not_averaged(tmp_path):
    write_results(tmp_path / "a", method="comigs-1gxs", experts=[4, 1], level=80.0)
    write_results(tmp_path / "b", method="comigs-1gxs", experts=[2, 2])
    page = report(tmp_path, tmp_path / "a", tmp_path / "b")
    assert page.line("comigs-1gxs (experts 4,1)", "3")[2:] == ["20.00", "21.00", "20.50"]
    assert page.line("comigs-1gxs (experts 2,2)", "3")[2:] == ["25.00", "26.00", "25.50"]
    assert page.line("method.experts") == ["method.experts", "4,1", "2,2"]


def test_other_users_and_data_are_shown_but_not_ranked_together(tmp_path):
    write_results(tmp_path / "a")
    news = {"data_set": "ag_news", "data_digest": "beef" * 16}
    write_results(tmp_path / "b", method="local", users=("World", "Sports", "Dutch"), attributes=news)
    page = report(tmp_path, tmp_path / "a", tmp_path / "b")
    dash = formats.NONE
    assert page.line("method")[2:] == ["World", "Sports", "Dutch", "German", "mean over users"]
    assert page.line("local") == ["local", "3", "25.00", "26.00", "27.00", dash, "26.00"]
    assert page.line("before training (multilingual, small-base)")[2:] == [
        dash,
        dash,
        "101.00",
        "100.00",
        "100.50",
    ]
    assert page.line("comigs-1g1s") == ["comigs-1g1s", "3", dash, dash, "26.00", "25.00", "25.50"]
    assert "These runs differ in data set" in page.text
    assert not [tag for tag, attributes in page.tags if "best" in (attributes.get("class") or "").split()]


def test_the_digest_of_the_data_decides_not_its_name_or_folder(tmp_path):
    def labels(digests: list[str | None]) -> list[tuple[str, int]]:
        runs = []
        for seed, digest in enumerate(digests):
            folder = tmp_path / f"{seed}-{digest}"
            attributes = {} if digest is None else {"data_digest": digest}
            omit = ["data_digest"] if digest is None else []
            folders = (f"here/{seed}", f"there/{seed}")
            write_results(folder, seed=seed, folders=folders, attributes=attributes, omit=omit)
            runs.append(open_run(folder))
        groups = group_runs(runs)
        assert (len({group.comparable for group in groups}) > 1) == (len(groups) > 1)
        lines = final_perplexities(groups).blocks["Test perplexity"]
        initial = [line.label for line in lines if line.is_initial]
        assert len(initial) == len(set(initial)) == len(groups)
        return [(group.label, len(group.runs)) for group in groups]

    same, other = "aaaa1111" * 8, "bbbb2222" * 8
    assert labels([same, same]) == [("comigs-1g1s", 2)]
    assert labels([None, "", None]) == [("comigs-1g1s", 3)]  # older files: by name
    assert labels([same, other, same]) == [
        ("comigs-1g1s (data multilingual aaaa1111)", 2),
        ("comigs-1g1s (data multilingual bbbb2222)", 1),
    ]


def test_phase_seconds_and_what_is_left_of_the_round(tmp_path):
    write_results(tmp_path / "run")
    group = group_runs([open_run(tmp_path / "run")])[0]
    expected = {"experts": 8.0, "routers": 4.0, "aggregation": 2.0, "evaluation": 4.0, "other": 2.0}
    assert costs.phase_seconds(group)["Dutch"] == pytest.approx(expected)
    assert costs.mean_phase_seconds(group)["experts"] == pytest.approx(6.0)
    axes = phases.phase_times(costs.phase_seconds(group)).axes[0]
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(30.0)


# Routing ----------------------------------------------------------------------------------------------------


def test_routing_lines_are_the_scores_in_orange_and_blue(tmp_path):
    write_results(tmp_path / "run", layers=3)
    group = group_runs([open_run(tmp_path / "run")])[0]
    axes = routing.routing_over_rounds(group).axes[0]
    assert len(axes.lines) == 6  # 2 experts x 3 layers
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.6, 0.5, 0.4, 0.3], rtol=1e-6)
    np.testing.assert_allclose(axes.lines[3].get_ydata(), [0.4, 0.5, 0.6, 0.7], rtol=1e-6)
    assert axes.lines[2].get_color() == style.depth_shade(style.GENERALIST, 2, 3)
    assert axes.lines[5].get_color() == style.depth_shade(style.SPECIALIST, 2, 3)
    bars = routing.routing_by_layer(group).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([0.3] * 3 + [0.7] * 3)


def test_users_with_one_or_many_experts(tmp_path):
    write_results(tmp_path / "run", method="comigs-1gxs", experts=[4, 1])
    page = report(tmp_path, tmp_path / "run")
    assert page.line("German", "1 generalist + 3 specialists") and page.line("Dutch", "1 generalist")
    group = group_runs([open_run(tmp_path / "run")])[0]
    many, one = routing.routing_by_layer(group).axes
    assert len(many.patches) == 12 and len(one.patches) == 0
    assert "one expert" in one.texts[0].get_text()
    colours = style.expert_colours(group.runs[0].experts("German")[:3])
    assert colours[0] == style.GENERALIST and colours[1] == style.SPECIALIST and len(set(colours)) == 3


def test_without_a_router_a_sentence_stands_for_the_figure(tmp_path):
    write_results(tmp_path / "run", method="local", router=False, generalists=[0, 0])
    page = report(tmp_path, tmp_path / "run")
    assert "No routing to show for local" in page.text
    assert not list((tmp_path / "page_figures").glob("routing*"))


def test_a_run_with_nothing_but_perplexity_makes_a_page(tmp_path):
    groups = [
        "routing",
        "time",
        "communication",
        "memory",
        "loss",
        "users",
        "configuration",
        "seed",
        "base_digest",
    ]
    write_results(tmp_path / "run", omit=groups)
    page = report(tmp_path, tmp_path / "run")
    assert page.line("comigs-1g1s")[2:] == ["25.00", "26.00", "25.50"]
    assert "No phase times recorded." in page.text and "No configuration recorded." in page.text
