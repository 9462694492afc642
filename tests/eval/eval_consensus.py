"""What each merging rule is worth against each attack: `make eval-consensus`.

    PYTHONPATH=tests python -m eval.eval_consensus [--rules auto,median] [--attacks none,alie]
        [--seeds 2] [--rounds 200] [--processes 2] [--publish]

Every case is one training for each seed, all merges through the product's `merge`. Figures go to
`build/bench/consensus.json` as they come. `--publish` writes the page's picture and table.

Here: the cases and their rows. Never here: a training. Next: `robustness_page.py`, `heat_map.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report import Row, table, write
from eval.attacks import ATTACKS
from eval.contenders import CONTENDERS
from eval.federation import run
from eval.heat_map import heat_map
from eval.robustness_page import figures, with_figures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eval.contenders import Contender

FILE = Path("build/bench/consensus.json")
PAGE = Path("docs/consensus-robustness.md")
PICTURE = Path("docs/pictures/consensus.svg")
COMMAND = "make eval-consensus"


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the table.

    Attributes:
        contender: The rule.
        attack: By name.
        seeds: How many trainings: seeds 0, 1, ...
        rounds: Of each.
    """

    contender: Contender
    attack: str
    seeds: int
    rounds: int

    @property
    def name(self) -> str:
        """Its name in the file."""
        return f"{self.contender.title}/{self.attack}"

    def row(self) -> Row:
        """Train, and return the figures; a refused rule has none."""
        refusal = self.contender.refusal()
        if refusal:
            return Row(case=self.name, ours=None, unit="%", details={"refused": refusal})
        outcomes = [
            run(self.contender, self.attack, seed=seed, rounds=self.rounds)
            for seed in range(self.seeds)
        ]
        percent = [100 * outcome.accuracy for outcome in outcomes]
        details: dict[str, float | str] = {
            "lowest": round(min(percent), 2),
            "kappa": float(f"{np.mean([outcome.kappa for outcome in outcomes]):.4g}"),
            "declared_f": self.contender.declared,
            "seeds": self.seeds,
            "rounds": self.rounds,
        }
        finished = min(outcome.rounds for outcome in outcomes)
        if finished < self.rounds:
            details["diverged_in_round"] = finished + 1
        picks = Counter(pick for outcome in outcomes for pick in outcome.picks)
        if picks:
            details["picks"] = ", ".join(
                f"{name} {100 * count / picks.total():.0f} %" for name, count in picks.most_common()
            )
        return Row(
            case=self.name, ours=round(float(np.mean(percent)), 2), unit="%", details=details
        )


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases, those with a line search last."""
    rules = [item for item in CONTENDERS if not options.rules or item.title in options.rules]
    attacks = [name for name in ATTACKS if not options.attacks or name in options.attacks]
    for attack in sorted(attacks, key=lambda name: name.startswith("optimal")):
        for contender in rules:
            yield Case(contender, attack, seeds=options.seeds, rounds=options.rounds)


def save(rows: dict[str, Row], *, file: Path, order: Sequence[str]) -> list[Row]:
    """Write the rows in the order of the table; return them."""
    known = [rows[name] for name in order if name in rows]
    write("consensus", command=COMMAND, rows=known, file=file)
    return known


def main() -> None:
    """Train all cases, print a table, write the file; perhaps the page and the picture."""
    options = parsed()
    rows: dict[str, Row] = {}
    order = [f"{item.title}/{attack}" for item in CONTENDERS for attack in ATTACKS]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for row in pool.imap_unordered(Case.row, cases(options)):
            rows[row.case] = row
            save(rows, file=options.file, order=order)
            print(table([row]).splitlines()[1], flush=True)
    save(rows, file=options.file, order=order)
    bench = json.loads(options.file.read_text())
    print(figures(bench))
    if options.publish:
        publish(bench)


def publish(bench: dict[str, Any]) -> None:
    """Write the picture and the page's figures."""
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(heat_map(bench["rows"]))
    PAGE.write_text(with_figures(PAGE.read_text(), bench))


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description="Evaluate the merging rules against attacks.")
    names = lambda text: text.split(",")  # noqa: E731 - argparse shows its name on errors
    parser.add_argument("--rules", type=names, help="rows of the table, by their titles")
    parser.add_argument("--attacks", type=names, help=f"some of {', '.join(ATTACKS)}")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--publish", action="store_true", help="write the page and the picture")
    options = parser.parse_args()
    titles = {item.title for item in CONTENDERS}
    for given, known in ((options.rules, titles), (options.attacks, set(ATTACKS))):
        unknown = sorted(set(given or ()) - known)
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return options


if __name__ == "__main__":
    main()
