"""The whole config: its checks, and the fingerprint that decides what is run again."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from unroll.app import compose
from unroll.config import fingerprint, source_fingerprint
from unroll.errors import Refused
from unroll.folders import PACKAGE
from unroll.registry import names, schema


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source, to change."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "unroll", ignore=ignored))


def test_a_fingerprint_follows_the_figures_and_not_the_places() -> None:
    base = compose([])
    assert fingerprint(base, "c") == fingerprint(compose(["tracking.directory=/elsewhere"]), "c")
    assert fingerprint(base, "c") == fingerprint(compose(["data.cache=/elsewhere"]), "c")
    assert fingerprint(base, "c") != fingerprint(compose(["tracking.every=3"]), "c")  # curves
    assert fingerprint(base, "c") != fingerprint(compose(["seed=2"]), "c")
    assert fingerprint(base, "c") != fingerprint(base, "another corpus")
    other = copy.copy(base)
    object.__setattr__(other, "precision", "bfloat16")
    assert fingerprint(base, "c") != fingerprint(other, "c")


def test_a_fingerprint_follows_the_version_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([])
    before = fingerprint(config, "c")
    monkeypatch.setattr("unroll.config.version", lambda package: "0.0")
    assert fingerprint(config, "c") != before


def test_a_fingerprint_follows_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([])
    before = fingerprint(config, "c")
    monkeypatch.setattr("unroll.config.source_fingerprint", lambda: "other code")
    assert fingerprint(config, "c") != before


MODULES = ["config", "registry", "data/corpus", "models/recurrent", "models/softmax"]
MODULES += ["training/loop", "evaluation/perplexity", "generation/sampler", "tasks/train"]
MODULES += ["forecasting/forecasters"]


@pytest.mark.parametrize("module", MODULES)
def test_a_changed_line_of_code_changes_the_source_fingerprint(source: Path, module: str) -> None:
    path = source / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\nSCALE = 1.0\n", encoding="utf-8")
    first = source_fingerprint(source)
    source_fingerprint.cache_clear()
    path.write_text(text + "\nSCALE = 2.0\n", encoding="utf-8")
    assert len({first, source_fingerprint(source), source_fingerprint(PACKAGE)}) == 3


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_changed_operator_changes_the_source_fingerprint(source: Path) -> None:
    changed(source / "config.py", "0 <= self.seed", "0 < self.seed")
    assert source_fingerprint(source) != source_fingerprint(PACKAGE)


def test_comments_docstrings_and_layout_leave_the_source_fingerprint_as_it_was(
    source: Path,
) -> None:
    changed(source / "config.py", '"""The whole config', '"""Other words for the whole config')
    changed(source / "config.py", "    rerun: bool\n", "    rerun: bool  # a comment\n\n\n")
    changed(source / "config.py", '    """Seed of', '    """Another docstring of a field: seed of')
    changed(source / "models" / "softmax.py", "\n\n\n", "\n\n\n# a comment on its line\n\n")
    for path in source.rglob("*.py"):
        path.write_text(path.read_text(encoding="utf-8") + "# the end\n", encoding="utf-8")
    assert source_fingerprint(source) == source_fingerprint(PACKAGE)


@pytest.mark.parametrize(
    "module", ["report/page", "report/runs", "tracking/store", "tracking/ledger", "app", "errors"]
)
def test_code_that_no_figure_depends_on_leaves_the_source_fingerprint_as_it_was(
    source: Path, module: str
) -> None:
    path = source / f"{module}.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nSCALE = 2.0\n", encoding="utf-8")
    assert source_fingerprint(source) == source_fingerprint(PACKAGE)


def test_a_new_module_counts(source: Path) -> None:
    (source / "models" / "transformer.py").write_text("LAYERS = 6\n", encoding="utf-8")
    assert source_fingerprint(source) != source_fingerprint(PACKAGE)


def test_a_source_fingerprint_on_disk_that_is_cut_off_is_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unroll.config.HOME", tmp_path)
    (source / "another.py").write_text("LAYERS = 6\n", encoding="utf-8")
    first = source_fingerprint(source)
    (kept,) = (tmp_path / ".cache" / "source").iterdir()
    for text in (first, first[:-1], ""):
        kept.write_text(text, encoding="utf-8")
        source_fingerprint.cache_clear()
        assert source_fingerprint(source) == first
    kept.write_text("0" * len(first), encoding="utf-8")
    source_fingerprint.cache_clear()
    assert source_fingerprint(source) == "0" * len(first)
    source_fingerprint.cache_clear()


def test_the_source_is_read_once() -> None:
    first = source_fingerprint()
    assert source_fingerprint() is first


def test_an_unknown_precision_is_refused() -> None:
    assert compose([]).precision == "auto"
    with pytest.raises(Refused, match="unknown precision 'bfloat61': did you mean 'bfloat16'"):
        compose(["precision=bfloat61"])


def test_int8_is_for_tasks_that_write_or_score_with_a_trained_run_on_a_cpu() -> None:
    for task in ("sample", "evaluate"):
        assert compose(["precision=int8", f"task={task}", "run=x"]).precision == "int8"
    for words in (["task=train"], ["task=describe"], ["task=deploy", "run=x"]):
        with pytest.raises(Refused, match=r"precision=int8 has no meaning for task=.*: use it"):
            compose(["precision=int8", *words])
    with pytest.raises(Refused, match=r"precision=int8 is computed on a CPU, not with device=mps"):
        compose(["precision=int8", "task=sample", "run=x", "device=mps"])


@pytest.mark.parametrize("task", names("task"))
def test_a_task_that_reads_a_run_needs_one_and_every_other_refuses_it(task: str) -> None:
    words = [f"task={task}", *(["task.runs=[latest]"] if task == "compare" else [])]
    right, wrong = [*words, "run=latest"], words
    if not schema("task", task).reads_run:
        right, wrong = wrong, right
    assert compose(right).task.name == task
    if schema("task", task).takes_run:
        assert compose(wrong).run == "latest"
        return
    with pytest.raises(Refused, match="run=latest"):
        compose(wrong)


def test_only_sample_evaluate_and_sync_make_no_run_of_their_own() -> None:
    assert [task for task in names("task") if not schema("task", task).makes_run] == [
        "evaluate",
        "sample",
        "sync",
    ]


# Weights that are tied by default


@pytest.mark.parametrize(
    ("words", "tied"),
    [
        ([], True),
        (["model.hidden_size=64"], True),  # the embedding is as wide
        (["model.hidden_size=64", "model.embedding_size=32"], False),
        (["model.embedding_size=256"], True),
        (["model.one_hot=true"], False),
        (
            ["model.bidirectional=true", "data/batching=windows", "evaluation.protocol=window"],
            False,
        ),
        (["model/softmax=adaptive"], False),
        (["model.tie_weights=false"], False),
    ],
)
def test_weights_are_tied_where_the_sizes_allow_it_unless_the_command_says_so(words, tied):
    assert compose(words).model.tie_weights is tied


def test_a_plain_command_reads_wikipedia_as_subwords_with_a_schedule_that_ends():
    config = compose([])
    assert (config.data.name, config.data.tokenizer.name) == ("wikipedia", "subword")
    assert config.optimizer.schedule.name == "cosine"
    assert config.training.epochs is not None
