"""Figures of the paper from a sweep's index, and pages of token-level routing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from analysis.cli import main
from analysis.draw import curves, routing, style
from analysis.measure.groups import Group
from analysis.paper import rounds, router_sweep, token_picture
from analysis.read.index import read_index
from analysis.read.probes import middle_layer, read_probes
from analysis.read.results import ResultsError, open_run
from tests.helpers.report_page import Page
from tests.helpers.results_fixture import Sweep, final_test, two_experts, write_probe, write_results

HOSTILE = "<script>alert('x')</script>"


def make(folder: Path, item: str, *more: str) -> list[str]:
    """Runs the item and gives the names of what lies in its folder."""
    assert main([item, "--index", str(folder / "index.json"), *more]) == 0
    return sorted(path.name for path in (folder / "paper").iterdir())


def shown_title(picture: Path) -> str:
    """The picture's line about itself: matplotlib notes each text that it draws as paths in a comment."""
    return re.search(r"<!-- (Figure .*?) -->", picture.read_text(encoding="utf-8"))[1]


# Over rounds ------------------------------------------------------------------------------------------------


def test_figure_3_has_a_panel_a_data_set_and_a_panel_a_user(tmp_path):
    made = Sweep(tmp_path)
    for dataset in ("multilingual", "ag_news"):
        for row, method in (("Local", "local"), ("CoMiGS - 1G1S", "comigs-1g1s")):
            made.add(dataset, method, 0, [("figure3", row)])
    names = make(tmp_path, "figure3")
    stems = ("figure3", "figure3_ag_news", "figure3_multilingual")
    assert names == sorted(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))
    index = read_index(tmp_path / "index.json")
    groups = [
        Group(cell.row, index.runs(cell.alternatives[()])[0]) for cell in index.cells("figure3", "ag_news")
    ]
    drawn = curves.by_data_set({"AG News": groups, "Multilingual": groups[:1]})
    titles = {stem: shown_title(tmp_path / "paper" / f"{stem}.svg") for stem in stems}
    assert titles == {
        "figure3": "Figure 3: Test perplexity over rounds [measured, scale small]",
        "figure3_ag_news": "Figure 3: Test perplexity over rounds, AG News [measured, scale small]",
        "figure3_multilingual": "Figure 3: Test perplexity over rounds, Multilingual [measured, scale small]",
    }
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["AG News", "Multilingual"]
    line = drawn.axes[0].lines[0]
    # Mean over two users, who lie 1 apart: 100 / (round + 1) + 1/2.
    np.testing.assert_allclose(line.get_ydata(), 100.0 / np.arange(1, 5) + 0.5)
    assert [line.get_color() for line in drawn.axes[0].lines] == style.method_colours(
        ["local", "comigs-1g1s"]
    )
    assert drawn.axes[1].lines[0].get_color() == drawn.axes[0].lines[0].get_color()


def test_legend_of_expert_patterns_is_the_numbers_of_experts(tmp_path):
    made = Sweep(tmp_path)
    for experts in ([2, 2], [4, 2]):
        options = {"experts": ",".join(map(str, experts))}
        row = ("figure6", str(experts))
        made.add("multilingual", "comigs-1gxs", 0, [row], options=options, experts=experts)
    index = read_index(tmp_path / "index.json")
    runs = [index.runs([entry])[0] for entry in index.entries]
    assert rounds.pattern_labels([Group("row", one) for one in runs]) == ["2, 2", "4, 2"]
    assert rounds.pattern_labels([Group("a", runs[0]), Group("b", runs[0])]) == ["2, 2 (a)", "2, 2 (b)"]
    assert make(tmp_path, "figure6") == ["figure6.png", "figure6.svg"]


def test_figure_4_takes_the_papers_method_from_other_items(tmp_path):
    made = Sweep(tmp_path)
    made.add("ag_news", "local", 0, [("table1", "Local")])
    made.add("ag_news", "comigs-1g1s", 0, [("table1", "CoMiGS - 1G1S")])
    assert make(tmp_path, "figure4") == ["figure4_ag_news.png", "figure4_ag_news.svg"]


def test_a_figure_of_nothing_finished_is_an_error(tmp_path, capsys):
    made = Sweep(tmp_path)
    made.add("multilingual", "comigs-1gxs", 0, [("figure6", "(2,2)")], status="failed")
    assert main(["figure6", "--index", str(tmp_path / "index.json")]) == 2
    assert "no finished run of figure6" in capsys.readouterr().err
    assert main(["figure13", "--index", str(tmp_path / "index.json")]) == 2
    assert "no finished run of comigs-1g1s on slimpajama" in capsys.readouterr().err


def test_figure_9_reads_period_and_steps_from_the_options(tmp_path):
    made = Sweep(tmp_path)
    for tau in ("10", "30"):
        for steps in ("5", "10"):
            if (tau, steps) == ("30", "10"):
                continue
            axes = {"router_every": tau, "router_steps": steps}
            made.add(
                "slimpajama", "comigs-1g1s", 0, [("figure9", "1G1S", "", axes)], options=axes,
                perplexity=final_test(float(tau) + float(steps)), rounds=2,
            )  # fmt: skip
    # As the sweep writes what the data set's file says already: not among the options.
    place = ("figure9", "1G1S", "", {"router_every": "30", "router_steps": "10"})
    made.add("slimpajama", "comigs-1g1s", 0, [place], status="missing")
    index = read_index(tmp_path / "index.json")
    grid = router_sweep.grid_of(index, index.cells("figure9"))
    means = grid.set_index([router_sweep.TAU, router_sweep.STEPS])["mean"].to_dict()
    assert (means.pop((30, 10)) > 0) is False  # NaN
    assert means == {(10, 5): 15.0, (10, 10): 20.0, (30, 5): 35.0}
    left = router_sweep.draw(grid).axes[0]
    assert sorted(text.get_text() for text in left.texts) == ["15.00\nbest", "20.00", "35.00", "–"]
    assert make(tmp_path, "figure9") == ["figure9.png", "figure9.svg"]


@pytest.mark.parametrize(("seeds", "told"), [((0, 1), False), ((0,), True), ((1, 2), True)])
def test_figure_9_calls_nothing_the_best_where_seeds_differ(tmp_path, capsys, seeds, told):
    made = Sweep(tmp_path)
    for tau, own, test in (("10", (0, 1), 40.0), ("30", seeds, 30.0)):
        for seed in own:
            axes = {"router_every": tau, "router_steps": "5"}
            made.add(
                "slimpajama", "comigs-1g1s", seed, [("figure9", "1G1S", "", axes)], options=axes,
                perplexity=final_test(test), rounds=2,
            )  # fmt: skip
    index = read_index(tmp_path / "index.json")
    grid = router_sweep.grid_of(index, index.cells("figure9"))
    assert ("note: the places of the grid differ in their seeds" in capsys.readouterr().out) is told
    texts = [text.get_text() for text in router_sweep.draw(grid).axes[0].texts]
    assert sorted(texts) == (["30.00", "40.00"] if told else ["30.00\nbest", "40.00"])


# Routing ----------------------------------------------------------------------------------------------------


def test_each_generalist_has_one_colour_for_all_users_and_a_place_in_the_legend(tmp_path):
    write_results(tmp_path / "run", method="comigs-mgxs", generalist=[[0, -1], [1, -1]])
    group = Group("x", [open_run(tmp_path / "run")])
    figure = routing.routing_by_layer(group)
    german, dutch = ([bar.get_facecolor() for bar in axes.patches] for axes in figure.axes)
    assert german[0] != dutch[0] and german[3] == dutch[3]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["generalist 0", "generalist 1", "specialist"]
    shown = [patch.get_facecolor() for patch in legend.get_patches()]
    assert shown == [german[0], dutch[0], german[3]]


# Tokens -----------------------------------------------------------------------------------------------------


@pytest.fixture
def routed(tmp_path) -> Path:
    """A run of two users and three layers. Generalist first at layer 0, specialist at 1 and 2."""
    made = Sweep(tmp_path)
    run = made.add("slimpajama", "comigs-1g1s", 0, [("figure13", "CoMiGS - 1G1S")], layers=3)
    for owner in ("German", "Dutch"):
        score = two_experts(2, 3, 3, 0.25)
        score[:, :, 0] = (0.875, 0.125)
        write_probe(run, owner.lower(), [f"The {owner}", " word", "\nends"], score, owner=owner)
    return run


def test_probes_come_in_the_users_order_and_know_the_first_expert(routed):
    free = two_experts(2, 1, 3, 0.5)
    free[1] = np.nan
    write_probe(routed, "a-free-text", ["x"], free)
    probes = read_probes(open_run(routed))
    assert [probe.owner for probe in probes] == ["German", "Dutch", ""]
    assert probes[0].top(0, 0).tolist() == [0, 0, 0] and probes[0].top(1, 2).tolist() == [1, 1, 1]
    assert probes[2].top(1, 0).tolist() == [-1]
    assert [middle_layer(layers) for layers in (12, 4, 1)] == [5, 1, 0]


def test_scores_of_another_shape_are_refused(routed):
    write_probe(routed, "wrong", ["a", "b"], np.zeros((2, 3, 3, 2)))
    with pytest.raises(ResultsError, match="'tokens/wrong' has 2 ids, 2 texts and scores of shape"):
        read_probes(open_run(routed))


def test_token_page_shows_every_model_on_every_text(routed, tmp_path):
    for item, shown in (("figure13", "first"), ("figure14", "middle"), ("figure15", "last")):
        make(tmp_path, item)
        page = Page((tmp_path / "paper" / f"{item}.html").read_text(encoding="utf-8"))
        spans = [attributes for tag, attributes in page.tags if tag == "span" and "title" in attributes]
        assert len(spans) == 2 * 2 * 3
        assert {span["class"] for span in spans} == {"first-g0 middle-s0 last-s0"}
        assert spans[0]["title"].splitlines() == [
            "first layer: generalist 0.88, specialist 0.12",
            "middle layer: generalist 0.25, specialist 0.75",
            "last layer: generalist 0.25, specialist 0.75",
        ]
        boxes = [attributes for tag, attributes in page.tags if tag == "input"]
        assert [box["id"] for box in boxes if "checked" in box] == [f"layer-{shown}"]
        assert sum(attributes.get("class") == "text own" for _, attributes in page.tags) == 2
        assert "German: generalist first for 100 % (first layer), 0 % (middle layer)" in page.text


def test_figure_5_is_the_diagonal_and_other_data_sets_can_be_asked_for(routed, tmp_path, capsys):
    names = make(tmp_path, "figure5")
    assert names == ["figure5.html", "figure5.png", "figure5.svg"]
    page = Page((tmp_path / "paper" / "figure5.html").read_text(encoding="utf-8"))
    assert len([1 for tag, attributes in page.tags if tag == "span" and "title" in attributes]) == 2 * 3
    assert main(["figure16", "--index", str(tmp_path / "index.json")]) == 2
    message = capsys.readouterr().err
    assert "no finished run of comigs-1g1s on ag_news (there are some on --dataset slimpajama)" in message
    assert "figure16.html" in make(tmp_path, "figure16", "--dataset", "slimpajama")


def test_token_page_escapes_and_loads_nothing(tmp_path):
    made = Sweep(tmp_path)
    users = (HOSTILE, '"><img src=x onerror=alert(1)>')
    run = made.add("slimpajama", "comigs-1g1s", 0, [("figure13", "row")], users=users)
    texts = [HOSTILE, "\" onmouseover='alert(1)", "</p></div>$\\frac{1}{", "\x07\u202e"]
    for number, owner in enumerate(users):
        write_probe(run, f"text{number}", texts, two_experts(2, len(texts), 3, 0.7), owner=owner)
    for item in ("figure13", "figure5"):
        make(tmp_path, item)
        text = (tmp_path / "paper" / f"{item}.html").read_text(encoding="utf-8")
        page = Page(text)
        assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe"}
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert "default-src 'none'" in text and "http://" not in text and "https://" not in text
        assert HOSTILE in page.text and "\x07" not in text


def test_pictures_break_lines_and_leave_out_what_does_not_fit():
    width = token_picture.LINE_CHARACTERS
    pieces = token_picture.lay_out(["ab", "c\nd", " " + "x" * (width - 1), "y" * (2 * width)])
    assert pieces[:3] == [(0, 0, "ab", 0), (0, 2, "c", 1), (1, 0, "d", 1)]
    assert pieces[3] == (2, 0, "x" * (width - 1), 2) and pieces[4] == (3, 0, "y" * width, 3)
    many = token_picture.lay_out(["z" * width] * (token_picture.MOST_LINES + 5))
    assert len(many) == token_picture.MOST_LINES


def test_tokens_that_cannot_be_read_are_left_out_with_a_remark(routed, tmp_path, capsys):
    other = Sweep(tmp_path)
    for seed in range(2):
        run = other.add("slimpajama", "comigs-1g1s", seed, [("figure13", "row")], layers=3)
        for owner in ("German", "Dutch"):
            write_probe(run, owner.lower(), ["a", "b"], two_experts(2, 2 + (seed == 0), 3, 0.25), owner=owner)
    make(tmp_path, "figure13")
    assert "results.h5: 'tokens/dutch' has 2 ids" in capsys.readouterr().out
    page = Page((tmp_path / "paper" / "figure13.html").read_text(encoding="utf-8"))
    assert "seed 1" in page.text and "[measured, scale small]" in page.text


def test_runs_without_tokens_are_told(tmp_path, capsys):
    Sweep(tmp_path).add("slimpajama", "comigs-1g1s", 0, [("figure13", "row")])
    assert main(["figure13", "--index", str(tmp_path / "index.json")]) == 2
    assert "no tokens in comigs-1g1s-seed0 (comigs route writes them)" in capsys.readouterr().err
