"""The command line: merges of files end as those in memory do, and errors say what to do."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.commands.command_line import main
from cabildo_trainer.consensus.commands.progress_bar import ProgressBar, amount, duration
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.rules import rule_from_parameters
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

KEYS = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")


def arrays(key: str) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(list(key.encode()))
    return {
        "b.weight": draw.normal(size=(300, 200)).astype(np.float32),
        "a.weight": draw.normal(size=5).astype(np.float16),
        "position": np.arange(4),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for key in (*KEYS, "base"):
        (tmp_path / key).mkdir()
        save_file(arrays(key), tmp_path / key / "model.safetensors")
        (tmp_path / key / "config.json").write_text('{"model_type": "toy"}')
        (tmp_path / key / "tokenizer.json").write_text("{}")
    return tmp_path


def model_arguments(folder: Path, keys: tuple[str, ...] = KEYS) -> list[str]:
    return [part for key in keys for part in ("--model", f"{key}={folder / key}")]


def merged(folder: Path, *arguments: str, keys: tuple[str, ...] = KEYS) -> MergeResult:
    """Runs `merge` and returns its result."""
    result = folder / "result.json"
    options = ["--output", str(folder / "out"), "--result", str(result), "--quiet", *arguments]
    assert main(["merge", *model_arguments(folder, keys), *options]) == 0
    return MergeResult.model_validate_json(result.read_text())


def in_memory(
    rule: str, parameters: Mapping[str, Any] | None = None, **context: Any
) -> tuple[MergeResult, dict[str, NDArray[Any]]]:
    sink = MemorySink()
    models = [MemoryModel(key, arrays(key)) for key in KEYS]
    result = merge(
        models, rule_from_parameters(rule, parameters or {}), Context(**context), sink=sink
    )
    return result, sink.tensors


@pytest.mark.parametrize(
    ("rule", "settings", "faulty"),
    [
        ("weightedMean", {"weights": {key: number + 1 for number, key in enumerate(KEYS)}}, 0),
        ("median", {}, 3),
        ("multiKrum", {}, 2),
        ("nnm", {"rule": {"name": "trimmedMean"}}, 2),
    ],
)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_merge_of_files_has_the_bits_of_one_in_memory(
    folder: Path, rule: str, settings: dict[str, Any], *, faulty: int, threads: str
) -> None:
    options = [
        part for name, value in settings.items() for part in ("--set", f"{name}={_json(value)}")
    ]
    result = merged(
        folder, "--rule", rule, *options, "--maximum-faulty", str(faulty), "--threads", threads
    )
    expected, tensors = in_memory(rule, settings, maximum_faulty=faulty)
    loaded = load_file(folder / "out" / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].tobytes() == array.tobytes()
    assert result.gram_digest == expected.gram_digest
    assert result.recipe == expected.recipe
    assert [item.score for item in result.participants] == [
        item.score for item in expected.participants
    ]


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_the_output_can_be_verified_and_says_what_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = merged(folder, "--rule", "median", "--maximum-faulty", "2", "--base", f"{folder}/base")
    assert f"{folder / 'out'} {result.output_digest}" in capsys.readouterr().out
    assert main(["verify", str(folder / "out"), "--digest", result.output_digest]) == 0
    manifest = json.loads((folder / "out" / "cabildo-manifest.json").read_text())
    assert main(["manifest", str(folder / "base")]) == 0
    assert manifest["baseDigest"] in capsys.readouterr().out
    assert (folder / "out" / "tokenizer.json").read_text() == "{}"
    assert (folder / "out" / "config.json").read_text() == '{"model_type": "toy"}'


def test_shards_do_not_change_the_digest(folder: Path) -> None:
    one = merged(folder, "--rule", "median", "--maximum-faulty", "2")
    (folder / "out").rename(folder / "one")
    many = merged(folder, "--rule", "median", "--maximum-faulty", "2", "--max-shard-size", "1K")
    assert one.output_digest == many.output_digest
    assert (folder / "out" / "model.safetensors.index.json").exists()
    assert main(["verify", str(folder / "out"), "--digest", one.output_digest]) == 0


def test_a_participant_with_nan_is_excluded_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = arrays("p3")
    bad["b.weight"][7, 7] = np.nan
    save_file(bad, folder / "p3" / "model.safetensors")
    result = merged(folder, "--rule", "median", "--maximum-faulty", "1")
    assert result.f_effective == 0
    assert "not accepted: p3: NonFinite" in capsys.readouterr().out


def test_trusted_models_and_the_evaluator_reach_the_rule(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "trusted_loss.py").write_text(
        "class Loss:\n"
        "    def loss(self, model):\n"
        "        return float(abs(model.read('b.weight', 0, 1)[0]))\n"
    )
    monkeypatch.syspath_prepend(folder)
    result = merged(folder, "--rule", "greedySoup", "--evaluator", "trusted_loss:Loss")
    assert any(candidate.picked for candidate in result.candidates)
    options = ["--rule", "flTrust", "--previous", f"{folder}/base", "--root-update", f"{folder}/p1"]
    (folder / "out").rename(folder / "soup")
    assert merged(folder, *options).rule == "flTrust"


def test_a_recipe_of_mergekit_is_merged(folder: Path) -> None:
    recipe = folder / "recipe.yml"
    models = [
        {"model": str(folder / key), "parameters": {"weight": 1.0, "density": 0.5}}
        for key in KEYS[:3]
    ]
    body = {"merge_method": "ties", "base_model": str(folder / "base"), "models": models}
    recipe.write_text(json.dumps(body))
    result = merged(folder, "--from-mergekit", str(recipe), "--set", "density=0.25", keys=())
    assert result.rule == "ties"
    assert result.parameters["density"] == 0.25
    assert [item.key for item in result.participants] == list(KEYS[:3])


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--rule", "average"], 78, "weightedMean"),
        ([], 78, "--rule NAME or --from-mergekit"),
        (["--rule", "median", "--set", "trim=1"], 78, "no parameter 'trim'"),
        (["--rule", "median", "--set", "trim"], 78, "has no '='"),
        (["--rule", "krum", "--maximum-faulty", "3"], 78, "2f"),
        (["--rule", "ties"], 78, "base"),
        (["--rule", "median", "--seed", "xyz"], 78, "hexadecimal"),
        (["--rule", "median", "--max-shard-size", "big"], 78, "no size"),
        (["--rule", "median", "--max-shard-size", "9" * 5000], 78, "no size"),
        (["--rule", "auto", "--set", f"candidates={'[' * 3000}"], 78, "candidates"),
        (
            ["--rule", "auto", "--set", f"candidates={'[' * 3000}{']' * 3000}"],
            78,
            "--set candidates is nested too deeply",
        ),
        (
            ["--rule", "nnm", "--set", "rule=" + '{"name":"nnm","rule":' * 400 + "0" + "}" * 400],
            78,
            "--set rule is nested too deeply: more than 64",
        ),
        (["--rule", "median", "--threads", "0"], 78, "--threads is 0"),
        (["--rule", "median", "--result", "/nowhere/at/all.json"], 78, "/nowhere/at"),
        (["--rule", "median", "--model", "p1=again"], 78, "'p1' twice"),
        (["--rule", "median", "--model", "p8=/nowhere"], 78, "/nowhere: No such file"),
        (["--rule", "greedySoup", "--evaluator", "no_module:x"], 78, "no_module"),
        (["--rule", "greedySoup", "--evaluator", "json:decoder"], 78, "no loss(model)"),
        (["--rule", "median", "--from-mergekit", "x.yml"], 78, "given together"),
    ],
)
def test_what_cannot_work_ends_with_its_code_and_a_remedy(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    named: str,
) -> None:
    output = folder / "out"
    ended, said = failure(
        capsys, "merge", *model_arguments(folder), "--output", str(output), *arguments
    )
    assert ended == code
    assert named in said
    assert "error: " in said
    assert "remedy: " in said
    assert not output.exists()
    assert not list(folder.glob(".*"))


def test_models_that_do_not_fit_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p2" / "tokenizer.json").write_text('{"other": 1}')
    options = ["--rule", "median", "--output", str(folder / "out")]
    code, said = failure(capsys, "merge", *model_arguments(folder), *options)
    assert code == 65
    assert "ManifestMismatch: the tokenizer differs between 'p1' and 'p2'" in said


def test_a_model_changed_by_a_bit_does_not_verify(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "p1"
    assert main(["manifest", str(path), "--write", "--base-digest", "sha256:" + "1" * 64]) == 0
    assert main(["verify", str(path)]) == 0
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    code, said = failure(capsys, "verify", str(path))
    assert code == 65
    assert "DigestMismatch" in said
    assert "tensor 'a.weight' has sha256" in said
    code, said = failure(capsys, "verify", str(folder / "p2"), "--digest", "sha256:0")
    assert code == 65
    assert "not sha256:0" in said
    assert failure(capsys, "verify", str(folder / "p2"))[0] == 78


def test_a_base_digest_that_is_none_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = failure(capsys, "manifest", str(folder / "p1"), "--base-digest", "me")
    assert code == 65
    assert "--base-digest" in said
    code, said = failure(capsys, "manifest", str(folder / "p1" / "model.safetensors"), "--write")
    assert code == 78


def test_a_pickle_is_imported_without_running_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    source = folder / "pickled"
    source.mkdir()
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"state_dict": {"wte": weight, "head": weight, "t": weight.T, "step": 3}}
    torch.save(state, source / "pytorch_model.bin")
    (source / "config.json").write_text("{}")
    assert main(["import", str(source), "--output", str(folder / "imported")]) == 0
    loaded = load_file(folder / "imported" / "model.safetensors")
    assert sorted(loaded) == ["head", "t"]
    assert loaded["t"].tolist() == weight.T.tolist()
    assert main(["manifest", str(folder / "imported")]) == 0
    assert '"tiedNames":[["head","wte"]]' in capsys.readouterr().out

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(folder / "boom"), "w"))

    torch.save({"w": weight, "x": Bomb()}, source / "pytorch_model.bin")
    code, said = failure(capsys, "import", str(source), "--output", str(folder / "again"))
    assert code == 65
    assert "more than tensors" in said
    assert not (folder / "boom").exists()
    assert not (folder / "again").exists()
    torch.save({"step": 1}, source / "pytorch_model.bin")
    assert failure(capsys, "import", str(source), "--output", str(folder / "again"))[0] == 65
    assert failure(capsys, "import", str(folder / "p1"), "--output", str(folder / "x"))[0] == 78


def test_the_command_needs_no_torch_and_sigterm_leaves_nothing(folder: Path) -> None:
    program = (
        "import sys, signal, os\n"
        "from cabildo_trainer.consensus.commands import merge_command, command_line\n"
        "assert 'torch' not in sys.modules\n"
        "real = merge_command.merge\n"
        "def stopped(*args, **kwargs):\n"
        "    kwargs['sink'].begin(args[0][0].tensors)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(*args, **kwargs)\n"
        "merge_command.merge = stopped\n"
        "sys.exit(command_line.main(sys.argv[1:]))\n"
    )
    arguments = ["merge", "--rule", "median", *model_arguments(folder)]
    arguments += ["--result", str(folder / "result.json")]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--output", str(folder / "out")],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 75, ended.stderr
    assert not (folder / "out").exists()
    assert not (folder / "result.json").exists()
    assert not list(folder.glob(".*"))


def test_progress_is_lines_in_a_log_and_one_line_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, lines in ((io.StringIO(), 5), (Terminal(), 1)):
        # Made, then four times six seconds later, then finished.
        times = iter((0.0, 6.0, 12.0, 18.0, 24.0, 24.0))
        bar = ProgressBar("m", total_bytes=4_000_000, stream=stream, clock=times.__next__)
        for _ in range(4):
            bar.add(1_000_000)
        bar.finish()
        text = stream.getvalue()
        assert text.count("\n") == lines
        assert " 50%  2.0 MB of 4.0 MB  166.7 kB/s  12.0 s left" in text
        assert "100%  4.0 MB of 4.0 MB" in text


def test_amounts_and_times_are_in_words() -> None:
    assert [amount(count) for count in (999, 1000, 2.5e9, 3e15)] == [
        "999 B",
        "1.0 kB",
        "2.5 GB",
        "3000.0 TB",
    ]
    assert [duration(time) for time in (1.25, 61, 7260)] == ["1.2 s", "1 min 01 s", "2 h 01 min"]


def test_the_digest_printed_is_that_of_the_manifest_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["manifest", str(folder / "p1")]) == 0
    manifest, digest, root = capsys.readouterr().out.splitlines()
    assert digest.endswith("sha256:" + hashlib.sha256(manifest.encode()).hexdigest())
    assert root.startswith("merkle root sha256:")


def beside(folder: Path, key: str, **files: str | None) -> None:
    """Writes files beside a participant's model, or takes them away."""
    for name, content in files.items():
        path = folder / key / (f"{name}.jinja" if name == "chat_template" else f"{name}.json")
        if content is None:
            path.unlink()
        else:
            path.write_text(content)


def with_nan(folder: Path, key: str) -> None:
    bad = arrays(key)
    bad["b.weight"][7, 7] = np.nan
    save_file(bad, folder / key / "model.safetensors")


@pytest.mark.parametrize("excluded", [True, False])
def test_a_faulty_participant_chooses_nothing_that_lies_beside_the_output(
    folder: Path, *, excluded: bool
) -> None:
    """The first by key, excluded or not, with a config that names code and a template."""
    beside(folder, "p1", config='{"auto_map": "evil.py"}', chat_template="{{ evil }}")
    if excluded:
        with_nan(folder, "p1")
    merged(folder, "--rule", "median", "--maximum-faulty", "1")
    assert (folder / "out" / "config.json").read_text() == '{"model_type": "toy"}'
    assert not (folder / "out" / "chat_template.jinja").exists()
    manifest = json.loads((folder / "out" / "cabildo-manifest.json").read_text())
    config = hashlib.sha256(b'{"model_type": "toy"}').hexdigest()
    assert manifest["configDigest"] == f"sha256:{config}"
    assert main(["verify", str(folder / "out")]) == 0


def test_a_faulty_participant_cannot_take_away_what_the_others_share(folder: Path) -> None:
    for key in KEYS:
        beside(folder, key, chat_template="{{ messages }}")
    beside(folder, "p1", chat_template=None, config=None)
    merged(folder, "--rule", "median", "--maximum-faulty", "1")
    assert (folder / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (folder / "out" / "config.json").exists()


@pytest.mark.parametrize(("faulty", "others"), [(1, ("p6", "p7")), (3, ("p4", "p5", "p6", "p7"))])
def test_what_honest_participants_disagree_on_is_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], faulty: int, others: tuple[str, ...]
) -> None:
    for number, key in enumerate(others):
        beside(folder, key, config=json.dumps({"model_type": number if faulty == 3 else "other"}))
    options = ["--rule", "median", "--maximum-faulty", str(faulty), "--output", f"{folder}/out"]
    code, said = failure(capsys, "merge", *model_arguments(folder), *options, "--quiet")
    assert code == 65
    assert "ManifestMismatch: config.json differs between 'p1'" in said
    assert f"more than f = {faulty} of them" in said
    assert "--base" in said
    assert not (folder / "out").exists()


def test_where_all_are_trusted_the_first_ones_files_are_taken_and_it_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside(folder, "p7", config=json.dumps({"model_type": "toy", "_name_or_path": "elsewhere"}))
    assert (
        main(["merge", *model_arguments(folder), "--rule", "median", "--output", f"{folder}/out"])
        == 0
    )
    assert (folder / "out" / "config.json").read_text() == '{"model_type": "toy"}'
    assert "config.json: participants' differ, p1's are taken" in capsys.readouterr().err
    assert main(["verify", str(folder / "out")]) == 0


@pytest.mark.parametrize("role", ["base", "previous"])
def test_a_trusted_model_alone_chooses_what_lies_beside_the_output(folder: Path, role: str) -> None:
    for key in KEYS:
        beside(folder, key, config='{"auto_map": "evil.py"}', chat_template="{{ evil }}")
    merged(folder, "--rule", "median", f"--{role}", f"{folder}/base")
    assert (folder / "out" / "config.json").read_text() == '{"model_type": "toy"}'
    assert not (folder / "out" / "chat_template.jinja").exists()
    assert main(["verify", str(folder / "out")]) == 0


def test_a_previous_model_of_another_tokenizer_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside(folder, "base", tokenizer='{"other": 1}')
    options = ["--rule", "median", "--previous", f"{folder}/base", "--output", f"{folder}/out"]
    code, said = failure(capsys, "merge", *model_arguments(folder), *options, "--quiet")
    assert code == 65
    assert "the tokenizer differs between 'previous' and 'p1'" in said


def damage(folder: Path, key: str, how: str) -> None:
    path = folder / key / "model.safetensors"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "nothing":
        path.unlink()
    elif how == "config":
        beside(folder, key, config="{")
    else:
        index = {"weight_map": {"w": json.loads(how)}}
        (folder / key / "model.safetensors.index.json").write_text(json.dumps(index))
        path.unlink()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "empty",
        "nothing",
        "config",
        '"missing.safetensors"',
        '"a\\u0000.safetensors"',
        '"\\ud800.safetensors"',
    ],
)
def test_a_damaged_model_is_excluded_while_f_has_room(
    folder: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    damage(folder, "p1", how)
    result = merged(folder, "--rule", "median", "--maximum-faulty", "1")
    assert (result.n, result.f_declared, result.f_effective) == (7, 1, 0)
    first = result.participants[0]
    assert (first.key, first.accepted, first.reason) == ("p1", False, "Malformed")
    assert "not accepted: p1: Malformed" in capsys.readouterr().out
    (folder / "out").rename(folder / "one")
    damage(folder, "p3", "truncated")
    options = ["--rule", "median", "--output", f"{folder}/out", "--quiet"]
    for faulty in ("0", "1"):
        arguments = [*model_arguments(folder), *options, "--maximum-faulty", faulty]
        assert failure(capsys, "merge", *arguments)[0] in {65, 78}
    known = ["--maximum-faulty", "1", "--faulty", "p5=Replay"]
    code, said = failure(capsys, "merge", *model_arguments(folder), *options, *known)
    assert code in {65, 78}
    assert "remedy: " in said
    assert not (folder / "out").exists()


def test_the_limits_are_checked_again_without_a_damaged_model(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder, "p1", "empty")
    options = ["--rule", "krum", "--maximum-faulty", "1", "--output", f"{folder}/out"]
    arguments = [*model_arguments(folder, KEYS[:5]), *options, "--absent", "p2", "--absent", "p3"]
    code, said = failure(capsys, "merge", *arguments)
    assert code == 78
    assert "p1 is left out: " in said
    assert "ImpossibleSetting" in said


def test_a_path_that_leads_nowhere_is_the_callers_mistake(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--rule", "median", "--maximum-faulty", "1", "--output", f"{folder}/out"]
    code, said = failure(capsys, "merge", *model_arguments(folder), "--model", "p8=/no", *options)
    assert code == 78
    assert "MissingInput: /no: No such file" in said


@pytest.mark.parametrize("key", ["k" * 300, "\udcff"])
def test_a_bad_key_ends_the_merge_before_a_model_is_opened(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    options = ["--rule", "median", "--model", f"{key}=/nowhere", "--output", f"{folder}/out"]
    code, said = failure(capsys, "merge", *model_arguments(folder), *options)
    assert code == 78
    assert "key" in said
    assert "of a participant" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Broken", "making it failed: RuntimeError: no GPU"),
        ("Raising", "loss of the evaluator failing_loss:Raising failed: OSError: no data"),
    ],
)
def test_an_evaluator_that_fails_is_named(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    said: str,
) -> None:
    (folder / "failing_loss.py").write_text(
        "class Broken:\n"
        "    def __init__(self):\n"
        "        raise RuntimeError('no GPU')\n"
        "class Raising:\n"
        "    def loss(self, model):\n"
        "        raise OSError('no data')\n"
    )
    monkeypatch.syspath_prepend(folder)
    options = ["--rule", "zeno", "--evaluator", f"failing_loss:{name}", "--output", f"{folder}/out"]
    code, told = failure(capsys, "merge", *model_arguments(folder), *options)
    assert code == 78
    assert said in told
    assert not (folder / "out").exists()
