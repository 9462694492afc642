"""`python -m cabildo_trainer.consensus`: merge, manifest, verify, import.

Here: arguments to requests, errors to messages and exit codes. Never here: the work. Next:
`merge_command.py`, `model_commands.py`, `import_command.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cabildo_api.exit_codes import ExitCode
from cabildo_trainer.consensus.commands.import_command import import_model
from cabildo_trainer.consensus.commands.model_commands import print_manifest, verify_model
from cabildo_trainer.consensus.errors import ConsensusError, ImpossibleSetting
from cabildo_trainer.consensus.files.durable_files import StagedFile, refuse_nameless

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType

    from cabildo_trainer.consensus.commands.merge_command import MergeRequest

PROGRAM: Final = "python -m cabildo_trainer.consensus"
EPILOG: Final = """\
exit codes: 0 done; 65 the models are damaged, changed or do not fit each other; 69 no quorum;
75 told to stop; 78 a setting that cannot work. Nothing half-written is ever left.
"""
DEEPEST_VALUE: Final = 64
"""Levels of a parameter's lists and objects: rules within rules are a few."""
MOST_DIGITS: Final = 18
"""Of a size: no storage has more bytes, and int() refuses texts that are far too long."""
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        code: int = parsed.run(parsed)
    except ConsensusError as error:
        sys.stderr.write(f"error: {error.reason}: {error}\n")
        if error.remedy:
            sys.stderr.write(f"remedy: {error.remedy}\n")
        return int(error.exit_code)
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was written\n")
        return 128 + signal.SIGINT
    return code


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Ends in an orderly way: what is half-written is deleted on the way out."""
    del number, frame
    raise SystemExit(int(ExitCode.PREEMPTED))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Merges models in safetensors files, and says what a model is.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_merge(commands)
    _add_manifest(commands)
    verify = commands.add_parser("verify", help="check a model against its manifest or a digest")
    verify.add_argument("path", type=Path, help="folder, or safetensors file")
    verify.add_argument("--digest", default="", help="what the model digest must be")
    verify.set_defaults(run=lambda it: verify_model(it.path, digest=it.digest))
    importer = commands.add_parser(
        "import", help="convert a pickled state dict (pytorch_model.bin, .pt) to safetensors"
    )
    importer.add_argument("path", type=Path, help="the pickle, or a folder with one")
    importer.add_argument("--output", type=Path, required=True, metavar="DIR")
    importer.set_defaults(run=lambda it: import_model(it.path, output=it.output))
    return parser


def _add_manifest(commands: Any) -> None:
    manifest = commands.add_parser("manifest", help="print a model's manifest and digests")
    manifest.add_argument("path", type=Path, help="folder, or safetensors file")
    manifest.add_argument(
        "--base-digest", default=None, help="model digest of what it was trained from"
    )
    manifest.add_argument(
        "--write", action="store_true", help="also write it into the folder, for verify"
    )
    manifest.set_defaults(
        run=lambda it: print_manifest(it.path, base_digest=it.base_digest, write=it.write)
    )


def _add_merge(commands: Any) -> None:
    merge = commands.add_parser("merge", help="merge models by any rule")
    what = merge.add_argument_group("what")
    what.add_argument("--rule", help="the rule's name; a wrong one lists them all")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the rule, as in the API; the value is JSON, or else text",
    )
    what.add_argument("--from-mergekit", type=Path, metavar="FILE", help="a recipe of mergekit")
    models = merge.add_argument_group("models (folders or safetensors files)")
    models.add_argument("--model", action="append", default=[], metavar="KEY=PATH")
    models.add_argument("--base", type=Path, help="what the models were trained from")
    models.add_argument("--previous", type=Path, help="what this round started from")
    models.add_argument("--root-update", type=Path, help="a model trained on trusted data")
    models.add_argument("--statistics", action="append", default=[], metavar="KEY=PATH")
    trust = merge.add_argument_group("trust")
    trust.add_argument("--maximum-faulty", type=int, default=0, metavar="F")
    trust.add_argument("--faulty", action="append", default=[], metavar="KEY=REASON")
    trust.add_argument("--absent", action="append", default=[], metavar="KEY")
    trust.add_argument("--seed", default=None, metavar="HEX", help="of the round")
    trust.add_argument("--evaluator", default="", metavar="MODULE:NAME", help="has loss(model)")
    trust.add_argument("--gradient", default="", metavar="MODULE:NAME", help="has gradient(model)")
    privacy = merge.add_argument_group("privacy (rule dpFedAvg)")
    privacy.add_argument("--noise-key", type=Path, metavar="FILE", help="32 secret random bytes")
    privacy.add_argument("--privacy-ledger", type=Path, metavar="FILE", help="what was spent")
    privacy.add_argument("--new-privacy-ledger", action="store_true", help="in the first round")
    output = merge.add_argument_group("output")
    output.add_argument("--output", type=Path, required=True, metavar="DIR")
    output.add_argument("--output-dtype", choices=("F32", "F16", "BF16"), default=None)
    output.add_argument("--integers", choices=("equal", "first", "max"), default="equal")
    output.add_argument("--max-shard-size", default="5G", metavar="SIZE", help="such as 5G, 500Mi")
    output.add_argument("--result", type=Path, metavar="FILE", help="where the MergeResult goes")
    output.add_argument("--quiet", action="store_true", help="no progress")
    output.add_argument("--threads", type=int, default=None, metavar="N")
    merge.set_defaults(run=_merge)


def _merge(parsed: argparse.Namespace) -> int:
    # The rules are imported when they are needed: `manifest` and `--help` are quick without them.
    from cabildo_trainer.consensus.commands.merge_command import run_merge  # noqa: PLC0415

    if parsed.threads is not None and parsed.threads < 1:
        raise ImpossibleSetting(f"--threads is {parsed.threads}", remedy="Give 1 or more.")
    request = _request(parsed)
    refuse_nameless(parsed.output)
    record = None if parsed.result is None else _record(parsed.result, output=parsed.output)
    try:
        result = run_merge(request, progress=None if parsed.quiet else sys.stderr)
        text = result.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"
        if record is not None:
            _write_record(record, text)
    finally:
        if record is not None:
            record.abandon()
    for participant in result.participants:
        if not participant.accepted:
            sys.stdout.write(f"not accepted: {participant.key}: {participant.reason or ''}\n")
    sys.stdout.write(f"{request.output} {result.output_digest}\n")
    return 0


def _record(path: Path, *, output: Path) -> StagedFile:
    """Returns the record's file, made before the merge: a model is never made without its record.

    Within the output it is refused: that folder comes into being whole, and holds the model alone.
    """
    if not path.parent.is_dir():
        raise ImpossibleSetting(
            f"--result: there is no folder {path.parent}", remedy="Make it first."
        )
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(output)):
        raise ImpossibleSetting(
            f"--result {path} is, or lies within, --output {output}",
            remedy="Give a path beside it: the output's folder holds the model alone.",
        )
    try:
        return StagedFile(path)
    except ImpossibleSetting as error:
        raise ImpossibleSetting(f"--result: {error}", remedy=error.remedy) from error


def _write_record(record: StagedFile, text: str) -> None:
    try:
        record.commit(text.encode())
    except OSError:
        # The storage filled up meanwhile: the model is in its place, and a private round is paid.
        sys.stderr.write(f"the record could not be written to {record.target}; it is:\n{text}")
        raise


def _request(parsed: argparse.Namespace) -> MergeRequest:
    from cabildo_trainer.consensus.commands.merge_command import MergeRequest  # noqa: PLC0415

    parameters = {
        name: _value(name, text) for name, text in _pairs(parsed.set, option="--set").items()
    }
    options: dict[str, Any] = {
        "rule": parsed.rule,
        "models": _paths(parsed.model, option="--model"),
        "base": parsed.base,
        "output_dtype": parsed.output_dtype,
    }
    if parsed.from_mergekit is not None:
        options = _from_mergekit(parsed, set_parameters=parameters)
        parameters = options.pop("parameters")
    elif not parsed.rule:
        raise ImpossibleSetting("no rule", remedy="Give --rule NAME or --from-mergekit FILE.")
    return MergeRequest(
        **options,
        parameters=parameters,
        output=parsed.output,
        previous=parsed.previous,
        root_update=parsed.root_update,
        statistics=_paths(parsed.statistics, option="--statistics"),
        evaluator=parsed.evaluator,
        gradient=parsed.gradient,
        seed=options.pop("seed", None) if parsed.seed is None else _hex(parsed.seed),
        noise_key=parsed.noise_key,
        privacy_ledger=parsed.privacy_ledger,
        new_privacy_ledger=parsed.new_privacy_ledger,
        maximum_faulty=parsed.maximum_faulty,
        faulty=_pairs(parsed.faulty, option="--faulty"),
        absent=frozenset(parsed.absent),
        integers=parsed.integers,
        threads=parsed.threads,
        largest_shard_bytes=_size(parsed.max_shard_size),
    )


def _from_mergekit(parsed: argparse.Namespace, *, set_parameters: dict[str, Any]) -> dict[str, Any]:
    from cabildo_trainer.consensus.commands.mergekit_recipes import read_recipe  # noqa: PLC0415

    for option, value in (
        ("--rule", parsed.rule),
        ("--model", parsed.model),
        ("--base", parsed.base),
    ):
        if value:
            raise ImpossibleSetting(
                f"{option} and --from-mergekit are given together",
                remedy="The recipe names rule and models; --set changes a parameter.",
            )
    recipe = read_recipe(parsed.from_mergekit)
    for note in recipe.notes:
        sys.stderr.write(f"note: {note}\n")
    return {
        "rule": recipe.rule,
        "models": recipe.models,
        "base": recipe.base,
        "output_dtype": parsed.output_dtype or recipe.output_dtype,
        "parameters": {**recipe.parameters, **set_parameters},
    }


def _pairs(texts: Sequence[str], *, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ImpossibleSetting(
                f"{option} {text!r} has no '='", remedy=f"Give it as {option} NAME=VALUE."
            )
        if name in pairs:
            raise ImpossibleSetting(f"{option} gives {name!r} twice", remedy="Give it once.")
        pairs[name] = value
    return pairs


def _paths(texts: Sequence[str], *, option: str) -> dict[str, Path]:
    return {name: Path(value) for name, value in _pairs(texts, option=option).items()}


def _value(name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    except RecursionError as error:
        raise _too_deep(name) from error
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST_VALUE:
            raise _too_deep(name)
        level = [child for item in level for child in _children(item)]
    return value


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep(name: str) -> ImpossibleSetting:
    return ImpossibleSetting(
        f"--set {name} is nested too deeply: more than {DEEPEST_VALUE} levels",
        remedy="Give a list or rule within a rule, within a few others at most.",
    )


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ImpossibleSetting(
            f"--seed {text!r} is not hexadecimal", remedy="Give it as an even number of hex digits."
        ) from error


def _size(text: str) -> int:
    digits = text.rstrip("kKMGiIbB")
    factor = _UNITS.get(text[len(digits) :].upper().removesuffix("B"))
    if (
        not digits.isdecimal()
        or len(digits) > MOST_DIGITS
        or factor is None
        or int(digits) * factor < 1
    ):
        raise ImpossibleSetting(
            f"--max-shard-size {text!r} is no size", remedy="Give it as 5G, 500M or 500Mi."
        )
    return int(digits) * factor
