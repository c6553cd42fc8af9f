"""Words of the command line: what they mean, and what is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unroll import app
from unroll.app import compose
from unroll.errors import Refused
from unroll.overrides import to_hydra_command, to_hydra_override
from unroll.registry import free_text

Refusal = Callable[..., str]


@pytest.fixture
def refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refusal:
    """The line of a command that must be refused, and must leave nothing on disk."""
    monkeypatch.setattr("unroll.config.HOME", tmp_path)
    monkeypatch.chdir(tmp_path)

    def refusal_(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["unroll", *words])
        with pytest.raises(SystemExit) as ended:
            app.main()
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert printed.out == ""
        assert printed.err.startswith("unroll: ")
        assert printed.err.endswith("\n")
        assert len(printed.err.splitlines()) == 1
        assert len(printed.err) <= 501
        assert list(tmp_path.iterdir()) == []
        return printed.err.strip()

    return refusal_


KNOWN = "known: data, device, evaluation, model"
REFUSED = {
    ("train",): "cannot read 'train': write key=value",
    ("=",): "cannot read '=': write key=value",
    ("=3",): "cannot read '=3': write key=value",
    ("",): "cannot read '': write key=value",
    (" seed=1",): "cannot read ' seed=1': write key=value",
    ("seed=='",): "cannot read 'seed==''",
    ("seed=a=b=c",): "cannot read 'seed=a=b=c': write key=value; a value with special",
    ("ünï=ß",): "cannot read 'ünï=ß'",
    ("seed=分开",): "cannot read 'seed=分开'",
    ("seed=\ud800",): r"cannot read 'seed=\ud800'",
    ("\x1b[31m=1",): r"cannot read '\x1b[31m=1'",
    ("seed=\n\n1\x85\u2028",): "seed=",
    ("seed=" + "9" * 5000 + "x",): "expected an integer",
    ("x" * 5000 + "=1",): "a name of so many characters is not possible; shorten it",
    ("model=" + "x" * 5000,): "a name of so many characters is not possible; shorten it",
    ("x" * 200 + "=1",): "unknown key 'xxx",
    ("seed=",): "seed=: expected an integer",
    ("model=",): "unknown model ''",
    ("data.path=", "data=text_files"): "data.path",
    ("+foo=1",): f"unknown key 'foo': {KNOWN}",
    ("++foo=1",): f"unknown key 'foo': {KNOWN}",
    ("+sede=1",): f"unknown key 'sede': did you mean 'seed'? {KNOWN}",
    ("+foo.bar=1",): f"unknown key 'foo': {KNOWN}",
    ("+foo/bar=1",): "unknown key 'foo/bar'",
    ("+model.foo=1",): "unknown key in model 'foo'",
    ("+model.hiden_size=1",): "unknown key in model 'hiden_size': did you mean 'hidden_size'?",
    ("++model.foo=1",): "unknown key in model 'foo'",
    ("+data.vocabulary.foo=1",): "unknown key in data.vocabulary 'foo'",
    ("++data.batching=",): "data.batching=: expected keys; set one of them",
    ("++model=3",): "force-add of config groups is not supported",
    ("model.name=ltsm",): "unknown model 'ltsm': did you mean 'lstm'?",
    ("data.batching.name=",): "unknown data/batching ''",
    ("model.name=gru",): "unknown key in model 'forget_gate_bias'",
    ("+sampling.prefix.a=1",): "sampling.prefix={'a': 1}: expected a value, but got keys",
    ("~seed",): "~seed: a key cannot be removed",
    ("~model",): "~model: a key cannot be removed",
    ("~model.hidden_size=128",): "~model.hidden_size=128: a key cannot be removed",
    ("seed=1,2",): "seed=1,2 names several values: add -m to run each of them",
    ("model=rnn,gru",): "model=rnn,gru names several values: add -m",
    ("device='cpu',\"cuda\"",): "device='cpu',\"cuda\" names several values: add -m",
    ("seed=range(1,3)",): "seed=range(1,3) names several values: add -m",
    ("experiment=lab/lsmt",): "unknown experiment/lab 'lsmt': did you mean 'lstm'?",
    ("hydra/launcher=jobblib",): "did you mean 'joblib'? known: basic, joblib",
    ("hydra.foo=1",): "unknown key in hydra 'foo'",
    ("seed=${nope}",): "Interpolation key 'nope' not found",
    ("-m",): "-m needs the keys to vary: add key=value,value, as in -m seed=1,2,3",
    ("--multirun",): "-m needs the keys to vary",
    ("--cfg", "nonsense"): "invalid choice: 'nonsense' (choose from",
    ("--cfg",): "expected one argument",
    ("--cfg", "job", "-m", "seed=1"): "--multirun and --cfg exclude each other",
    ("--resolve",): "--resolve needs --cfg",
    ("--nonsense",): "unrecognized arguments: --nonsense",
    ("--experimental-rerun", "x"): "--experimental-rerun is not supported",
    ("--shell-completion",): "--shell-completion needs install=SHELL",
    ("--shell-completion", "x=y"): "--shell-completion needs install=SHELL",
    ("--config-name", "nope"): "unknown config 'nope': known: config",
    ("--config-dir", "/nope"): "'/nope' not found",
    ("hydra.run.dir=/proc/nope",): "hydra.run.dir=/proc/nope cannot be written",
    ("hydra.run.dir=/dev/null/x",): "hydra.run.dir=/dev/null/x cannot be written: Not a directory",
    (
        "-m",
        "seed=1,2",
        "hydra.sweep.dir=/proc/nope",
    ): "hydra.sweep.dir=/proc/nope cannot be written",
    (f"hydra.run.dir={'x' * 4000}",): "cannot be written: File name too long; name another folder",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wrong_command_is_refused_in_one_line_and_leaves_nothing(
    refusal: Refusal, words: tuple[str, ...]
) -> None:
    assert REFUSED[words] in refusal(*words)


WORDS = st.one_of(
    st.text(max_size=12),
    st.builds(
        "{}{}={}".format,
        st.sampled_from(["", "+", "++", "~"]),
        st.sampled_from(["seed", "model", "model.layers", "data.batching", "run", "x", "a/b", "."]),
        st.text(st.sampled_from("ab1 ,=+-~%()[]{}'\"\\:;.$@#*/|<>é分\t\n\x1b"), max_size=6),
    ),
).filter(lambda word: not word.startswith("-") and "hydra" not in word)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(WORDS, max_size=3))
def test_no_words_end_in_anything_but_one_line(refusal: Refusal, words: list[str]) -> None:
    refusal(*words, "data=text_files", "data.path=/nowhere")


def test_several_values_of_one_key_take_the_last() -> None:
    assert compose(["seed=1", "seed=2"]).seed == 2
    assert compose(["model=lstm", "model=gru"]).model.name == "gru"


def test_flags_may_stand_anywhere_among_the_overrides() -> None:
    expected = ["-m", "--cfg", "job"]
    assert to_hydra_command(["seed=1", "--cfg", "job", "run=x"]) == [
        "--cfg",
        "job",
        "seed=1",
        "run=x",
    ]
    assert to_hydra_command(["seed=1", expected[0], "run=x"]) == ["-m", "seed=1", "run=x"]


def test_a_dotted_group_is_the_group() -> None:
    assert to_hydra_override("optimizer.schedule=cosine") == "optimizer/schedule=cosine"
    assert compose(["optimizer.schedule=cosine"]).optimizer.schedule.name == "cosine"
    assert compose(["data.batching=windows"]).data.batching.length == 100
    cut = compose(["training.truncation=fixed", "training.truncation.steps=4"]).training.truncation
    assert (cut.name, cut.steps) == ("fixed", 4)


def test_every_key_that_takes_any_text_is_declared_at_its_config() -> None:
    keys = {"run", "data.path", "data.valid_path", "data.test_path", "data.text_column"}
    keys |= {"sampling.prefix", "sampling.stop", "evaluation.text", "tracking.run_name"}
    assert free_text >= keys
    assert not free_text & {"model.name", "seed", "data.batching", "evaluation.protocol"}


@pytest.mark.parametrize(
    "text", ["Oil prices, up 5%", "it's", "分开", "a=b", "{x}", 'say "no"', "back\\slash", "[1"]
)
def test_a_prefix_means_itself_whatever_signs_it_holds(text: str) -> None:
    assert compose([f"sampling.prefix={text}"]).sampling.prefixes == [text]


@given(st.text(st.sampled_from("ab1 ,=+~%()[]{}'\"\\:;.!?$@#*/|&<>^`é分\t-"), max_size=8))
def test_a_text_of_any_signs_reaches_hydra_unchanged(signs: str) -> None:
    text = f"x{signs}"  # by itself, [1] is a list and 1 a number
    override = OverridesParser.create().parse_override(to_hydra_override(f"run={text}"))
    assert override.value() == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("[a,b]", ["a", "b"]), ("null", None), ("3", 3), ("'a b'", "a b"), ('"a b"', "a b")],
)
def test_a_list_null_a_number_and_a_quoted_text_keep_their_meaning(
    text: str, value: object
) -> None:
    word = to_hydra_override(f"sampling.prefix={text}")
    assert OverridesParser.create().parse_override(word).value() == value


def test_a_comma_separates_texts_only_in_a_multirun() -> None:
    assert to_hydra_override("run=a,b") == "run='a,b'"
    assert to_hydra_override("run=a,b", multirun=True) == "run=a,b"


def test_composing_refuses_what_the_command_line_refuses() -> None:
    for word in ("~seed", "+foo=1", "train"):
        with pytest.raises(Refused):
            compose([word])
