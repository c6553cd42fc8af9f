"""The bench: ratios, counts, the peer's log, equal work on both sides, and the section."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from experiments.bench import (
    contest,
    counts,
    encoding,
    growth,
    machine,
    others,
    ours,
    peer,
    plain,
    text,
)
from experiments.bench import section as page_section
from experiments.bench.contest import Bar, Bench, Contest, Ours, Row, bar
from experiments.bench.counts import Cluster, Cost, Shape
from experiments.bench.growth import Grown
from experiments.bench.machine import Machine
from experiments.bench.ours import Subject
from experiments.bench.results import HEAD, Measurement, Results, aligned
from experiments.bench.rows import AWD, CONTESTS
from experiments.bench.turns import COST, EXTRA, RATE, Repeated, compared, in_turns
from experiments.running import sections

from unroll.errors import Refused
from unroll.evaluation.perplexity import score
from unroll.report import page

SMALL = "model.hidden_size=8 model.embedding_size=6 model.layers=2 data.batching.batch_size=4"
SLOW = Machine("cpu", ["a processor"], {"float32": 1e9, "bfloat16": 5e8}, 1e8)
LOG = """Using device: cpu
| epoch   1 |    10/ 1327 batches | lr 20.00 | ms/batch 95.50 | loss  7.10 | ppl  1211.97
| epoch   1 |    20/ 1327 batches | lr 20.00 | ms/batch 90.00 | loss  6.50 | ppl   665.14
| epoch   1 |    30/ 1327 batches | lr 20.00 | ms/batch 80.00 | loss  6.50 | ppl   665.14
-----------------------------------------------------------------------------------------
| end of epoch   1 | time: 125.60s | valid loss  5.38 | valid ppl   216.50
-----------------------------------------------------------------------------------------
""".splitlines()


def small(words: str = "", cell: str = "lstm") -> Subject:
    source = text.generated(3000, 50)
    overrides = [f"model={cell}", *SMALL.split(), "data.batching.length=10", *words.split()]
    return Subject.of(overrides, source, "cpu")


def test_every_side_has_a_turn_before_any_has_its_next() -> None:
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = in_turns({"a": lambda: turn("a"), "b": lambda: turn("b")}, turns=2, warm_ups=1)
    assert order == list("ababab")
    assert found == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


@pytest.mark.parametrize(
    ("measure", "median", "low", "high"),
    [(RATE, 2.0, 1.5, 4.0), (COST, 0.5, 0.25, 2 / 3), (EXTRA, 4.0, 2.0, 9.0)],
)
def test_a_ratio_is_the_median_over_turns_with_its_ends(
    measure: object, median: float, low: float, high: float
) -> None:
    found = compared(measure, ours=[6.0, 12.0, 8.0], other=[4.0, 3.0, 4.0])
    assert (found.median, found.low, found.high) == pytest.approx((median, low, high))


def test_a_bar_is_a_least_ratio_or_a_largest_difference() -> None:
    assert RATE.reached(2.0, 2.0)
    assert not COST.reached(1.9, 2.0)
    assert EXTRA.reached(50.0, 50.0)
    assert not EXTRA.reached(51.0, 50.0)
    assert Bar(2.0, 1.3).on(SLOW) == 1.3
    native = replace(SLOW, products={"float32": 1e9, "bfloat16": 2e9})
    assert Bar(2.0, 1.3).on(native) == 2.0


def test_a_turn_repeats_its_work_until_it_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 1.0, 2.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    done: list[int] = []
    turn = Repeated(lambda count: done.append(count) or 10.0 * count)
    assert turn() == 20.0
    assert turn() == 20.0
    assert done == [1, 3]
    assert turn.amount == 40.0


@pytest.mark.parametrize("cell", plain.CELLS)
def test_operations_are_two_for_each_weight_of_cell_and_softmax(cell: str) -> None:
    one = small(cell=cell)
    model = others.model(one.config, one.text, "cpu")
    weights = [p for name, p in model.named_parameters() if "weight" in name and "emb" not in name]
    assert one.shape.operations == 2 * sum(weight.numel() for weight in weights)
    assert one.shape.weights == sum(weight.numel() for weight in weights)


def test_a_cluster_counts_for_the_words_that_need_it() -> None:
    head, tail = Cluster(100), Cluster(900, share=0.25, projection=4)
    shape = Shape("rnn", 8, [16], [head, tail])
    cell, first, second = 16 * (8 + 16), 16 * 100, 4 * (16 + 900)
    assert shape.operations == 2 * (cell + first + second / 4)
    learning = shape.learning(words=10, optimizer="adam")
    assert learning == Cost(3 * shape.operations, 4 * 8 * (cell + first + second) / 10)
    one, many = shape.writing(1), shape.writing(1000)
    assert one.bytes == 4 * (cell + first + second / 4)
    assert many.bytes * 1000 == pytest.approx(4 * (cell + first + second))
    assert shape.writing(1, bytes_per_weight=1).bytes == one.bytes / 4


def test_an_adaptive_softmax_counts_its_shortlist_and_the_tails_by_their_words() -> None:
    source = text.generated(3000, 50)
    softmax = SimpleNamespace(cutoffs=[10, 30], div_value=2.0)
    shortlist, first, second = ours.clusters(softmax, 8, source)
    assert (shortlist, first.tokens, second.tokens) == (Cluster(12), 20, 20)
    assert (first.projection, second.projection) == (4, 2)
    counts = source.counts()
    assert first.share + second.share == pytest.approx(1 - counts[:10].sum() / counts.sum())
    assert ours.clusters(SimpleNamespace(), 8, source) == [Cluster(50)]
    one = small("model/softmax=adaptive")
    weights = [weight.numel() for weight in one.model.softmax.parameters() if weight.dim() == 2]
    assert sum(part.weights(8) for part in one.shape.clusters) == sum(weights)


def test_the_limit_is_set_by_the_slower_of_products_and_memory() -> None:
    assert counts.limit(Cost(100.0, 10.0), products=1000.0, bandwidth=1000.0).by == "products"
    found = counts.limit(Cost(100.0, 10.0), products=1000.0, bandwidth=20.0)
    assert (found.by, found.rate) == ("memory", 2.0)


def test_speed_and_epochs_of_the_peer_are_read_from_its_log() -> None:
    assert list(peer.milliseconds(LOG)) == [95.5, 90.0, 80.0]
    assert list(peer.epochs(LOG)) == [peer.Epoch(125.6, 216.5)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A program with the peer's options that prints a log."""
    folder = tmp_path / "examples" / "word_language_model"
    folder.mkdir(parents=True)
    (folder / "model.py").touch()
    (folder / "main.py").write_text(
        "import os, sys\n"
        "data = sys.argv[sys.argv.index('--data') + 1]\n"
        "print(os.listdir(data), *sys.argv)\n"
        f"print({chr(10).join(LOG)!r})\n"
    )
    for split in ("train", "valid", "test"):
        (tmp_path / f"ptb.{split}.txt").write_text("a b\n")
    return tmp_path


def test_the_peer_runs_as_it_is_and_its_first_line_is_a_warm_up(checkout: Path) -> None:
    place = str(checkout / "examples")
    found = peer.words_a_second(place, str(checkout), "lstm", 200)
    assert found == pytest.approx(1000 * 20 * 35 / 85)
    assert peer.trained(place, str(checkout), "lstm", 200, 1) == [peer.Epoch(125.6, 216.5)]
    with peer.running(place, str(checkout), peer.sizes("rnn", 200)) as log:
        first = next(iter(log))
    assert {"train.txt", "valid.txt", "test.txt"} <= set(re.findall(r"\w+\.txt", first))
    assert "--model RNN_TANH --emsize 200 --nhid 200 --nlayers 2" in first


def test_a_peer_that_stops_is_refused_with_its_last_line(checkout: Path) -> None:
    (checkout / "examples" / "word_language_model" / "main.py").write_text("raise OSError('full')")
    with pytest.raises(Refused, match="OSError: full"):
        peer.words_a_second(str(checkout / "examples"), str(checkout), "lstm", 200)


def test_a_folder_without_the_peer_is_refused_in_one_line_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.bench import __main__ as command

    monkeypatch.setenv("PEER", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"bench: PEER={tmp_path}: no word_language_model/main.py")
    assert line.count("\n") == 1


def test_rows_that_do_not_exist_are_refused() -> None:
    with pytest.raises(Refused, match="did you mean 'twin'"):
        contest.selected(CONTESTS, ["twins"], ["growth"])
    assert contest.selected(CONTESTS, ["growth"], ["growth"]) == ["growth"]
    assert "lab" in contest.selected(CONTESTS, [], ["growth"])


@pytest.mark.parametrize("cell", plain.CELLS)
def test_the_twin_learns_the_same_words_as_ours_and_ends_at_the_same_perplexity(cell: str) -> None:
    one = small("training.clip_norm=0.25 precision=float32", cell)
    steps = 5
    valid = text.generated(400, 50).stream
    one = replace(one, text=replace(one.text, valid=valid))
    twin = others.twin_perplexity(one, "cpu", steps)
    learned = ours.Learning(one)(steps)
    assert learned == others.twin_learning(one.config, one.text, "cpu")(steps) == steps * 4 * 10
    assert ours.scored(one, valid).perplexity == pytest.approx(twin, rel=1e-3)


NOTHING_DROPPED = (
    "training.weight_dropout=0 training.word_dropout=0 model.embedding_dropout=0 model.dropout=0 "
    "model.output_dropout=0 data.batching.random_length=false optimizer.learning_rate=1"
)


def test_the_plain_awd_lstm_ends_with_our_weights_where_nothing_is_dropped() -> None:
    """The same layers, penalties, clipping and decay; the same batches."""
    one = small(f"{AWD} {NOTHING_DROPPED} model.last_size=6 precision=float32")
    weights = {
        re.sub(r"cell\.module\.(\w+)_l(\d)", r"layers.\2.lstm.\1_l0", name)
        .replace("lstm.weight_hh_l0", "raw")
        .replace("softmax.", ""): tensor.clone()
        for name, tensor in one.model.state_dict().items()
    }
    twin = others.awd(one.config, one.text, "cpu")
    twin.load_state_dict(weights)
    pairs = islice(others.batches(one.config, one.text, "cpu"), 8)
    learned = plain.learn_every_word(twin, others.optimizer(one.config, twin), pairs, 0.25)
    assert ours.Learning(one)(8) == learned == 8 * 4 * 10
    own = dict(one.model.named_parameters())
    for name, ours_name in (("embedding.weight",) * 2, ("layers.1.raw", "weight_hh_l1")):
        found = own.get(ours_name, own.get(f"cell.module.{ours_name}"))
        assert not torch.allclose(found, weights[name], rtol=1e-3)
        torch.testing.assert_close(found, twin.get_parameter(name), rtol=1e-3, atol=1e-5)


def test_the_plain_awd_lstm_drops_words_units_of_a_row_and_recurrent_weights() -> None:
    torch.manual_seed(0)
    model = plain.PlainAWD(50, [60, 40], (0.5,) * 5, (2.0, 1.0))
    read: list[torch.Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    ids = torch.arange(50).repeat(3, 2)  # every word twice in each row
    hidden, _ = model(ids)
    for values in (hidden, read[0][:, 0]):
        assert 0.2 < (values == 0).float().mean() < 0.8
    assert bool(((hidden == 0).all(0) | (hidden != 0).all(0)).all())
    words = (read[0] == 0).all(-1)
    assert 0.2 < words.float().mean() < 0.8
    assert torch.equal(words[:50], words[50:])
    first = [layer.lstm.weight_hh_l0 for layer in model.layers]
    model.loss(model.linear(hidden), ids).backward()
    model(ids)
    for layer, before in zip(model.layers, first, strict=True):
        assert (before == 0).float().mean() == pytest.approx(0.5, abs=0.03)
        assert not torch.equal(before, layer.lstm.weight_hh_l0)
        assert layer.raw.grad.abs().sum() > 0
    model.eval()
    assert torch.equal(model(ids)[0], model(ids)[0])


def test_a_step_of_the_lab_and_one_of_ours_read_the_same_number_of_words() -> None:
    one = small("data/batching=windows data.batching.length=20 data.batching.batch_size=4")
    windows = next(others.batches(one.config, one.text, "cpu"))
    sequence = small("data.batching.length=20")
    assert windows[0].numel() == 80 == ours.Learning(sequence)(1)
    assert others.lab_learning(one.config, one.text, "cpu")(3) == 3 * 4


def test_the_lab_scores_the_same_words_as_ours_with_the_same_nats() -> None:
    one = small("evaluation.protocol=window evaluation.context=7 precision=float32")
    model = others.copied(one.model, others.model(one.config, one.text, "cpu")).eval()
    ids = others.head(one.text, "cpu", 30)
    stream = text.TokenStream.from_documents([ids.numpy().astype(np.int32)])
    found = score(one.model, stream, one.config.evaluation, 0)
    assert plain.score_by_windows(model, ids, 7) == pytest.approx(found.nats, rel=1e-5)
    assert ours.scoring(one)(29) == 29 == found.tokens
    lab = others.lab_scoring(one.config, one.text, "cpu")
    assert lab(2) == 2 * (others.ARTICLE - 1)


def test_a_text_scored_in_parts_has_the_nats_of_one_pass() -> None:
    one = small()
    model = others.model(one.config, one.text, "cpu").eval()
    ids = others.head(one.text, "cpu", 40)
    assert plain.score_in_sequence(model, ids, 7) == pytest.approx(
        plain.score_in_sequence(model, ids, 39), rel=1e-5
    )


def test_every_way_of_writing_writes_the_words_that_it_counts() -> None:
    one = small("precision=float32")
    assert others.lab_writing(one.config, one.text, "cpu")(5) == 5
    assert ours.writing(one, texts=1)(5) == 5
    assert ours.writing(one, texts=3)(5) == 15
    assert ours.writing(ours.eight_bits(one), texts=3)(5) == 15


def test_a_generated_text_follows_zipfs_law_and_has_no_special_token(tmp_path: Path) -> None:
    size = 104
    ids = text.zipf(200_000, size, np.random.default_rng(1))
    assert ids.min() == 4
    assert ids.max() == size - 1
    ranks = np.arange(1, size - 3)
    expected = np.log1p(1 / ranks) / math.log(size - 3)
    np.testing.assert_allclose(np.bincount(ids)[4:] / len(ids), expected, atol=4e-3)
    text.write(tmp_path / "ids", 1000, size)
    mapped = text.mapped(tmp_path / "ids", size)
    assert len(mapped.stream) == 1000
    assert mapped.stream.documents == 1


def test_a_point_of_growth_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = growth.probe("model=rnn model.hidden_size=4 model.embedding_size=4", 5000, 50, 1)
    assert found.rate > 0
    assert found.megabytes > 50
    with pytest.raises(Refused, match=r"model\.hidden_size=0"):
        growth.probe("model.hidden_size=0", 5000, 50, 1)


def test_tokenizing_is_measured_in_processes_of_its_own() -> None:
    rate, megabytes = encoding.probe(0.1, 1, "data/tokenizer=word")
    assert rate > 0
    assert 20 < megabytes < 2000


def test_memory_that_is_held_is_seen_and_mapped_pages_are_not(tmp_path: Path) -> None:
    if not (encoding.PROC / "self" / "status").exists():
        pytest.skip("needs /proc")
    (tmp_path / "mapped").write_bytes(bytes(1 << 26))
    with encoding.peak() as found:
        mapped = np.memmap(tmp_path / "mapped", np.uint8, mode="r")
        assert mapped.sum() == 0
        time.sleep(4 * encoding.SAMPLED)
        before = max(found)
        grown = np.ones(1 << 28, np.uint8)
        time.sleep(4 * encoding.SAMPLED)
    assert before < found[0] + (1 << 25)
    assert max(found) - before > 0.9 * len(grown)


def fixed(value: float) -> object:
    return lambda bench: lambda: value


def test_a_contest_makes_a_row_for_each_side_and_says_why_one_is_missing() -> None:
    def refused(bench: Bench) -> Ours:
        raise Refused("no such softmax")

    sides = {"full": lambda bench: Ours(lambda: 8.0, "float32", Cost(1e8, 0.0)), "other": refused}
    one = Contest("x", "work", "words", "them", fixed(4.0), sides, {"full": bar(2.5)})
    full, other = one.rows(Bench(SLOW))
    assert (full.name, full.ours, full.other) == ("work, full", [8.0] * 3, [4.0] * 3)
    assert (full.ratio.median, full.reached) == (2.0, False)
    assert full.share(SLOW) == pytest.approx(0.8)
    assert (other.reason, other.ours, other.reached) == ("no such softmax", [], None)
    (absent, _) = replace(one, needs=("PEER", "FULL")).rows(Bench(SLOW, {"FULL": "1"}))
    assert absent.reason == "give PEER=..."


def test_every_row_has_a_name_of_its_own_against_each_other_side() -> None:
    names = [(one.name, one.against, label) for one in CONTESTS for label in one.ours]
    assert len(set(names)) == len(names)


def found_results() -> Results:
    rows = [
        Row("training, full", "words", "the twin", ours=[30.0, 40.0], other=[10.0, 10.0], bar=2.0,
            precision="float32", operations=1e7, bytes=1e5),
        Row("training, full", "words", "PyTorch's example", reason="give PEER=..."),
        Row("memory", "MB", "1 million", "extra", 50.0, [260.0], [200.0], "float32"),
    ]  # fmt: skip
    cuda = Measurement(replace(SLOW, device="cuda"), [replace(rows[0], ours=[90.0, 90.0])])
    grown = [
        Grown(axis.name, softmax, place, 100.0 * place, 300.0)
        for axis in growth.AXES
        for softmax in axis.softmaxes
        for place in axis.points
    ]
    grown += [Grown(encoding.AXIS, "word, 1 process", size, 5.0, 200.0) for size in encoding.SIZES]
    devices = {"cpu": Measurement(SLOW, rows), "cuda": cuda}
    return Results("make bench PEER=...", "0123456789abcdef", "2026-01-31", devices, grown)


def test_the_table_shows_ratio_bar_share_of_the_limit_and_the_gpu() -> None:
    twin, example, memory = found_results().table()
    assert twin == [
        "training, full", "the twin", "10", "35 words, float32", "3.50 (3.00 to 4.00)",
        "at least 2", "yes", "35% (products)", "9.00 (9.00 to 9.00)",
    ]  # fmt: skip
    assert example[4:] == ["not measured: give PEER=...", "", "", "", "not measured"]
    assert memory[4:7] == ["+60.0", "at most +50", "no"]
    assert found_results().reached() == (1, 2)
    lines = aligned([HEAD, twin]).splitlines()
    assert lines[0].index("ratio") == lines[1].index("3.50 (")


def test_results_are_read_as_they_were_kept(tmp_path: Path) -> None:
    found_results().keep(tmp_path / "bench.json")
    assert Results.read(tmp_path / "bench.json") == found_results()


def test_the_section_is_drawn_from_the_file_and_absent_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "bench.json"
    monkeypatch.setattr(page_section, "PLACE", place)
    assert page_section.STUDY.missing() == "needs measurements: make bench"
    found_results().keep(place)
    assert page_section.STUDY.missing() is None
    made = sections(page_section.STUDY, {})
    assert page.write(tmp_path / "index.html", "Title", [], made)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "make bench PEER=..." in html
    assert "1 of the 2 bars" in html
    assert "generated under Zipf&#39;s law over 57,258 tokens" in html
    for name in ("bench_growth", "bench_encoding"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()


def test_a_larger_machine_is_predicted_at_the_same_share_of_its_limit() -> None:
    row = found_results().devices["cpu"].rows[0]
    four = page_section.larger(SLOW)["4 times the cores and the memory"]
    assert page_section.predicted(row, SLOW, four) == pytest.approx(4 * 35)
    narrow = replace(four, bandwidth=1e6)
    assert page_section.predicted(row, SLOW, narrow) == pytest.approx(0.35 * 10)


def test_the_machine_is_measured_by_products_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIDES", (8, 16))
    monkeypatch.setattr(machine, "BYTES", 1 << 12)
    found = machine.measure("cpu")
    assert set(found.products) == {"float32", "bfloat16"}
    assert min(*found.products.values(), found.bandwidth) > 0
    assert found.facts[1].endswith(f"{torch.get_num_threads()} threads")
