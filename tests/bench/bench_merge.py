"""How long merges of files take, as whole processes, beside mergekit in the same run.

    python tests/bench/bench_merge.py [--models 8] [--parameters 201326592] [--rounds 3]

Makes a base and fine-tuned models of it in bfloat16 (3.6 GB as given), reads them once so that the
page cache is hot, and runs the same recipe files with `python -m cabildo_trainer.consensus merge
--from-mergekit` and with mergekit's own program, in turn, two threads each. Ours hashes all it
reads and writes. mergekit 0.1.5 comes from an environment of its own: `CABILDO_MERGEKIT` names its
`mergekit-pytorch`, or else one is made under the cache folder. Figures go to
`build/bench/merge.json`; nothing is asserted. Everything made is deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import Row, table, write
from safetensors import safe_open

from cabildo_trainer.consensus.files.safetensors_header import header_bytes
from cabildo_trainer.consensus.sources import TensorSpec, to_float32
from support.mergekit import VERSION, mergekit_program

REFERENCE = f"mergekit {VERSION}"
LAYER = (4096, 4096)
THREADS = 2
BASE_STD = 0.02
DELTA_STD = 0.001
MEBIBYTE = 2**20
# A small parent: a process's largest memory counts what its parent had when it was started.
LAUNCHER = """
import os, sys, time
begun = time.monotonic()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(child, 0)
print(status, time.monotonic() - begun, usage.ru_maxrss)
"""
# Multiples of 1/1024: their sum is exact in any order and precision, and no decimal is rounded.
OTHER_WEIGHTS = tuple(part / 1024 for part in (321, 278, 145, 177, 591, 710, 938, 430))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process cost: the time from its start to its end, and its largest memory."""

    seconds: float
    peak_mib: float


def run(command: list[str], *, log: Path) -> Cost:
    """Run a program to its end; its output goes to a file, shown when it fails."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "",
    }
    with log.open("wb") as output:
        launched = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, *command],
            stdout=subprocess.PIPE,
            stderr=output,
            env=environment,
            check=False,
        )
    status, seconds, peak_kib = launched.stdout.split()
    if int(status) != 0:
        raise SystemExit(f"{' '.join(command)}\n{log.read_text()}")
    return Cost(seconds=float(seconds), peak_mib=int(peak_kib) / 1024)


def make_models(folder: Path, *, models: int, parameters: int) -> int:
    """Write the base and the models of it; return the bytes of one."""
    rows = max(parameters // LAYER[1], 1)
    specs = {}
    for number, first in enumerate(range(0, rows, LAYER[0])):
        name = f"layers.{number:03d}.weight"
        specs[name] = TensorSpec(
            name=name, dtype="BF16", shape=(min(LAYER[0], rows - first), LAYER[1])
        )
    header = header_bytes(specs, {"format": "pt"})
    names = ["base", *(f"model-{number}" for number in range(models))]
    with ExitStack() as stack:
        files = []
        for name in names:
            (folder / name).mkdir(parents=True)
            file = stack.enter_context((folder / name / "model.safetensors").open("wb"))
            file.write(header)
            files.append(file)
        draw = np.random.default_rng(20)
        for spec in specs.values():
            for _ in range(spec.shape[0]):
                base = draw.standard_normal(LAYER[1], dtype=np.float32) * np.float32(BASE_STD)
                files[0].write(as_bf16(base))
                for file in files[1:]:
                    delta = draw.standard_normal(LAYER[1], dtype=np.float32)
                    file.write(as_bf16(base + delta * np.float32(DELTA_STD)))
    return sum(spec.size for spec in specs.values()) * 2


def as_bf16(values: np.ndarray) -> bytes:
    """Return float32 values rounded to the nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def recipe(folder: Path, method: str, *, weights: list[float]) -> Path:
    """Write a recipe that both programs read; JSON is YAML."""
    models = []
    for number, weight in enumerate(weights):
        parameters: dict[str, float] = {"weight": weight}
        if method == "ties":
            parameters["density"] = 0.5
        path = folder / f"model-{number}" / "model.safetensors"
        models.append({"model": str(path), "parameters": parameters})
    body: dict[str, object] = {"merge_method": method, "models": models, "dtype": "bfloat16"}
    if method == "ties":
        body["base_model"] = str(folder / "base" / "model.safetensors")
        body["parameters"] = {"normalize": True}
    file = folder / f"{method}-{'-'.join(str(weight) for weight in weights)}.yml"
    file.write_text(json.dumps(body))
    return file


@dataclass(frozen=True, slots=True)
class Programs:
    """Both programs, and where they write.

    Attributes:
        folder: Of inputs and outputs.
        mergekit: Path of mergekit's program.
    """

    folder: Path
    mergekit: Path

    def ours(self, file: Path) -> Cost:
        """Run ours; what it writes is in `ours`."""
        output = self.cleared("ours")
        command = [sys.executable, "-m", "cabildo_trainer.consensus", "merge", "--quiet"]
        command += ["--from-mergekit", str(file), "--output", str(output)]
        command += ["--threads", str(THREADS), "--result", str(self.folder / "result.json")]
        return run(command, log=self.folder / "ours.log")

    def theirs(self, file: Path) -> Cost:
        """Run mergekit; what it writes is in `theirs`."""
        output = self.cleared("theirs")
        command = [str(self.mergekit), str(file), str(output), "-j", str(THREADS), "--quiet"]
        return run(command, log=self.folder / "theirs.log")

    def cleared(self, name: str) -> Path:
        """Return a folder's path with nothing there."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name

    def tensors(self, name: str) -> list[str]:
        """Return the tensors' names of a model."""
        with safe_open(self.folder / name / "model.safetensors", framework="pt") as file:
            return sorted(file.keys())

    def tensor(self, name: str, tensor: str) -> np.ndarray:
        """Return a tensor's bfloat16 bits."""
        import torch  # noqa: PLC0415 - NumPy has no bfloat16 to load it as

        with safe_open(self.folder / name / "model.safetensors", framework="pt") as file:
            return file.get_tensor(tensor).view(torch.uint16).numpy().reshape(-1)


def timed(programs: Programs, case: str, file: Path, *, rounds: tuple[int, int]) -> list[Row]:
    """Run both in turn, each as often as said, and return the best times and largest memories."""
    ours: list[Cost] = []
    theirs: list[Cost] = []
    for number in range(max(rounds)):
        if number < rounds[0]:
            ours.append(programs.ours(file))
        if number < rounds[1]:
            theirs.append(programs.theirs(file))
        said = f"{case}: ours {ours[-1].seconds:.2f} s, mergekit {theirs[-1].seconds:.2f} s"
        sys.stderr.write(said + "\n")
    return [
        Row(
            case=case,
            ours=round(min(cost.seconds for cost in ours), 3),
            unit="s",
            reference=round(min(cost.seconds for cost in theirs), 3),
            reference_name=REFERENCE,
        ),
        Row(
            case=f"{case}/peak-memory",
            ours=round(max(cost.peak_mib for cost in ours), 1),
            unit="MiB",
            reference=round(max(cost.peak_mib for cost in theirs), 1),
            reference_name=REFERENCE,
        ),
    ]


def differing(programs: Programs) -> int:
    """Return how many elements differ between the outputs of both."""
    return sum(
        int(np.count_nonzero(programs.tensor("ours", name) != programs.tensor("theirs", name)))
        for name in programs.tensors("ours")
    )


def explained(programs: Programs, weights: list[float]) -> list[Row]:
    """Compare one tensor of both outputs, made with other weights, with its exact value.

    mergekit sums in float32 in the models' order, divides in float32 and rounds to bfloat16; we sum
    in fp64, divide once and round once. So the first row says how many elements differ, the second
    how many of them mergekit's stated arithmetic, recomputed here, does not explain, and the third
    how many elements of each lie farther from the exact mean than the other's.
    """
    name = programs.tensors("ours")[0]
    rows = [
        to_float32(programs.tensor(f"model-{number}", name), dtype="bf16")
        for number in range(len(weights))
    ]
    ours, theirs = programs.tensor("ours", name), programs.tensor("theirs", name)
    single = np.zeros_like(rows[0])
    exact = np.zeros(rows[0].size, dtype=np.longdouble)
    for row, weight in zip(rows, weights, strict=True):
        # One rounding for product and sum: torch uses fused multiply-add, exact in fp64 here.
        single = (single + row.astype(np.float64) * np.float32(weight)).astype(np.float32)
        exact += row.astype(np.longdouble) * np.longdouble(weight)
    single /= np.float32(np.sum(np.asarray(weights, np.float32)))
    exact /= np.sum(np.asarray(weights, np.longdouble))
    recomputed = np.frombuffer(as_bf16(single), np.uint16)
    differ = ours != theirs
    off, theirs_off = (
        np.abs(to_float32(bits, dtype="bf16").astype(np.longdouble) - exact)
        for bits in (ours, theirs)
    )
    return [
        Row("linear/other-weights/differing", int(differ.sum()), "elements of one tensor"),
        Row(
            "linear/other-weights/unexplained",
            int((differ & (recomputed != theirs)).sum()),
            "elements of one tensor",
        ),
        Row(
            "linear/other-weights/farther-from-exact",
            int((off > theirs_off).sum()),
            "elements of one tensor",
            reference=int((theirs_off > off).sum()),
            reference_name=REFERENCE,
        ),
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--parameters", type=int, default=12 * LAYER[0] * LAYER[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the models are made (default: TMPDIR)")
    parser.add_argument("--out", type=Path, default=Path("build/bench/merge.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-merge-", dir=options.folder) as made:
        programs = Programs(folder=Path(made), mergekit=mergekit_program())
        needed = 2 * options.parameters * (options.models + 4)
        free = shutil.disk_usage(made).free
        if free < needed:
            raise SystemExit(f"{made} has {free} bytes free, {needed} are needed: give --folder")
        rows = measure(programs, options)
    print(table(rows))
    command = "make bench-merge"
    write("merge", command=command, rows=rows, file=options.out)


def measure(programs: Programs, options: argparse.Namespace) -> list[Row]:
    """Make the models, run all cases."""
    folder = programs.folder
    make_models(folder, models=options.models, parameters=options.parameters)
    for file in folder.glob("*/model.safetensors"):
        with file.open("rb") as content:
            while content.read(16 * MEBIBYTE):
                pass
    equal = recipe(folder, "linear", weights=[1.0] * options.models)
    rows = timed(programs, "linear", equal, rounds=(options.rounds, options.rounds))
    rows.append(Row("linear/equal-weights/differing", differing(programs), "elements"))
    weights = [OTHER_WEIGHTS[number % len(OTHER_WEIGHTS)] for number in range(options.models)]
    other = recipe(folder, "linear", weights=weights)
    programs.ours(other)
    programs.theirs(other)
    rows += explained(programs, weights)
    ties = recipe(folder, "ties", weights=[1.0] * options.models)
    # mergekit sorts every task vector, which takes minutes: it does so once.
    return rows + timed(programs, "ties", ties, rounds=(options.rounds, 1))


if __name__ == "__main__":
    main()
