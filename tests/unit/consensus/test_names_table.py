"""The table of names in docs: whole, and true where it can be looked up."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import byzfl

from cabildo_trainer.consensus.commands.mergekit_recipes import METHODS
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.federated.optimizers import OPTIMIZERS
from cabildo_trainer.consensus.robust.trusted import Monna
from cabildo_trainer.consensus.rules import RULES

PAGE = Path(__file__).parents[3] / "docs" / "consensus-names.md"
COLUMNS = ["ours", "byzfl", "Flower", "mergekit", "requirements", "what differs"]
AGGREGATION = {"byzfl.aggregators.aggregators", "byzfl.aggregators.preaggregators"}


def rows() -> list[list[str]]:
    """The cells of all tables of six columns, without their heads."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == len(COLUMNS) and row != COLUMNS and row[0] != "---"]


def names(column: str) -> list[str]:
    """What is written as code in a column."""
    index = COLUMNS.index(column)
    return [name for row in rows() for name in re.findall(r"`([^`]+)`", row[index])]


def test_every_rule_and_optimizer_has_exactly_one_row() -> None:
    ours = [name for name in names("ours") if "." not in name]
    assert len(ours) == len(set(ours))
    assert set(ours) == {rule.name for rule in RULES} | {step.name for step in OPTIMIZERS}


def test_no_cell_is_empty_but_the_last() -> None:
    for row in rows():
        assert all(row[:-1]), row


def test_names_of_byzfl_are_byzfls() -> None:
    for name in names("byzfl"):
        assert hasattr(byzfl, name), name


def test_names_of_mergekit_are_those_that_our_reader_translates() -> None:
    assert set(names("mergekit")) == set(METHODS)


def test_what_monna_is_around_is_what_the_rule_takes() -> None:
    (differs,) = (row[-1] for row in rows() if row[0] == "`monna`")
    assert {field.name for field in fields(Monna)} == {"reference"}
    assert "`reference`" in differs
    assert "root update" in differs
    assert Monna().needs == {Need.ROOT_UPDATE}
    assert not Monna(reference="p0").needs


def test_all_of_byzfls_aggregators_and_steps_before_them_are_there() -> None:
    have = {
        name
        for name, item in vars(byzfl).items()
        if isinstance(item, type) and item.__module__ in AGGREGATION
    }
    assert have <= set(names("byzfl"))
    assert len(have) >= 15
