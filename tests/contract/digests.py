"""Prints Gram and output digests of all settings: run under CABILDO_KERNELS_ISA by the tests."""

from __future__ import annotations

import json
import sys

import cabildo_kernels as kernels
from contract.settings import SETTINGS
from contract.test_rules import run, scene_of


def digests() -> dict[str, list[str]]:
    found = {"path": [kernels.info().isa]}
    for setting in SETTINGS:
        result, _ = run(setting, scene_of(setting, seed=9))
        found[setting.name] = [
            result.output_digest,
            result.gram_digest or "",
            json.dumps(result.recipe),
        ]
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(digests()))
