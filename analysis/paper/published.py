"""The paper's own figures (GPT-2 124M, three seeds). Shown beside measured ones, never among them."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.measure.figures import NO_RUN
from analysis.paper.table import PUBLISHED, Table, frame
from analysis.read.index import DATA_SETS

# (mean, standard deviation); None where the paper has none.
Entry = tuple[float, float | None] | None

_NO_ROUTING = "i) Without routing"
_TOGETHER = "ii) Update routing and expert params simultaneously on training loss"
_ON_TRAINING = "iii) Alternating update routing params on newly sampled batches from training set"
_ON_VALIDATION = "iv) Alternating update routing params on a validation set"

# Table 4: section, row, then AG News, Multilingual, SlimPajama.
_TABLE_4: list[tuple[str, str, Entry, Entry, Entry]] = [
    (_NO_ROUTING, "Pretrained", (90.65, None), (156.12, None), (37.19, None)),
    (_NO_ROUTING, "Centralized", (28.19, 0.52), (55.41, 0.12), (19.53, 0.14)),
    (_NO_ROUTING, "Local", (41.50, 0.05), (55.49, 0.64), (27.31, 0.17)),
    (_NO_ROUTING, "FedAvg", (32.24, 0.05), (56.90, 0.16), (23.30, 0.17)),
    (_NO_ROUTING, "FFA-LoRA", (31.60, 0.14), (57.83, 0.13), (23.42, 0.069)),
    (_NO_ROUTING, "PCL", (32.11, 0.04), (54.02, 0.19), (27.12, 0.33)),
    (_TOGETHER, "Local-MoE", (41.38, 0.08), (55.78, 0.27), (27.35, 0.22)),
    (_TOGETHER, "FedAvg-MoE", (31.63, 0.07), (58.15, 0.10), (23.37, 0.12)),
    (_ON_TRAINING, "Local-MoE - tr", None, (53.78, 0.33), (27.78, 0.06)),
    (_ON_TRAINING, "FedAvg-MoE - tr", None, (59.39, 0.13), (23.00, 0.01)),
    (_ON_TRAINING, "1G1S - tr", None, (50.86, 0.14), (25.45, 0.01)),
    (_ON_VALIDATION, "CoMiGS - 2S", (35.81, 0.13), (46.36, 0.16), (22.51, 0.08)),
    (_ON_VALIDATION, "CoMiGS - 2G", (31.18, 0.05), (58.31, 0.17), (21.36, 0.01)),
    (_ON_VALIDATION, "CoMiGS - 1G1S", (33.53, 0.03), (47.19, 0.10), (21.79, 0.04)),
]
_TABLE_1 = (
    "Pretrained",
    "Centralized",
    "Local",
    "FedAvg",
    "PCL",
    "CoMiGS - 2S",
    "CoMiGS - 2G",
    "CoMiGS - 1G1S",
)
_REFERENCES = ("Pretrained", "Centralized")

TABLE_2_COLUMNS = ["Ours", "HetLoRA active", "HetLoRA full", "FlexLoRA active", "FlexLoRA full"]
_TABLE_2: list[tuple[str, str, list[Entry]]] = [
    ("AG News", "(4,2,2,2)", [(33.66, 0.07), (31.58, 0.14), (31.95, 0.13), (36.45, 0.06), (36.49, 0.17)]),
    ("AG News", "(2,4,4,4)", [(34.22, 0.09), (31.58, 0.14), (32.52, 0.19), (36.45, 0.06), (36.40, 0.08)]),
    (
        "Multilingual",
        "(2,2,4,4)",
        [(46.48, 0.16), (57.76, 0.10), (58.60, 0.20), (77.65, 0.20), (77.85, 0.26)],
    ),
    (
        "Multilingual",
        "(4,4,2,2)",
        [(47.24, 0.09), (57.76, 0.10), (59.14, 0.04), (77.65, 0.20), (76.29, 0.17)],
    ),
    ("SlimPajama", "(2,4,4,2)", [(22.10, 0.17), (23.33, 0.10), (23.15, 0.09), (22.97, 0.11), (22.99, 0.08)]),
    ("SlimPajama", "(4,2,2,4)", [(22.28, 0.09), (23.33, 0.10), (23.17, 0.09), (22.97, 0.11), (22.99, 0.09)]),
]

_TABLE_3: list[tuple[str, str, list[int]]] = [
    ("AG News", "Training", [761_924, 756_719, 814_131, 771_460]),
    ("AG News", "Validation", [48_809, 48_730, 50_398, 48_249]),
    ("AG News", "Test", [48_167, 47_721, 48_344, 49_377]),
    ("Multilingual", "Training", [557_662, 407_498, 556_796, 451_584]),
    ("Multilingual", "Validation", [300_764, 216_318, 220_071, 165_984]),
    ("Multilingual", "Test", [229_720, 219_741, 210_570, 172_547]),
    ("SlimPajama", "Training", [1_000_000] * 4),
    ("SlimPajama", "Validation", [200_000] * 4),
    ("SlimPajama", "Test", [200_000] * 4),
]

# The columns of Table 5 by the option that makes them.
TABLE_5_COLUMNS = {"none": "No LB", "uniform": "LB (uniform)", "generalist": "LB (generalist-favored)"}
_TABLE_5: list[tuple[str, str, list[Entry]]] = [
    ("AG News", "homo", [(33.69, 0.21), (33.53, 0.03), (33.53, 0.03)]),
    ("AG News", "hetero", [(34.31, 0.05), (34.28, 0.11), (34.22, 0.09)]),
    ("Multilingual", "homo", [(47.31, 0.15), (47.19, 0.10), (47.19, 0.10)]),
    ("Multilingual", "hetero", [(46.36, 0.16), (46.15, 0.04), (46.48, 0.16)]),
    ("SlimPajama", "homo", [(21.77, 0.02), (21.79, 0.04), (21.79, 0.04)]),
    ("SlimPajama", "hetero", [(22.15, 0.07), (22.10, 0.11), (22.10, 0.17)]),
]


def table1(title: str) -> Table:
    rows = [("", *row[1:]) for row in _TABLE_4 if row[1] in _TABLE_1]
    return _by_data_set(title, rows)


def table4(title: str) -> Table:
    return _by_data_set(title, _TABLE_4)


def _by_data_set(title: str, rows: list[tuple[str, str, Entry, Entry, Entry]]) -> Table:
    lines = [(section, label, entries) for section, label, *entries in rows]
    return _table(title, [*DATA_SETS.values()], lines, ["column"])


def table2(title: str) -> Table:
    return _table(title, TABLE_2_COLUMNS, _TABLE_2, ["section", "row"])


def table3(title: str) -> Table:
    lines = [(name, split, [(float(count), None) for count in counts]) for name, split, counts in _TABLE_3]
    table = _table(title, [f"user {user}" for user in range(4)], lines, [], seeds=0)
    table.is_whole = True
    return table


def table5(title: str) -> Table:
    return _table(title, [*TABLE_5_COLUMNS.values()], _TABLE_5, ["section", "row"])


def _table(
    title: str,
    columns: list[str],
    lines: Sequence[tuple[str, str, Sequence[Entry]]],
    ranked_within: Sequence[str],
    seeds: int = 3,
) -> Table:
    figures = [
        {
            "section": section,
            "row": label,
            "column": column,
            **({"mean": entry[0], "std": entry[1], "seeds": seeds} if entry else NO_RUN),
            "is_ours": label.endswith("1G1S"),
            "is_reference": label in _REFERENCES,
        }
        for section, label, entries in lines
        for column, entry in zip(columns, entries, strict=True)
    ]
    return Table(title, PUBLISHED, columns, frame(figures, ranked_within))
