"""Whether models may be merged: names, shapes, element types, tied weights, tokenizer, base.

A merge of models that do not fit gives a model that talks nonsense, without an error: so the first
difference ends it, and the message names the tensor, what differs, between whom, and what to do.

Here: comparing. Never here: the merge, nor what happens to integer tensors under a policy. Next:
`merging.py`, which asks before it reads any weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from cabildo_trainer.consensus.errors import ImpossibleSetting, ManifestMismatch
from cabildo_trainer.consensus.manifests.manifest import byte_order, facts_of
from cabildo_trainer.consensus.sources import FLOATING, INTEGERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_trainer.consensus.sources import ModelSource

INTEGER_POLICIES: Final = ("equal", "first", "max")
"""What `Context.integers` may be: refuse different ones, take the first by key or the largest."""

PACKED_SUFFIXES: Final = (
    ".qweight",
    ".qzeros",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".weight_scale_inv",
)
"""Names that only quantised checkpoints use: GPTQ, AWQ, bitsandbytes, block-scaled float8."""

_ELEMENTS_AT_A_TIME: Final = 1 << 18


def agree(
    sources: Sequence[ModelSource], *, base: ModelSource | None = None, integers: str = "equal"
) -> None:
    """Refuses models that do not fit each other.

    Args:
        sources: The participants' models, at least one.
        base: The model that they were trained from.
        integers: What happens to integer tensors that differ, one of `INTEGER_POLICIES`.

    Raises:
        ManifestMismatch: They differ; the message names the first difference.
        ImpossibleSetting: There is no such policy.
    """
    have_one_form(sources, base=base, integers=integers)
    same_base(sources)


def have_one_form(
    sources: Sequence[ModelSource], *, base: ModelSource | None = None, integers: str = "equal"
) -> None:
    """Refuses as `agree` does, but for bases that the models alone claim.

    To have one form is transitive. To agree is not: a model that claims no base agrees with two
    that claim different ones.

    Raises:
        ManifestMismatch: They differ; the message names the first difference.
        ImpossibleSetting: There is no such policy.
    """
    if integers not in INTEGER_POLICIES:
        raise ImpossibleSetting(
            f"integers is {integers!r}", remedy=f"Use one of {', '.join(INTEGER_POLICIES)}."
        )
    models = [*([] if base is None else [base]), *sources]
    for model in models:
        check_mergeable(model)
    first = models[0]
    for other in models[1:]:
        _same_tensors(first, other)
        _same_facts(first, other)
    if base is not None:
        for model in sources:
            _trained_from(base, model)
    if integers == "equal":
        for other in models[1:]:
            _same_integers(first, other)


def check_mergeable(model: ModelSource) -> None:
    """Refuses a model whose weights are no numbers to average.

    Raises:
        ManifestMismatch: It is quantised, complex, or of another element type that no rule knows.
    """
    quantised = facts_of(model).quantised
    if quantised:
        _refuse_quantised(model, quantised)
    for name in sorted(model.tensors, key=byte_order):
        dtype = model.tensors[name].dtype
        if name.endswith(PACKED_SUFFIXES):
            _refuse_quantised(model, f"tensor {name!r}")
        if dtype.startswith(("F8_", "F6_", "F4")):
            _refuse_quantised(model, f"tensor {name!r} of element type {dtype}")
        if dtype not in FLOATING and dtype not in INTEGERS:
            kind = "is complex" if dtype.startswith("C") else "has an element type no rule knows"
            raise ManifestMismatch(
                f"tensor {name!r} of {model.key!r} {kind}: {dtype}",
                remedy="Convert the tensor to F32, F16 or BF16, or leave it out of every model.",
            )


def _refuse_quantised(model: ModelSource, what: str) -> NoReturn:
    raise ManifestMismatch(
        f"{model.key!r} is quantised: {what}",
        remedy="Merge the models it was made from, or dequantise it first; quantise the result.",
    )


def _same_tensors(first: ModelSource, other: ModelSource) -> None:
    pair = f"{first.key!r} and {other.key!r}"
    for name in sorted(first.tensors.keys() | other.tensors.keys(), key=byte_order):
        one, two = first.tensors.get(name), other.tensors.get(name)
        if one is None or two is None:
            lacks, has = (first, other) if one is None else (other, first)
            raise ManifestMismatch(
                f"tensor {name!r}: {has.key!r} has it and {lacks.key!r} does not",
                remedy="Merge models of one architecture; a head or adapter that only some have"
                " must be added to the others or removed.",
            )
        if tuple(one.shape) != tuple(two.shape):
            raise ManifestMismatch(
                f"tensor {name!r}: its shape differs between {pair}:"
                f" {list(one.shape)} and {list(two.shape)}",
                remedy="Merge models of one architecture. If only the vocabulary differs, resize"
                " the embeddings to one tokenizer first.",
            )
        if one.dtype != two.dtype:
            raise ManifestMismatch(
                f"tensor {name!r}: its element type differs between {pair}:"
                f" {one.dtype} and {two.dtype}",
                remedy="Save all models with one element type.",
            )


def _same_facts(first: ModelSource, other: ModelSource) -> None:
    one, two = facts_of(first), facts_of(other)
    pair = f"{first.key!r} and {other.key!r}"
    if one.tied_names != two.tied_names:
        groups = sorted(set(one.tied_names) ^ set(two.tied_names))
        ties, unties = (first, other) if groups[0] in one.tied_names else (other, first)
        raise ManifestMismatch(
            f"tied weights differ between {pair}: {ties.key!r} ties"
            f" {' = '.join(groups[0])}, {unties.key!r} does not",
            remedy="Save all models with the same weights tied (tie_word_embeddings in their"
            " config.json).",
        )
    if one.tokenizer_digest != two.tokenizer_digest:
        raise ManifestMismatch(
            f"the tokenizer differs between {pair}: {one.tokenizer_digest or 'none'} and"
            f" {two.tokenizer_digest or 'none'}",
            remedy="Merge models that share a tokenizer: with another one the same row of the"
            " embedding stands for another word. Compare tokenizer.json, added_tokens.json and"
            " special_tokens_map.json; copy them to the models that lack them.",
        )


def _trained_from(base: ModelSource, model: ModelSource) -> None:
    claimed = facts_of(model).base_digest
    if claimed is not None and claimed != base.digest:
        raise ManifestMismatch(
            f"{model.key!r} was trained from {claimed}, the base given is {base.digest}",
            remedy="Give the base that the model was trained from.",
        )


def same_base(sources: Sequence[ModelSource]) -> None:
    """Refuses models that claim different bases; one that claims none fits any.

    Raises:
        ManifestMismatch: The message names the first two claims that differ.
    """
    known = [(model.key, facts_of(model).base_digest) for model in sources]
    claims = [(key, digest) for key, digest in known if digest is not None]
    for key, digest in claims[1:]:
        if digest != claims[0][1]:
            raise ManifestMismatch(
                f"the base differs: {claims[0][0]!r} was trained from {claims[0][1]},"
                f" {key!r} from {digest}",
                remedy="Merge models that were trained from one base.",
            )


def _same_integers(first: ModelSource, other: ModelSource) -> None:
    for name in sorted(first.tensors, key=byte_order):
        spec = first.tensors[name]
        if spec.is_floating:
            continue
        for start in range(0, spec.size, _ELEMENTS_AT_A_TIME):
            stop = min(start + _ELEMENTS_AT_A_TIME, spec.size)
            differ = first.read(name, start, stop) != other.read(name, start, stop)
            if not differ.any():
                continue
            element = start + int(np.argmax(differ))
            one, two = (model.read(name, element, element + 1)[0] for model in (first, other))
            raise ManifestMismatch(
                f"tensor {name!r}: element {element} differs between {first.key!r} and"
                f" {other.key!r}: {one} and {two}",
                remedy="Integers are not averaged. Choose what to take: integers=first or"
                " integers=max.",
            )
