"""A token stream as batches: windows, random, sequential."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unroll.data.batching import (
    IGNORE,
    Batch,
    Permutation,
    Random,
    Sequential,
    Unshuffled,
    WindowIndex,
    Windows,
)
from unroll.data.config import RandomConfig, SequentialConfig, WindowsConfig
from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.registry import build


def counting(*lengths: int) -> TokenStream:
    """Documents of these lengths that count on from each other: every id is its own place."""
    ends = np.cumsum(lengths)
    return TokenStream.from_documents(
        [np.arange(end - length, end) for length, end in zip(lengths, ends, strict=True)]
    )


def sequential(
    length: int, batch_size: int, random_offset: bool = False, random_length: bool = False
) -> Sequential:
    return Sequential(
        SequentialConfig("sequential", length, batch_size, random_offset, random_length)
    )


def random(length: int, batch_size: int, random_offset: bool = True) -> Random:
    return Random(RandomConfig("random", length, batch_size, random_offset))


def windows(length: int, batch_size: int, shuffle: bool = True) -> Windows:
    return Windows(WindowsConfig("windows", length, batch_size, shuffle))


def rows(batches: list[Batch]) -> list[list[int]]:
    return [row for batch in batches for row in batch.inputs.tolist()]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return [(b.inputs.tolist(), b.targets.tolist(), b.carry) for b in first] == [
        (b.inputs.tolist(), b.targets.tolist(), b.carry) for b in second
    ]


STREAMS = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(2, 150))


# Sequential


def test_sequential_batches_continue_where_the_last_ended():
    batches = list(sequential(6, 2).batches(counting(30), seed=0, epoch=0))
    assert [batch.inputs.tolist() for batch in batches] == [
        [[0, 1, 2, 3, 4, 5], [15, 16, 17, 18, 19, 20]],
        [[6, 7, 8, 9, 10, 11], [21, 22, 23, 24, 25, 26]],
    ]
    assert [batch.targets.tolist() for batch in batches] == [
        [[1, 2, 3, 4, 5, 6], [16, 17, 18, 19, 20, 21]],
        [[7, 8, 9, 10, 11, 12], [22, 23, 24, 25, 26, 27]],
    ]
    assert [batch.carry for batch in batches] == [False, True]


@settings(max_examples=80, deadline=None)
@given(STREAMS, st.booleans(), st.integers(0, 3))
def test_sequential_columns_are_runs_of_the_stream_side_by_side(shape, random_offset, epoch):
    length, batch_size, total = shape
    assume(total >= batch_size * (length + 1))
    batches = list(sequential(length, batch_size, random_offset).batches(counting(total), 3, epoch))
    offset = int(batches[0].inputs[0, 0])
    column = (total - offset) // batch_size
    assert 0 <= offset <= (length if random_offset else 0)
    assert len(batches) == (column - 1) // length >= 1
    for row in range(batch_size):
        read = torch.cat([batch.inputs[row] for batch in batches]).tolist()
        start = offset + row * column
        assert read == list(range(start, start + len(batches) * length))
    assert all(torch.equal(batch.targets, batch.inputs + 1) for batch in batches)
    assert [batch.carry for batch in batches] == [False] + [True] * (len(batches) - 1)


def test_sequential_offsets_are_drawn_anew_each_epoch_and_are_the_same_each_time():
    batching, stream = sequential(5, 2, random_offset=True), counting(100)
    firsts = [int(next(batching.batches(stream, 1, epoch)).inputs[0, 0]) for epoch in range(60)]
    again = [int(next(batching.batches(stream, 1, epoch)).inputs[0, 0]) for epoch in range(60)]
    assert firsts == again
    assert set(firsts) == set(range(6))


@settings(max_examples=80, deadline=None)
@given(STREAMS, st.booleans(), st.integers(0, 3))
def test_random_lengths_read_each_column_to_its_end_without_a_gap(shape, random_offset, epoch):
    length, batch_size, tokens = shape
    assume(tokens // batch_size - 1 >= length)
    stream, made = counting(tokens), sequential(length, batch_size, random_offset, True)
    batches = list(made.batches(stream, 1, epoch))
    inputs = torch.cat([batch.inputs for batch in batches], dim=1)
    targets = torch.cat([batch.targets for batch in batches], dim=1)
    column = (tokens - int(inputs[0, 0])) // batch_size
    assert inputs.shape == (batch_size, column - 1)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(column - 1))
    assert [batch.carry for batch in batches] == [False] + [True] * (len(batches) - 1)
    assert [batch.pace for batch in batches] == [b.inputs.shape[1] / length for b in batches]
    assert all(batch.inputs.shape[1] >= min(5, length) for batch in batches[:-1])


def test_random_lengths_have_the_mean_and_the_spread_of_both_their_normals():
    stream, made = counting(1_000_000), sequential(70, 2, random_length=True)
    lengths = np.array([batch.inputs.shape[1] for batch in made.batches(stream, 1, 0)][:-1])
    assert abs(made.steps(stream) / len(lengths) - 1) < 0.02
    short, whole = lengths[lengths < 52], lengths[lengths >= 52]  # far from both
    assert len(short) / len(lengths) == pytest.approx(0.05, abs=0.01)
    assert whole.mean() == pytest.approx(69.5, abs=0.3)  # rounded towards 0
    assert short.mean() == pytest.approx(34.5, abs=1.0)
    assert whole.std() == pytest.approx(5, abs=0.3)
    other = [batch.inputs.shape[1] for batch in made.batches(stream, 1, 1)]
    assert other[:50] != lengths[:50].tolist()


# Random


def test_random_batches_of_thirty_tokens_are_two_of_two_rows():
    batches = list(random(6, 2).batches(counting(30), seed=0, epoch=0))
    assert [tuple(batch.inputs.shape) for batch in batches] == [(2, 6), (2, 6)]
    assert not any(batch.carry for batch in batches)


def test_random_batches_without_an_offset_are_cut_from_the_first_token_on():
    batches = list(random(6, 2, random_offset=False).batches(counting(30), seed=0, epoch=0))
    assert sorted(rows(batches)) == [list(range(n, n + 6)) for n in (0, 6, 12, 18)]


@settings(max_examples=80, deadline=None)
@given(STREAMS, st.booleans(), st.integers(0, 3))
def test_random_rows_are_runs_cut_at_multiples_of_the_length(shape, random_offset, epoch):
    length, batch_size, total = shape
    assume(total > length * batch_size)
    batches = list(random(length, batch_size, random_offset).batches(counting(total), 3, epoch))
    found = rows(batches)
    starts = sorted(row[0] for row in found)
    offset = starts[0] % length
    assert all(row == list(range(row[0], row[0] + length)) for row in found)
    assert all(start % length == offset for start in starts)
    assert len(set(starts)) == len(starts), "no two overlap"
    assert all(torch.equal(batch.targets, batch.inputs + 1) for batch in batches)
    assert all(batch.targets.max() < total for batch in batches)
    assert all(batch.inputs.shape == (batch_size, length) for batch in batches)
    assert len(batches) == (total - 1 - offset) // length // batch_size >= 1
    assert random_offset or offset == 0


def test_random_offsets_take_every_value_below_the_length():
    firsts = {
        int(next(random(4, 1).batches(counting(100), 1, epoch)).inputs[0, 0]) % 4
        for epoch in range(60)
    }
    assert firsts == {0, 1, 2, 3}


# The same seed, another epoch


@pytest.mark.parametrize(
    "batching", [random(3, 2), windows(3, 2), sequential(3, 2, True), sequential(3, 2, True, True)]
)
def test_the_same_seed_and_epoch_give_the_same_batches(batching):
    stream = counting(120)
    assert same(list(batching.batches(stream, 5, 2)), list(batching.batches(stream, 5, 2)))


@pytest.mark.parametrize("batching", [random(3, 2, False), windows(3, 2)])
def test_another_epoch_or_seed_gives_the_same_rows_in_another_order(batching):
    stream = counting(121)
    here = rows(list(batching.batches(stream, 5, 2)))
    for seed, epoch in ((5, 3), (6, 2), (2, 5)):
        there = rows(list(batching.batches(stream, seed, epoch)))
        assert there != here
        assert sorted(there) == sorted(here)
    assert here != sorted(here)


@settings(max_examples=60, deadline=None)
@given(STREAMS)
def test_an_epoch_has_as_many_batches_as_steps_says(shape):
    length, batch_size, total = shape
    for batching in (
        sequential(length, batch_size),
        random(length, batch_size, random_offset=False),
        windows(length, batch_size),
    ):
        stream = counting(total, 1, length + 2)
        try:
            steps = batching.steps(stream)
        except Refused:
            steps = 0
        assert len(list(batching.batches(stream, 0, 0))) == steps


# Windows


def labs_samples(documents: list[list[int]], length: int) -> list[tuple[list[int], int]]:
    """The lab's create_data, with its loop unchanged."""
    samples = []
    for tokens in documents:
        if len(tokens) > length:
            for i in range(len(tokens) - length):
                samples.append((tokens[i : i + length], tokens[i + length]))
    return samples


def samples(batches: list[Batch]) -> list[tuple[list[int], int]]:
    return [
        (inputs, targets[-1])
        for batch in batches
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)
    ]


DOCUMENTS = st.lists(st.integers(0, 14), min_size=1, max_size=12)


@settings(max_examples=120, deadline=None)
@given(DOCUMENTS, st.integers(1, 6), st.integers(1, 7))
def test_windows_are_the_labs_samples_and_never_cross_a_document(lengths, length, batch_size):
    stream = counting(*lengths)
    documents = [stream.document(n).tolist() for n in range(stream.documents)]
    expected = labs_samples(documents, length)
    ordered = list(windows(length, batch_size, shuffle=False).batches(stream, 0, 0))
    assert samples(ordered) == expected
    shuffled = list(windows(length, batch_size).batches(stream, 0, 0))
    assert sorted(samples(shuffled)) == sorted(expected)
    for batch in ordered + shuffled:
        assert torch.all(batch.targets[:, :-1] == IGNORE)
        assert not batch.carry
    assert all(len(batch.inputs) == batch_size for batch in shuffled[:-1])


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(1, 6), st.integers(0, 4))
def test_a_window_index_skips_the_first_windows_of_each_document(lengths, length, skip):
    stream = counting(*lengths)
    index = WindowIndex(stream, length, skip)
    expected = [
        start + n
        for start, size in zip(stream.offsets[:-1].tolist(), lengths, strict=True)
        for n in range(skip, size - length)
    ]
    assert len(index) == len(expected)
    assert index.starts(np.arange(len(index))).tolist() == expected


# Permutation


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_permutation_of_every_small_size_names_each_number_once(epoch):
    for size in range(1, 301):
        assert sorted(Permutation(size, 3, epoch)(np.arange(size)).tolist()) == list(range(size))


@settings(max_examples=25, deadline=None)
@given(st.integers(300, 70_000), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_a_permutation_of_any_size_names_each_number_once(size, seed, epoch):
    found = Permutation(size, seed, epoch)(np.arange(size))
    assert np.array_equal(np.sort(found), np.arange(size))


def test_a_permutation_asked_for_in_pieces_is_the_same_one():
    whole = Permutation(1000, 1, 2)(np.arange(1000))
    pieces = [Permutation(1000, 1, 2)(np.arange(n, n + 7)) for n in range(0, 994, 7)]
    assert np.concatenate(pieces).tolist() == whole[:994].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 3000), st.booleans())
def test_the_parts_of_an_order_are_the_order_in_pieces(size, length, shuffle):
    order = Permutation(size, 1, 2) if shuffle else Unshuffled(size)
    parts = list(order.parts(length))
    assert np.concatenate(parts).tolist() == order(np.arange(size)).tolist()
    assert [len(part) for part in parts[:-1]] == [length] * (len(parts) - 1)
    assert 1 <= len(parts[-1]) <= length


def test_a_permutation_sends_every_place_about_equally_often_everywhere():
    found = np.stack([Permutation(8, 0, epoch)(np.arange(8)) for epoch in range(4000)])
    shares = np.stack([(found == number).mean(axis=0) for number in range(8)])
    assert np.abs(shares - 1 / 8).max() < 0.03


# Too little text


def test_text_too_short_for_a_window_is_refused_with_the_longest_document_named():
    with pytest.raises(Refused, match=r"length=7 tokens, the longest has 7.*data/batching"):
        windows(7, 2).steps(counting(3, 7, 5))
    assert windows(6, 2).steps(counting(3, 7, 5)) == 1


def test_a_stream_without_a_document_is_refused_too():
    with pytest.raises(Refused, match="the longest has 0"):
        windows(7, 2).steps(counting())


@pytest.mark.parametrize(("batching", "enough"), [(sequential(5, 3), 18), (random(5, 3), 16)])
def test_a_stream_too_short_for_one_batch_is_refused_with_its_length_named(batching, enough):
    assert batching.steps(counting(enough)) == 1
    assert len(list(batching.batches(counting(enough), 0, 0))) == 1
    with pytest.raises(Refused, match=rf"^{enough - 1} tokens are too few.*batch_size=3.*5 steps"):
        batching.steps(counting(enough - 1))


@pytest.mark.parametrize("name", ["windows", "random", "sequential"])
def test_every_batching_is_built_by_name_and_refuses_no_row_and_no_step(composed, name):
    config = composed(f"data/batching={name}").data.batching
    assert type(build("data/batching", config)).__name__ == name.capitalize()
    for key in ("length", "batch_size"):
        with pytest.raises(Refused, match=rf"data\.batching\.{key}=0"):
            type(config)(**{**vars(config), key: 0})


def test_a_batch_moves_to_a_device_with_all_it_says():
    batch = next(sequential(3, 2).batches(counting(30), 0, 0))
    moved = batch.to(torch.device("meta"))
    assert moved.inputs.device.type == moved.targets.device.type == "meta"
    assert moved.carry == batch.carry
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64


# Scored positions


def some(mask: list[list[bool]]) -> Batch:
    """A batch of which the positions in ``mask`` are scored."""
    scored = torch.tensor(mask)
    targets = torch.arange(scored.numel()).reshape(scored.shape)
    return Batch(targets, targets.masked_fill(~scored, IGNORE))


def all_kinds() -> dict[str, Batch]:
    return {
        "all": next(sequential(3, 2).batches(counting(30), 0, 0)),
        "last": next(windows(3, 4).batches(counting(30), 0, 0)),
        "some": some([[True, False, True], [False, False, True]]),
        "none": some([[False], [False]]),
        "all of some": some([[True, True], [True, True]]),
    }


@pytest.mark.parametrize("kind", all_kinds())
@pytest.mark.parametrize("time_first", [False, True])
def test_scored_positions_are_those_of_a_mask_over_the_targets(kind, time_first):
    batch = all_kinds()[kind]
    hidden = torch.randn(*batch.inputs.shape, 4)
    if time_first:  # in memory, as a recurrent module may return it
        hidden = hidden.transpose(0, 1).contiguous().transpose(0, 1)
    mask = batch.targets != IGNORE
    found, targets = batch.scored(hidden.requires_grad_())
    assert torch.equal(found, hidden[mask])
    assert torch.equal(targets, batch.targets[mask])
    weights = torch.randn_like(found)
    (gradient,) = torch.autograd.grad((found * weights).sum(), hidden)
    (expected,) = torch.autograd.grad((hidden[mask] * weights).sum(), hidden)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("kind", ["all", "last", "all of some"])
def test_where_all_or_the_last_positions_are_scored_nothing_is_copied(kind):
    batch = all_kinds()[kind]
    hidden = torch.randn(*batch.inputs.shape, 4)
    found, _ = batch.scored(hidden)
    assert found.untyped_storage().data_ptr() == hidden.untyped_storage().data_ptr()


@pytest.mark.parametrize("kind", all_kinds())
def test_scored_positions_and_their_number_are_known_without_reading_a_device(kind):
    """A tensor on the device "meta" has no values that could be read."""
    batch, meta = all_kinds()[kind], torch.device("meta")
    found, targets = batch.to(meta).scored(torch.empty(*batch.inputs.shape, 4, device=meta))
    assert found.device == targets.device == meta
    assert len(found) == len(targets) == int((batch.targets != IGNORE).sum())
