"""AG News in each of the forms in which it is distributed."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from files import documents, written

from unroll.data.ag_news import AGNews
from unroll.errors import Refused

TRAIN = [
    ("3", "Wall St. Bears", r"Reuters - Short-sellers, Wall Street's dwindling\band, see green."),
    ("4", 'A "quoted" title', "Two  spaces, a comma\nand a line break."),
    ("1", "0700", "NA"),
]
TEST = [("2", "Only one", "test article.")]
TEXTS = {
    split: [f"{title} {description}" for _, title, description in rows]
    for split, rows in (("train", TRAIN), ("test", TEST))
}


def published(folder: Path, train: list[tuple[str, ...]] = TRAIN) -> Path:
    """A folder of train.csv and test.csv as they are published: all fields quoted, no header."""
    for split, rows in (("train", train), ("test", TEST)):
        buffer = io.StringIO(newline="")
        csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
        written(folder, f"{split}.csv", buffer.getvalue())
    return folder


def as_parquet(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for split, texts in TEXTS.items():
        table = pa.table({"text": texts, "label": [0] * len(texts)})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def saved(folder: Path) -> Path:
    from datasets import Dataset, DatasetDict

    tables = {
        split: Dataset.from_dict({"text": texts, "label": [0] * len(texts)})
        for split, texts in TEXTS.items()
    }
    DatasetDict(tables).save_to_disk(str(folder))
    return folder


def test_every_form_of_the_data_set_gives_the_same_documents(ag_news, tmp_path):
    as_parquet(tmp_path / "hub" / "data")
    for folder in (
        published(tmp_path / "csv"),
        as_parquet(tmp_path / "parquet"),
        tmp_path / "hub",
        saved(tmp_path / "saved"),
    ):
        assert documents(ag_news(folder)) == TEXTS, folder.name


def test_the_fingerprint_follows_the_content_of_the_published_files(ag_news, tmp_path):
    first = ag_news(published(tmp_path / "a")).fingerprint()
    assert ag_news(published(tmp_path / "b")).fingerprint() == first
    assert ag_news(published(tmp_path / "c", TRAIN[:2])).fingerprint() != first


def test_a_folder_without_the_data_set_is_refused_with_all_three_forms(ag_news, tmp_path):
    written(tmp_path, "readme.txt", "nothing here")
    with pytest.raises(Refused) as refused:
        ag_news(tmp_path).read()
    for form in ("train.csv and test.csv", "train*.parquet", "save_to_disk"):
        assert form in str(refused.value)
    with pytest.raises(Refused, match="does not exist"):
        ag_news(tmp_path / "nowhere").read()
    with pytest.raises(Refused, match="is a file: give the folder"):
        ag_news(tmp_path / "readme.txt").read()


@pytest.mark.parametrize(
    ("make", "name"),
    [(published, "test.csv"), (as_parquet, "test-00000-of-00001.parquet"), (saved, "test")],
    ids=["csv", "parquet", "saved"],
)
def test_a_folder_without_a_test_split_is_refused(ag_news, tmp_path, make, name):
    place = make(tmp_path / "ag") / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(Refused, match=r"data\.path=.*ag has no test"):
        ag_news(tmp_path / "ag").read()


@pytest.mark.parametrize(
    "row",
    [
        ("Class Index", "Title", "Description"),
        ("3", "no description"),
        ("3", "one", "column", "too many"),
        ("x" * 5000, "y", "z"),
    ],
    ids=["header", "short", "long", "no label"],
)
def test_a_csv_with_other_columns_is_refused_in_a_bounded_line(ag_news, tmp_path, row):
    folder = published(tmp_path / "ag", [row, *TRAIN])
    with pytest.raises(Refused, match=r"line 1: expected a label .* and no header") as refused:
        ag_news(folder).read()
    assert len(str(refused.value)) < 500


def test_a_damaged_split_is_refused(ag_news, tmp_path):
    folder = saved(tmp_path / "saved")
    next((folder / "train").glob("*.arrow")).write_bytes(b"no arrow")
    with pytest.raises(Refused, match="cannot be read"):
        ag_news(folder).read()
    folder = as_parquet(tmp_path / "parquet")
    written(folder, "train-00000-of-00001.parquet", "no parquet")
    with pytest.raises(Refused, match="cannot be read as Parquet"):
        ag_news(folder).read()


def test_ag_news_out_of_reach_is_refused_with_what_to_do_instead(ag_news):
    corpus = ag_news("unused")
    corpus.config = replace(corpus.config, path=None)
    with pytest.raises(Refused, match=r"data\.path=.*data=lee_news"):
        corpus.read()


def test_ag_news_is_downloaded_at_one_revision_and_below_its_limit(ag_news, monkeypatch):
    asked = {}

    def builder(name, **keywords):
        asked.update(keywords, name=name)
        return SimpleNamespace(info=SimpleNamespace(download_size=AGNews.LARGEST + 1))

    monkeypatch.setattr("datasets.load_dataset_builder", builder)
    corpus = ag_news("unused")
    corpus.config = replace(corpus.config, path=None)
    with pytest.raises(Refused, match="more than"):
        corpus.read()
    assert asked == {"name": AGNews.HUB, "revision": AGNews.REVISION}


def test_the_ag_news_at_hand_has_its_known_articles(ag_news, shared):
    tables = ag_news(shared("ag_news")).read()
    assert {split: len(table) for split, table in tables.items()} == {"train": 19_998, "test": 7600}
