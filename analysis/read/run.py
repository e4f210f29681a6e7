"""A run's results in memory: root attributes as text, labelled arrays, and what they say of users and experts."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

FILE_NAME = "results.h5"


class ExpertKind(NamedTuple):
    """What an expert is: a generalist by its number, which all holders share; or a user's n-th specialist."""

    role: str
    number: int


@dataclass(frozen=True)
class Run:
    """One results file in memory: root attributes as text, one labelled Dataset a group."""

    path: Path
    attributes: dict[str, str]
    coordinates: dict[str, np.ndarray]
    groups: dict[str, xr.Dataset]

    def __getitem__(self, group: str) -> xr.Dataset:
        """The group's Dataset; an empty one where the file has no such group."""
        return self.groups.get(group, xr.Dataset())

    def array(self, group: str, name: str) -> xr.DataArray | None:
        """The array, or None where it is absent or holds nothing but NaN."""
        dataset = self[group]
        if name not in dataset or dataset[name].size == 0:
            return None
        array = dataset[name]
        if np.issubdtype(array.dtype, np.floating) and bool(np.isnan(array).all()):
            return None
        return array

    def attribute(self, name: str) -> str:
        """A root attribute as text, empty where the file has none; lists are one item a line."""
        return self.attributes.get(name, "")

    @property
    def name(self) -> str:
        """The run folder's name (the file's own where it does not have the usual name)."""
        return self.path.resolve().parent.name if self.path.name == FILE_NAME else self.path.stem

    @property
    def method(self) -> str:
        return self.attribute("method")

    @property
    def users(self) -> list[str]:
        return [str(user) for user in self.coordinates["user"]]

    @property
    def rounds(self) -> np.ndarray:
        return self.coordinates["round"]

    @cached_property
    def settings(self) -> dict[str, str]:
        """The configuration as `section.key` -> value; empty where it is not an INI text."""
        parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
        try:
            parser.read_string(self.attribute("configuration"))
        except (configparser.Error, AttributeError):  # the latter where a line goes on a bare key
            return {}
        return {
            f"{section}.{key}": value or ""
            for section in parser.sections()
            for key, value in parser[section].items()
        }

    @property
    def planned_rounds(self) -> int | None:
        """How many rounds the configuration asks for; None where it does not say."""
        for key, value in self.settings.items():
            if key.rpartition(".")[2] == "rounds" and value.strip().isdecimal():
                return int(value)
        return None

    @property
    def is_unfinished(self) -> bool:
        """True where the configuration asks for more rounds than the file holds (running or stopped)."""
        planned = self.planned_rounds
        return planned is not None and int(self.rounds.max()) < planned

    @property
    def is_untrained(self) -> bool:
        """True where the configuration asks for no round: the base model as it is."""
        return self.planned_rounds == 0

    def experts(self, user: str) -> list[ExpertKind]:
        """A user's experts in order."""
        count, array = self._count("experts", user), self.array("users", "generalist")
        if array is None:  # older files: expert e is generalist e or the user's own
            generalists = self._count("generalists", user)
            numbers = [index if index < generalists else -1 for index in range(count)]
        else:
            numbers = [int(number) for number in array.sel(user=user).values[:count]]
        return [
            ExpertKind("generalist", number)
            if number >= 0
            else ExpertKind("specialist", numbers[:index].count(-1))
            for index, number in enumerate(numbers)
        ]

    def expert_roles(self, user: str) -> list[str]:
        """The roles of a user's experts in order: "generalist" or "specialist"."""
        return [expert.role for expert in self.experts(user)]

    def _count(self, name: str, user: str) -> int:
        array = self.array("users", name)
        return 0 if array is None else int(array.sel(user=user))
