"""`merge`: any rule over models in files.

Here: a request, opening the models, the context, the output, the result. Never here: reading
arguments (`command_line.py`) or arithmetic (`merging.py`).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import resource
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TextIO

import cabildo_kernels as kernels
from cabildo_kernels.threads import threads_for
from cabildo_trainer.consensus.commands.progress_bar import ProgressBar
from cabildo_trainer.consensus.context import Context, Need
from cabildo_trainer.consensus.errors import (
    EvaluatorFailed,
    ImpossibleSetting,
    ManifestMismatch,
    MissingInput,
)
from cabildo_trainer.consensus.exclusions import MALFORMED, check_keys
from cabildo_trainer.consensus.files.candidates import CandidateFolder
from cabildo_trainer.consensus.files.companions import (
    companions_of,
    differing_companions,
    facts_with,
    shared_companions,
)
from cabildo_trainer.consensus.files.file_sinks import LARGEST_SHARD_BYTES, SafetensorsSink
from cabildo_trainer.consensus.files.file_sources import FileModel
from cabildo_trainer.consensus.files.read_ahead import ReadAhead
from cabildo_trainer.consensus.files.safetensors_files import find_model
from cabildo_trainer.consensus.files.safetensors_header import ITEM_SIZES
from cabildo_trainer.consensus.manifests.manifest import ModelFacts
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.privacy.dp_fed_avg import DpFedAvg
from cabildo_trainer.consensus.privacy.ledger import Privacy
from cabildo_trainer.consensus.privacy.ledger_file import charged, create_ledger
from cabildo_trainer.consensus.privacy.noise_key import NoiseKey
from cabildo_trainer.consensus.rules import rule_from_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.errors import ConsensusError
    from cabildo_trainer.consensus.exclusions import Field
    from cabildo_trainer.consensus.privacy.ledger_file import Charge
    from cabildo_trainer.consensus.rule import Rule
    from cabildo_trainer.consensus.sources import ModelSource

TILES_BYTES: Final = 48 << 20
"""What all models' tiles in memory take together: the one in use and the one read ahead."""
MOST_SUPERBLOCKS_A_TILE: Final = 64
_OWNERS_DOING: Final = frozenset(
    {
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
    }
)
"""What may fail within a model's folder because of what is in it. A storage that fails, or too many
open files, is no participant's fault."""


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What is to be merged, and how.

    Attributes:
        rule: Name of the rule.
        models: Path of each participant's model by key.
        output: Folder of the merged model.
        parameters: The rule's parameters, as in the API.
        base: Path of the model that they were trained from.
        previous: Path of the model that the round started from.
        root_update: Path of a model trained on trusted data.
        statistics: Paths of statistics by participant key.
        evaluator: `module:name` of an object with `loss(model)`, or of what makes one.
        gradient: `module:name` of an object with `gradient(model)`, or of what makes one.
        seed: The round's seed.
        noise_key: Path of the secret key of a private rule's noise.
        privacy_ledger: Path of what was spent before; the round is charged to it.
        new_privacy_ledger: Whether this is the first round, which makes the ledger.
        maximum_faulty: f.
        faulty: Reasons by key of participants that are proven faulty.
        absent: Keys of participants that are late or silent.
        integers: What happens to integer tensors that differ.
        output_dtype: Element type of the output's floating tensors; None keeps each one's.
        threads: Threads; None takes what the process may use.
        largest_shard_bytes: Size of an output file.
    """

    rule: str
    models: Mapping[str, Path]
    output: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    base: Path | None = None
    previous: Path | None = None
    root_update: Path | None = None
    statistics: Mapping[str, Path] = field(default_factory=dict)
    evaluator: str = ""
    gradient: str = ""
    seed: bytes | None = None
    noise_key: Path | None = None
    privacy_ledger: Path | None = None
    new_privacy_ledger: bool = False
    maximum_faulty: int = 0
    faulty: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    integers: str = "equal"
    output_dtype: str | None = None
    threads: int | None = None
    largest_shard_bytes: int = LARGEST_SHARD_BYTES


def run_merge(request: MergeRequest, *, progress: TextIO | None) -> MergeResult:
    """Merges, and returns the result after the output is in its place.

    Args:
        request: What is to be done.
        progress: Where progress is said; None says nothing.

    Raises:
        ConsensusError: It cannot be done; nothing is left behind.
    """
    rule = rule_from_parameters(request.rule, request.parameters)
    if not request.models:
        raise MissingInput("no model is given", remedy="Give each one as --model KEY=PATH.")
    check_keys([*request.models, *request.faulty, *request.absent])
    threads = threads_for(sys.maxsize, asked=request.threads)
    with ExitStack() as stack:
        read_ahead = stack.enter_context(ReadAhead(threads=threads))
        opened = _Opened(stack=stack, read_ahead=read_ahead)
        inputs, malformed = _inputs(request, opened, stream=progress)
        request = replace(request, faulty={**malformed, **request.faulty})
        charge = _charge(request, rule, stack)
        context = _context(request, opened, inputs, threads=threads, charge=charge)
        sink = stack.enter_context(_sink(request, context))
        bar = opened.start_bar(rule, context, inputs, stream=progress)
        taking_part: list[ModelSource] = []

        def on_field(field: Field) -> None:
            taking_part[:] = field.sources
            _describe(sink, field, context, stream=progress)

        result = merge(
            inputs, rule, context, sink=sink, output_dtype=request.output_dtype, on_field=on_field
        )
        # The files of whoever is out may be anything by now; the output does not depend on them.
        for model in inputs:
            if model not in taking_part:
                model.abandon()
        if charge is not None:
            charge.settle(result)
        if bar is not None:
            bar.finish()
    return result


@dataclass(slots=True)
class _Opened:
    """Opens models, all with the same threads and the same count of bytes."""

    stack: ExitStack
    read_ahead: ReadAhead
    bar: ProgressBar | None = None

    def model(self, key: str, path: Path) -> FileModel:
        files = find_model(path)
        _allow_open_files(len(files.paths))
        return self.stack.enter_context(
            FileModel(key, files, read_ahead=self.read_ahead, on_bytes=self._add)
        )

    def start_bar(
        self, rule: Rule, context: Context, inputs: list[FileModel], *, stream: TextIO | None
    ) -> ProgressBar | None:
        if stream is not None:
            a_pass = sum(model.files.size_bytes for model in inputs)
            if Need.BASE in rule.needs and isinstance(context.base, FileModel):
                a_pass += context.base.files.size_bytes
            self.bar = ProgressBar(rule.name, total_bytes=rule.passes * a_pass, stream=stream)
        return self.bar

    def workspace(self, request: MergeRequest) -> CandidateFolder | None:
        """Where candidates go, for rules that evaluate some."""
        if not request.evaluator and not request.gradient:
            return None
        folder = CandidateFolder(request.output, read_ahead=self.read_ahead)
        return self.stack.enter_context(folder)

    def _add(self, count: int) -> None:
        if self.bar is not None:
            self.bar.add(count)


def _inputs(
    request: MergeRequest, opened: _Opened, *, stream: TextIO | None
) -> tuple[list[FileModel], dict[str, str]]:
    """Returns the models, and the participants that damaged files prove faulty.

    A participant whose bytes are no model has no more right to end the round than one with NaN.
    """
    inputs: list[FileModel] = []
    malformed: dict[str, str] = {}
    gone = request.faulty.keys() | request.absent
    for key, path in request.models.items():
        try:
            inputs.append(opened.model(key, path))
        except (ManifestMismatch, MissingInput) as error:
            malformed |= {} if key in gone else {key: MALFORMED}
            room = request.maximum_faulty - len(request.faulty)
            rest = len(request.models) - len(gone & request.models.keys()) - len(malformed)
            if not _is_malformed(error, path) or len(malformed) > room or rest < 1:
                raise
            if stream is not None:
                stream.write(f"{key} is left out: {error}\n")
    return inputs, malformed


def _is_malformed(error: ConsensusError, path: Path) -> bool:
    """Returns whether it is the model's fault; a path that leads nowhere is the caller's."""
    if isinstance(error, ManifestMismatch):
        return True
    cause = error.__cause__
    theirs = cause is None or (isinstance(cause, OSError) and cause.errno in _OWNERS_DOING)
    return theirs and path.is_dir()


def _charge(request: MergeRequest, rule: Rule, stack: ExitStack) -> Charge | None:
    """Charges a private rule's round to its ledger, for as long as the merge takes."""
    if not isinstance(rule, DpFedAvg):
        if request.noise_key is not None or request.privacy_ledger is not None:
            raise ImpossibleSetting(
                f"rule {rule.name} adds no noise, and a noise key or privacy ledger is given",
                remedy="Leave them out, or take --rule dpFedAvg.",
            )
        return None
    if request.noise_key is None or request.privacy_ledger is None:
        raise MissingInput(
            f"rule {rule.name} needs a noise key and a privacy ledger",
            remedy="Give --noise-key FILE (32 random bytes) and --privacy-ledger FILE.",
        )
    rule.requirement(len(request.models), request.maximum_faulty)
    if request.new_privacy_ledger:
        create_ledger(request.privacy_ledger)
    return stack.enter_context(charged(request.privacy_ledger, spend=rule.spend))


def _privacy(request: MergeRequest, charge: Charge | None) -> Privacy | None:
    if charge is None or request.noise_key is None:
        return None
    return Privacy(key=NoiseKey.read(request.noise_key), ledger=charge.before)


def _context(
    request: MergeRequest,
    opened: _Opened,
    inputs: list[FileModel],
    *,
    threads: int,
    charge: Charge | None,
) -> Context:
    def role(name: str, path: Path | None) -> FileModel | None:
        return None if path is None else opened.model(name, path)

    return Context(
        maximum_faulty=request.maximum_faulty,
        faulty=dict(request.faulty),
        absent=request.absent,
        base=role("base", request.base),
        previous=role("previous", request.previous),
        root_update=role("rootUpdate", request.root_update),
        evaluator=_imported(request.evaluator, method="loss", option="--evaluator"),
        gradient=_imported(request.gradient, method="gradient", option="--gradient"),
        statistics={
            key: opened.model(f"statistics of {key}", path)
            for key, path in request.statistics.items()
            if key not in request.faulty and key not in request.absent
        },
        seed=request.seed,
        privacy=_privacy(request, charge),
        threads=threads,
        workspace=opened.workspace(request),
        chunk_elements=_chunk_elements(inputs),
        integers=request.integers,
    )


def _chunk_elements(inputs: list[FileModel]) -> int:
    """Returns how many elements a tile has: fewer of them the more or larger rows there are."""
    item_size = max(
        (ITEM_SIZES[spec.dtype] for spec in inputs[0].tensors.values() if spec.is_floating),
        default=1,
    )
    fitting = TILES_BYTES // (2 * item_size * (len(inputs) + 1) * kernels.SUPERBLOCK)
    return kernels.SUPERBLOCK * max(1, min(MOST_SUPERBLOCKS_A_TILE, fitting))


def _sink(request: MergeRequest, context: Context) -> SafetensorsSink:
    """Returns the sink; what lies beside the model is told later, by `_describe`."""
    return SafetensorsSink(
        request.output,
        facts=ModelFacts(),
        base=context.base,
        largest_shard_bytes=request.largest_shard_bytes,
    )


def _describe(
    sink: SafetensorsSink, field: Field, context: Context, *, stream: TextIO | None
) -> None:
    """Chooses config, tokenizer and their like: a trusted model's, or what participants share."""
    models = [model for model in field.sources if isinstance(model, FileModel)]
    trusted = context.previous if context.base is None else context.base
    if isinstance(trusted, FileModel):
        companions, like = companions_of(trusted), trusted
        _refuse_other_tokenizer(trusted, models[0])
    elif field.f > 0:
        companions, like = shared_companions(models, f=field.f), models[0]
    else:
        companions, like = companions_of(models[0]), models[0]
        if stream is not None and (names := differing_companions(models)):
            stream.write(
                f"{', '.join(names)}: participants' differ, {like.key}'s are taken"
                " (those of --base or --previous if one is given)\n"
            )
    sink.describe(facts=facts_with(companions, like=like), companions=tuple(companions.values()))


def _refuse_other_tokenizer(trusted: FileModel, model: FileModel) -> None:
    """Refuses to put a tokenizer beside a model of another one; participants share theirs."""
    given, used = trusted.facts.tokenizer_digest, model.facts.tokenizer_digest
    if given is not None and used is not None and given != used:
        raise ManifestMismatch(
            f"the tokenizer differs between {trusted.key!r} and {model.key!r}: {given} and {used}",
            remedy="Give the model that the participants started from.",
        )


def _imported(place: str, *, method: str, option: str) -> Any:
    """Returns the object at `module:name`; if it has not the method, what calling it returns."""
    if not place:
        return None
    module, _, name = place.partition(":")
    remedy = f"Give {option} as module:name of an object with {method}(model), or of its factory."
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise MissingInput(f"{option} {place}: {error}", remedy=remedy) from error
    except Exception as error:
        raise _evaluator_failed(f"{option} {place}: the module", error) from error
    if isinstance(found, type) or (not hasattr(found, method) and callable(found)):
        make: Callable[[], Any] = found
        try:
            found = make()
        except Exception as error:
            raise _evaluator_failed(f"{option} {place}: making it", error) from error
    if not hasattr(found, method):
        raise ImpossibleSetting(f"{option} {place} has no {method}(model)", remedy=remedy)
    return found


def _evaluator_failed(what: str, error: Exception) -> EvaluatorFailed:
    return EvaluatorFailed(
        f"{what} failed: {type(error).__name__}: {error}", remedy="Mend it, or its data."
    )


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files by so many, as far as the hard one goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
