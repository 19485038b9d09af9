"""Tables as data: columns to numbers, targets, splits and groups; and every way in which a table can be unfit."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from typer.testing import CliRunner, Result

from dltrain import ConfigError, Experiment
from dltrain.cli import app
from dltrain.data.tables.datasets import Table
from dltrain.data.tables.encoding import Encoding
from dltrain.data.tables.reading import read_table
from dltrain.data.targets import Classes, Labels, NoTarget, Real

HEAD = "size,colour,age,kind\n"
ROWS = [f"{size},{colour},{age},{'big' if size > 5 else 'small'}" for size, colour, age in zip(
    [1, 9, 2, 8, 3, 7, 2.5, 7.5, 1.5, 8.5, 4, 6, 0.5, 9.5], "rgbrgbrgbrgbrg", range(20, 34))]  # fmt: skip


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def experiment(path: Path, **options: object) -> Experiment:
    data = {"name": "table", "path": str(path), "target": "kind", "validation": 0.25, "test": 0.25, **options}
    return Experiment.parse(f"data: {json.dumps(data)}\nmodel: softmax_regression\n")


def inputs(experiment: Experiment) -> dict[str, np.ndarray]:
    """What the network gets of each split."""
    splits = experiment.load_data()
    encoding = experiment.data.preprocess(splits, (), None).train
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: part.whole(encoding)[0].numpy() for name, part in parts.items() if part is not None}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write(tmp_path / "t.csv", HEAD + "\n".join(ROWS))


def test_columns_become_the_numbers_of_scikit_learn(plain: Path) -> None:
    for scaling, scaler in (("standardize", StandardScaler()), ("min_max", MinMaxScaler()), ("none", "passthrough")):
        made = experiment(plain, scaling=scaling)
        splits, found = made.load_data(), inputs(made)
        columns = {name: part.table.columns for name, part in (("train", splits.train), ("test", splits.test))}  # type: ignore[attr-defined, union-attr]
        rows = {
            name: np.array([*zip(each["size"].numbers, each["colour"].words, each["age"].numbers)], dtype=object)
            for name, each in columns.items()
        }
        reference = ColumnTransformer(
            [("size", scaler, [0]), ("colour", OneHotEncoder(sparse_output=False), [1]), ("age", scaler, [2])]
        )
        assert found["train"] == pytest.approx(reference.fit_transform(rows["train"]).astype(float), abs=1e-6)
        assert found["test"] == pytest.approx(reference.transform(rows["test"]).astype(float), abs=1e-6)


def test_empty_cells_are_filled_by_what_the_training_part_teaches(tmp_path: Path) -> None:
    table = read_table(str(write(tmp_path / "t.csv", "a,b\n1,x\n,x\n3,\n10,y\nNA,z\n")))
    train = np.arange(4)
    with pytest.raises(ConfigError, match="row 2 has no value in column `a`"):
        Encoding.fitted(table, train)
    for missing in ("mean", "median"):
        column = table.columns["a"].numbers
        assert column is not None
        filled = SimpleImputer(strategy=missing).fit(column[:4, None]).transform(column[:, None])[:, 0]
        encoding = Encoding.fitted(table, train, missing)  # type: ignore[arg-type]
        found = encoding.encode(table).numpy()
        assert found[:, 0] == pytest.approx(filled) and encoding.names == ["a", "b=x", "b=y"]
        assert found[:, 1:].tolist() == [[1, 0], [1, 0], [0, 0], [0, 1], [0, 0]], "nothing and an unseen word are zeros"
        assert encoding.unseen(table) == {"b": 1}
    encoding = Encoding.fitted(table, train, "indicator")
    assert encoding.names == ["a", "a is missing", "b=x", "b=y", "b="]
    assert encoding.encode(table)[:, [1, 4]].tolist() == [[0, 0], [1, 0], [0, 1], [0, 0], [1, 0]]
    assert Encoding.from_dict(encoding.to_dict()) == encoding


@pytest.mark.parametrize("kind", ["pca_whiten", "zca_whiten"])
def test_whitened_rows_are_uncorrelated_and_keep_that_in_the_checkpoint(kind: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(200, 3)) @ draw.normal(size=(3, 3)) * [1, 100, 0.01] + [5, 0, -3]
    lines = "\n".join(",".join(map(repr, row)) for row in values.tolist())
    table = read_table(str(write(tmp_path / "t.csv", f"a,b,c\n{lines}")))
    encoding = Encoding.fitted(table, np.arange(200), "error", kind, epsilon=1e-12)  # type: ignore[arg-type]
    found = encoding.encode(table).double().numpy()
    assert np.cov(found.T, bias=True) == pytest.approx(np.eye(3), abs=1e-4)
    assert np.array_equal(Encoding.from_dict(encoding.to_dict()).encode(table).numpy(), encoding.encode(table).numpy())
    if kind == "zca_whiten":  # the one that changes the standardized rows least
        standard = StandardScaler().fit_transform(values)
        assert all(np.corrcoef(found[:, column], standard[:, column])[0, 1] > 0.5 for column in range(3))


def test_every_form_of_a_table_is_the_same_table(plain: Path, tmp_path: Path) -> None:
    import polars

    text = plain.read_text()
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    write(tmp_path / "semicolons.csv", text.replace(",", ";"))
    write(tmp_path / "tabs.tsv", "\ufeff" + text.replace(",", "\t"))
    polars.read_csv(plain).write_parquet(tmp_path / "t.parquet")
    marks = {
        experiment(tmp_path / name).load_data().fingerprint
        for name in ("t.csv", "t.csv.gz", "semicolons.csv", "tabs.tsv", "t.parquet")
    }
    assert len(marks) == 1
    indexed = "\n".join(f"{number},{row}" for number, row in enumerate(ROWS))
    marks.add(experiment(write(tmp_path / "pandas.csv", f",{HEAD}{indexed}")).load_data().fingerprint)
    assert len(marks) == 1, "the numbers of rows that pandas writes are no column"
    bare = experiment(write(tmp_path / "bare.csv", "\n".join(ROWS)), header=False, target="column_4")
    assert np.array_equal(inputs(bare)["train"], inputs(experiment(plain))["train"])


def test_what_a_target_is_follows_from_its_column_and_from_the_task(tmp_path: Path) -> None:
    rows = [f"{n},{n % 3},{n * 0.5},{'ab'[n % 2]},{n % 2},{(n // 2) % 2}" for n in range(60)]
    path = write(tmp_path / "t.csv", "x,few,real,word,one,two\n" + "\n".join(rows))
    for target, kind in (("few", Classes), ("real", Real), ("word", Classes), (["one", "two"], Labels),
                         (["real", "one"], Real), (None, NoTarget)):  # fmt: skip
        assert Table(path=str(path), target=target).targets is kind, target
    made = Experiment.parse(
        f"data: {{name: table, path: {path}, target: few, features: [x]}}\nmodel: mlp\ntask: regression\n"
    )
    assert isinstance(made.load_data().target, Real)
    with pytest.raises(
        ConfigError, match="task `regression` learns numbers, and an example of data `table` has a class"
    ):
        Experiment.parse(f"data: {{name: table, path: {path}, target: word}}\nmodel: mlp\ntask: regression\n")


def test_a_group_stays_in_one_split_and_a_column_can_say_the_splits(tmp_path: Path) -> None:
    rows = [f"{n},{n % 2},p{n // 4},{['train', 'Train', 'val', 'testing'][(n // 4) % 4]}" for n in range(64)]
    path = write(tmp_path / "t.csv", "x,kind,patient,part\n" + "\n".join(rows))
    splits = experiment(path, group="patient", features=["x"]).load_data()
    homes = [set(part.groups().tolist()) for part in (splits.train, splits.validation, splits.test)]  # type: ignore[union-attr]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 16 and all(homes)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [36, 12, 16]  # type: ignore[arg-type]
    splits = experiment(path, split="part", features=["x"]).load_data()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [32, 16, 16]  # type: ignore[arg-type]


GOOD = HEAD + "\n".join(ROWS)
UNFIT = {
    "text among numbers": (GOOD.replace("9.5", "nine"), {}, "`nine` in row 14 of column `size` is no number"),
    "infinite": (GOOD.replace("9.5", "inf"), {}, "the number in row 14 of column `size` is infinite"),
    "nan": (GOOD.replace("9.5", "NaN"), {}, "row 14 has no value in column `size`"),
    "no such target": (GOOD, {"target": "kinds"}, "has no column `kinds`"),
    "no such feature": (GOOD, {"features": ["siez"]}, "has no column `siez`"),
    "two of one name": (GOOD.replace("colour", "size", 1), {}, "has 2 columns called `size`"),
    "no name": (GOOD.replace("colour", "", 1), {}, "column 2 of .* has no name"),
    "no name of the first": (GOOD.replace("size", "", 1), {}, "column 1 of .* has no name"),
    "no header": ("1,2\n3,4\n5,6", {"target": "1"}, "the first line of .* holds numbers"),
    "no rows": (HEAD, {}, "has no rows"),
    "empty target": (GOOD.replace("33,big", "33,"), {}, "row 14 has no value in the target column `kind`"),
    "one class": (GOOD.replace("big", "small"), {}, "a classifier needs two classes or more"),
    "constant number": (GOOD.replace("big", "1.5").replace("small", "1.5"), {}, "`kind` is 1.5"),
    "unknown split": (GOOD, {"split": "colour"}, "row 1 says `r` in the split column `colour`"),
    "class only in test": (
        HEAD.replace("kind", "kind,part") + "\n".join(f"{row},{'test' if 'big' in row else 'train'}" for row in ROWS),
        {"split": "part"}, "class `big` has no example in the training split",
    ),
    "a group in two splits": (
        HEAD.replace("kind", "kind,part")
        + "\n".join(f"{row},{['train', 'test'][n % 2]}" for n, row in enumerate(ROWS)),
        {"split": "part", "group": "colour", "validation": 0},
        "group `g` stands in the train and in the test split: see row 2",
    ),
    "one group of a class": (
        HEAD.replace("kind", "kind,part") + "\n".join(f"{row},{'big' in row}" for row in ROWS), {"group": "part"},
        "class `big` cannot be divided: its 7 examples are of 1 group",
    ),
    "no picture": (GOOD, {"image": "colour"}, "row 1 names .*r, which is no file"),
    "not a table": ("\x00\x01\xff", {}, "."),
    "too many words": (
        "name,kind\n" + "\n".join(f"n{n},{n % 2}" for n in range(300)), {}, "column `name` has 1.. categories",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_table_is_told_with_its_file_row_and_column(name: str, tmp_path: Path) -> None:
    text, options, wrong = UNFIT[name]
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(ConfigError, match=wrong) as caught:
        inputs(experiment(path, **options))
    assert caught.value.diagnostics[0].message


KEYS = {
    "features:": ("features: [size, kind]", "column `kind` is the `target`"),
    "group: kind": ("group: kind", "column `kind` is named by `target`"),
    "size: 8": ("size: 8", "`size` does nothing"),
    "missing: mean": ("image: colour, missing: mean", "`missing` does nothing"),
    "scaling": ("scaling: featurewise_min_max", "of rows `min_max`"),
    "views": ("}\nevaluation: {views: flip", "`views` is of images"),
    "crop": ("}\naugmentation: [{name: random_crop, padding: 1}]\nloss: {name: cross_entropy", "takes images"),
}


@pytest.mark.parametrize("key", KEYS)
def test_options_that_have_nothing_to_do_are_refused_at_their_key(key: str, plain: Path) -> None:
    option, wrong = KEYS[key]
    with pytest.raises(ConfigError, match=wrong) as caught:
        Experiment.parse(f"data: {{name: table, path: {plain}, target: kind, {option}}}\nmodel: softmax_regression\n")
    assert caught.value.diagnostics[0].where is not None
    with pytest.raises(ConfigError, match="takes images, and data `table` gives rows of numbers"):
        Experiment.parse(f"data: {{name: table, path: {plain}, target: kind}}\nmodel: lenet5\n")


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


def test_a_table_is_trained_measured_and_asked_and_a_word_unseen_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", HEAD + "\n".join(row for n in range(5) for row in (
        f"{float(row.split(',')[0]) + n / 100},{','.join(row.split(',')[1:])}" for row in ROWS)))  # fmt: skip
    text = """
data: {name: table, path: t.csv, target: kind, validation: 0.2, scaling: zca_whiten}
model: {name: mlp, hidden: [8]}
optimizer: {name: adam, lr: 0.05}
training: {epochs: 8, batch_size: 8, average: {name: ema, decay: 0.9}}
recorders: [tensorboard]
"""
    write(tmp_path / "e.yaml", text)
    said = invoke("fit", "e.yaml", "--device", "cpu").stderr
    assert "vectors of 5 numbers" in said and "rows are copies" not in said
    found = json.loads(invoke("eval", "runs/e/001", "--json").stdout)
    assert found["accuracy"] > 0.9 and found["examples"] == 14
    plan = json.loads(invoke("plan", "e.yaml", "--json").stdout)
    assert plan["shape"] == [5] and plan["decisions"]["scaling"]["value"] == "zca_whiten"

    write(tmp_path / "new.csv", "colour,size,age\nr,9,25\nviolet,1,30\n")
    result = invoke("predict", "runs/e/001", "new.csv", "--format", "csv")
    first, second = csv.DictReader(result.stdout.splitlines())
    assert (first["class"], second["class"]) == ("big", "small") and first["row"] == "1"
    assert "1 of 2 rows have a word in column `colour` that training had not" in result.stderr
    write(tmp_path / "new.csv", "colour,size\nr,9\n")
    result = CliRunner().invoke(app, ["predict", "runs/e/001", "new.csv"])
    assert result.exit_code == 2 and "new.csv has no column `age`" in result.stderr
    write(tmp_path / "other.csv", HEAD + "\n".join(ROWS[:6]))
    other = json.loads(invoke("eval", "runs/e/001", "data.path=other.csv", "--json").stdout)
    assert other["examples"] == 6 and other["accuracy"] > 0.8


def test_pictures_that_a_table_names_are_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    draw, lines = np.random.default_rng(0), ["file,light,dark,wet"]
    for number in range(60):
        light = number * 4
        pixels = np.clip(draw.normal(light, 4, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
        lines.append(f"{number}.png,{light / 10},{int(light < 60)},{number % 2}")
    write(tmp_path / "t.csv", "\n".join(lines))
    data = "name: table, path: t.csv, image: file, image_root: pictures, size: 8, channels: 1, workers: 0"
    for target, column in (("light", "rmse"), ("dark", "accuracy")):
        text = f"data: {{{data}, target: {target}}}\nmodel: {{name: mlp, hidden: []}}\n"
        made = Experiment.parse(text + "training: {epochs: 1, batch_size: 16}")
        assert column in [metric.name for metric in made.resolved_task.metrics]
        splits = made.load_data()
        assert splits.train.channels == 1 and len(splits.train) == 43  # type: ignore[attr-defined]
    assert Table(path="t.csv", target=["dark", "wet"], image="file").targets is Labels


def test_a_check_reads_its_file_once_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dltrain.data.tables import columns

    read = []
    monkeypatch.setattr(columns, "read_table", lambda path, *args, **options: (
        read.append(path), read_table(path, *args, **options))[1])  # fmt: skip
    text = f"data: {{name: table, path: {tmp_path / 't.csv'}, target: y}}\nmodel: mlp\n"
    write(tmp_path / "t.csv", "x,y\n1,2.5\n2,3.5\n3,4.5\n")
    assert Experiment.parse(text).resolved_task.name == "regression" and len(read) == 1
    write(tmp_path / "t.csv", "x,y\n1,aaa\n2,bbb\n3,bbb\n")  # of the same length
    assert Experiment.parse(text).resolved_task.name != "regression" and len(read) == 2
