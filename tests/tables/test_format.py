"""The table file: what is written comes back, and what was damaged does not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import FidelityError, InvalidArgument, TableError, UnknownName
from nas_gym.tables.format import METADATA_KEY, TABLES, Measurement, Table, TableRegistry, read_table, write_table

ROWS, SEEDS, EPOCHS = 20, 2, 3
DENOMINATOR = 640

MEASUREMENTS = {
    "valid_accuracy": Measurement("maximize", "fraction", denominator=DENOMINATOR, seeds=SEEDS, epochs=EPOCHS),
    "test_accuracy": Measurement("maximize", "fraction", held_out=True, denominator=DENOMINATOR, seeds=SEEDS),
    "train_seconds": Measurement("minimize", "seconds", seeds=SEEDS),
    "parameters": Measurement("minimize", "count"),
}
CODES = np.arange(ROWS) * 3
METADATA = {
    "space": "toy",
    "dataset": "random",
    "recipe": {"epochs": EPOCHS, "learning_rate": 0.1},
    "notes": ["ä", None],
}
TEXTS = {"architecture": [f"cell {code}" for code in CODES]}


def columns() -> dict[str, npt.NDArray[Any]]:
    """Return random values of every measurement."""
    rng = np.random.default_rng(0)
    return {
        "valid_accuracy": rng.integers(0, DENOMINATOR, (ROWS, SEEDS, EPOCHS)).astype(np.uint16),
        "test_accuracy": rng.integers(0, DENOMINATOR, (ROWS, SEEDS, 1)).astype(np.uint16),
        "train_seconds": rng.uniform(0.1, 0.9, (ROWS, SEEDS, 1)).astype(np.float32),
        "parameters": rng.integers(0, 10**9, (ROWS, 1, 1)),
    }


def write(path: Path, **changes: Any) -> str:
    """Write the table of this file, with some arguments replaced."""
    arguments: dict[str, Any] = {
        "codes": CODES,
        "measurements": MEASUREMENTS,
        "columns": columns(),
        "metadata": METADATA,
        "texts": TEXTS,
    }
    return write_table(path, **{**arguments, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a written table."""
    path = tmp_path / "toy.parquet"
    write(path)
    return path


@pytest.fixture
def table(path: Path) -> Table:
    """Return the table read back."""
    return read_table(path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a table that all tests of this module only read."""
    path = tmp_path_factory.mktemp("intact") / "toy.parquet"
    write(path)
    return path


@pytest.fixture(scope="module")
def fresh_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Return a function that names a new file at every call, so that no cached table is mistaken for a read one."""
    folder = tmp_path_factory.mktemp("damaged")
    numbers = iter(range(1_000_000))
    yield lambda: folder / f"damaged-{next(numbers)}.parquet"


def same_content(one: Table, other: Table) -> bool:
    """Tell whether two tables hold the same numbers and the same metadata."""
    return (
        (one.sha256, one.metadata, one.measurements) == (other.sha256, other.metadata, other.measurements)
        and np.array_equal(one.codes, other.codes)
        and one.columns.keys() == other.columns.keys()
        and all(np.array_equal(one.columns[name], other.columns[name]) for name in one.columns)
    )


def rewrite(
    path: Path,
    change_columns: Callable[[pa.Table], pa.Table] = lambda arrow: arrow,
    change_metadata: Callable[[dict[str, Any]], Any] = lambda document: document,
) -> None:
    """Write the file again through pyarrow, as somebody would who edits it without our writer."""
    arrow = pq.read_table(path)
    document = json.loads(arrow.schema.metadata[METADATA_KEY])
    changed = change_columns(arrow)
    pq.write_table(changed.replace_schema_metadata({METADATA_KEY: json.dumps(change_metadata(document))}), path)


def replaced(arrow: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return a table with other values in one column."""
    return arrow.set_column(arrow.column_names.index(name), name, values)


# --- round trip ------------------------------------------------------------------------------------


def test_the_codes_come_back(table: Table) -> None:
    """Rows keep their architectures."""
    assert table.codes.tolist() == CODES.tolist()
    assert len(table) == ROWS


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_the_values_come_back_in_their_type(table: Table, name: str) -> None:
    """Every stored value is unchanged, [R, S, E]."""
    np.testing.assert_array_equal(table.columns[name], columns()[name], strict=True)


def test_the_measurements_come_back(table: Table) -> None:
    """Directions, units, denominators, seeds and epochs are in the metadata."""
    assert table.measurements == MEASUREMENTS


def test_the_metadata_comes_back(table: Table) -> None:
    """Everything that was written, besides what the format adds."""
    assert {name: table.metadata[name] for name in METADATA} == METADATA


def test_the_hash_is_returned_by_the_writer(path: Path) -> None:
    """A caller can record what was written without reading it again."""
    assert read_table(path).sha256 == write(path)


def test_the_hash_does_not_depend_on_the_file(tmp_path: Path) -> None:
    """It is that of the content."""
    assert write(tmp_path / "one.parquet") == write(tmp_path / "other.parquet")


def test_other_compression_is_the_same_table(path: Path, tmp_path: Path) -> None:
    """Whoever writes the same values and metadata through another tool writes the same table."""
    other = tmp_path / "other.parquet"
    arrow = pq.read_table(path)
    pq.write_table(arrow, other, compression="snappy", use_dictionary=False, row_group_size=7)
    assert same_content(read_table(other), read_table(path))


def test_a_table_knows_its_name(table: Table) -> None:
    """The name is the file's, without its ending."""
    assert table.name == "toy"


def test_a_table_knows_its_number_of_epochs(table: Table) -> None:
    """That of the longest curve."""
    assert table.epochs == EPOCHS


def test_a_table_without_curves_has_one_fidelity(tmp_path: Path) -> None:
    """Where only the end of the training is recorded, that counts as one epoch."""
    measurements = {"parameters": MEASUREMENTS["parameters"]}
    write(tmp_path / "t.parquet", measurements=measurements, columns={"parameters": columns()["parameters"]})
    assert read_table(tmp_path / "t.parquet").epochs == 1


def test_a_table_without_measurements_can_be_read(tmp_path: Path) -> None:
    """A list of architectures is a table, too."""
    write(tmp_path / "t.parquet", measurements={}, columns={})
    assert read_table(tmp_path / "t.parquet").epochs == 1


def test_values_in_memory_are_read_only(table: Table) -> None:
    """A shared table cannot be altered by a reader."""
    with pytest.raises(ValueError, match="read-only"):
        table.columns["valid_accuracy"][0, 0, 0] = 1


def test_a_file_is_read_once(path: Path) -> None:
    """Evaluators of one table share it in memory."""
    assert read_table(path) is read_table(path)


def test_a_replaced_file_is_read_again(path: Path) -> None:
    """A rebuilt table is noticed."""
    before = read_table(path)
    write(path, metadata={**METADATA, "dataset": "another data set"})
    assert read_table(path).metadata["dataset"] != before.metadata["dataset"]


@pytest.mark.parametrize(
    ("measurement", "expected"),
    [
        (Measurement("maximize", "fraction"), ["m"]),
        (Measurement("maximize", "fraction", seeds=2), ["m_s0", "m_s1"]),
        (Measurement("maximize", "fraction", epochs=2), ["m_e1", "m_e2"]),
        (Measurement("maximize", "fraction", seeds=2, epochs=2), ["m_s0_e1", "m_s0_e2", "m_s1_e1", "m_s1_e2"]),
    ],
    ids=["one value", "seeds", "epochs", "seeds and epochs"],
)
def test_columns_are_named_after_seed_and_epoch(measurement: Measurement, expected: list[str]) -> None:
    """Seeds count from 0 and are outermost, epochs count from 1."""
    assert measurement.columns("m") == expected


def test_the_file_can_be_read_without_this_package(path: Path) -> None:
    """Any Parquet reader sees codes, values and notation."""
    assert pq.read_table(path).column("architecture").to_pylist() == TEXTS["architecture"]


# --- values ----------------------------------------------------------------------------------------


def test_the_mean_of_counts_is_exact(table: Table) -> None:
    """Correct images are summed as integers, and divided once."""
    correct = columns()["valid_accuracy"][:, :, -1]
    expected = [sum(int(value) for value in row) / (SEEDS * DENOMINATOR) for row in correct]
    assert table.mean("valid_accuracy").tolist() == expected


def test_large_counts_do_not_overflow(tmp_path: Path) -> None:
    """The sum of 16-bit counts over the seeds is wider than 16 bits."""
    full = np.full((ROWS, SEEDS, EPOCHS), 65_000, np.uint16)
    write(tmp_path / "t.parquet", columns={**columns(), "valid_accuracy": full})
    assert read_table(tmp_path / "t.parquet").mean("valid_accuracy")[0] == 65_000 / DENOMINATOR


def test_the_mean_of_32_bit_seconds_is_taken_in_64_bits(table: Table) -> None:
    """No digit is lost on the way."""
    seconds = columns()["train_seconds"][:, :, 0].astype(np.float64)
    np.testing.assert_array_equal(table.mean("train_seconds"), seconds.sum(axis=1) / SEEDS)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_the_mean_after_an_epoch(table: Table, epoch: int) -> None:
    """Epochs count from 1."""
    expected = columns()["valid_accuracy"][:, :, epoch - 1].astype(np.float64).mean(axis=1) / DENOMINATOR
    np.testing.assert_allclose(table.mean("valid_accuracy", epoch), expected, rtol=1e-15)


def test_without_an_epoch_the_last_one_is_meant(table: Table) -> None:
    """The end of the training is the default."""
    np.testing.assert_array_equal(table.mean("valid_accuracy"), table.mean("valid_accuracy", EPOCHS))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_the_values_of_every_seed(table: Table, epoch: int) -> None:
    """One column a seed, in the unit of the measurement."""
    expected = columns()["valid_accuracy"][:, :, epoch - 1] / DENOMINATOR
    np.testing.assert_array_equal(table.per_seed("valid_accuracy", epoch), expected)


def test_a_value_without_seeds_has_one_column(table: Table) -> None:
    """What does not depend on a seed is [R, 1]."""
    assert table.per_seed("parameters").shape == (ROWS, 1)


@pytest.mark.parametrize("method", ["mean", "per_seed"])
@pytest.mark.parametrize("epoch", [-1, 0, 4])
def test_an_epoch_that_was_not_recorded_is_refused(table: Table, method: str, epoch: int) -> None:
    """The message has the range."""
    with pytest.raises(FidelityError, match=f"recorded for epochs 1 to 3, got {epoch}"):
        getattr(table, method)("valid_accuracy", epoch)


@pytest.mark.parametrize("method", ["mean", "per_seed", "measurement"])
def test_an_unknown_metric_is_answered_with_the_nearest_match(table: Table, method: str) -> None:
    """A typo is recognised."""
    with pytest.raises(UnknownName, match=r"unknown metric 'valid_acuracy'\. Did you mean 'valid_accuracy'"):
        getattr(table, method)("valid_acuracy")


# --- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999], ids=lambda kept: f"{kept:.1%}")
def test_a_truncated_file_is_refused(path: Path, kept: float) -> None:
    """Wherever the copy stopped, the file is named."""
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(TableError, match=r"toy\.parquet: not a complete Parquet file"):
        read_table(path)


@pytest.mark.parametrize("missing", range(1, 13))
def test_a_file_without_its_last_bytes_is_refused(path: Path, missing: int) -> None:
    """The end of the file is its table of contents."""
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(TableError, match=r"toy\.parquet: not a complete Parquet file"):
        read_table(path)


@given(data=st.data())
def test_a_flipped_byte_never_gives_a_wrong_number(
    intact: Path, fresh_path: Callable[[], Path], data: st.DataObject
) -> None:
    """Either the file is refused, or the byte did not matter and everything is as it was."""
    content = bytearray(intact.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1), "position")] ^= data.draw(st.integers(1, 255), "flipped bits")
    damaged = fresh_path()
    damaged.write_bytes(content)
    try:
        found = read_table(damaged)
    except TableError as error:
        assert damaged.name in str(error)
    else:
        assert same_content(found, read_table(intact))


@given(data=st.data())
def test_a_flipped_byte_in_uncompressed_pages_never_gives_a_wrong_number(
    intact: Path, fresh_path: Callable[[], Path], data: st.DataObject
) -> None:
    """Without compression, whose checks catch most damage, it is the hash alone that protects the values."""
    damaged = fresh_path()
    arrow = pq.read_table(intact)
    pq.write_table(arrow, damaged, compression="none", use_dictionary=False, write_statistics=False)
    content = bytearray(damaged.read_bytes())
    end_of_pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[data.draw(st.integers(4, end_of_pages - 1), "position")] ^= data.draw(st.integers(1, 255), "flipped bits")
    damaged.write_bytes(content)
    try:
        found = read_table(damaged)
    except TableError as error:
        assert damaged.name in str(error)
    else:
        assert same_content(found, read_table(intact))


@pytest.mark.parametrize(
    "name",
    ["code", "valid_accuracy_s0_e1", "valid_accuracy_s1_e3", "test_accuracy_s1", "train_seconds_s0", "parameters"],
)
@pytest.mark.parametrize("row", [0, ROWS // 2, ROWS - 1])
def test_one_changed_value_is_noticed(path: Path, name: str, row: int) -> None:
    """A file edited through a Parquet tool, its metadata kept, does not match its hash."""

    def edit(arrow: pa.Table) -> pa.Table:
        values = arrow.column(name).to_numpy().copy()
        values[row] += 1
        return replaced(arrow, name, pa.array(values))

    rewrite(path, edit)
    with pytest.raises(TableError, match=r"toy\.parquet: the content does not match its SHA-256"):
        read_table(path)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda arrow: arrow.slice(0, ROWS - 1), id="a row removed"),
        pytest.param(lambda arrow: pa.concat_tables([arrow, arrow.slice(0, 1)]), id="a row added"),
        pytest.param(lambda arrow: arrow.take(list(reversed(range(ROWS)))), id="rows in another order"),
        pytest.param(lambda arrow: arrow.select(reversed(arrow.column_names)), id="columns in another order"),
        pytest.param(lambda arrow: arrow.append_column("more", pa.array(range(ROWS))), id="a column added"),
        pytest.param(
            lambda arrow: arrow.rename_columns(
                [{"test_accuracy_s0": "test_accuracy_s1", "test_accuracy_s1": "test_accuracy_s0"}.get(n, n)
                 for n in arrow.column_names]
            ),
            id="two columns exchanged",
        ),
        pytest.param(
            lambda arrow: replaced(arrow, "parameters", arrow.column("parameters").cast(pa.float64())),
            id="another type",
        ),
        pytest.param(
            lambda arrow: replaced(arrow, "architecture", pa.array(["another"] * ROWS)), id="another notation"
        ),
    ],
)  # fmt: skip
def test_changed_columns_are_noticed(path: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    """The hash covers names, types, order and values."""
    rewrite(path, edit)
    with pytest.raises(TableError, match=r"toy\.parquet: the content does not match its SHA-256"):
        read_table(path)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"dataset": "cifar10"}, id="another data set"),
        pytest.param({"recipe": {"epochs": 200, "learning_rate": 0.1}}, id="another recipe"),
        pytest.param({"more": 1}, id="a key added"),
        pytest.param({"sha256": "0" * 64}, id="another hash"),
        pytest.param({"measurements": {}}, id="no measurements"),
    ],
)
def test_changed_metadata_is_noticed(path: Path, edit: dict[str, Any]) -> None:
    """The hash covers the metadata."""
    rewrite(path, change_metadata=lambda document: {**document, **edit})
    with pytest.raises(TableError, match=r"toy\.parquet: the content does not match its SHA-256"):
        read_table(path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda document: [], id="a list"),
        pytest.param(lambda document: 1, id="a number"),
        pytest.param(lambda document: {}, id="an empty object"),
        pytest.param(lambda document: without(document, "format"), id="no format"),
        pytest.param(lambda document: without(document, "measurements"), id="no measurements"),
        pytest.param(lambda document: without(document, "sha256"), id="no hash"),
        pytest.param(lambda document: {**document, "measurements": [1]}, id="measurements of another type"),
        pytest.param(lambda document: {**document, "measurements": {"a": {"unit": "count"}}}, id="a field missing"),
        pytest.param(lambda document: {**document, "measurements": {"a": {"colour": "red"}}}, id="an unknown field"),
    ],
)
def test_malformed_metadata_is_refused(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Metadata of another shape is an error of the table, not of the program."""
    rewrite(path, change_metadata=change)
    with pytest.raises(TableError, match=r"toy\.parquet: the metadata or a column is malformed"):
        read_table(path)


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the document without one key."""
    return {key: value for key, value in document.items() if key != name}


def test_metadata_that_is_no_json_is_refused(path: Path) -> None:
    """Text under our key is not enough."""
    pq.write_table(pq.read_table(path).replace_schema_metadata({METADATA_KEY: b"{'space'"}), path)
    with pytest.raises(TableError, match=r"toy\.parquet: the metadata or a column is malformed \(JSONDecodeError"):
        read_table(path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(path: Path, version: object) -> None:
    """The message has both versions."""
    rewrite(path, change_metadata=lambda document: {**document, "format": version})
    with pytest.raises(TableError, match=rf"toy\.parquet: table format {version}, this version reads format 1"):
        read_table(path)


@pytest.mark.parametrize("name", ["code", "valid_accuracy_s1_e2", "architecture"])
def test_a_missing_column_is_noticed(path: Path, name: str) -> None:
    """A column removed by another tool is missed."""
    rewrite(path, lambda arrow: arrow.drop_columns([name]))
    with pytest.raises(TableError, match=r"toy\.parquet: "):
        read_table(path)


def test_a_measurement_without_its_columns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that promises what it does not hold is malformed even when its hash is right."""

    def renamed(self: Measurement, name: str) -> list[str]:
        return [f"{name}_{index}" for index in range(max(self.seeds, 1) * max(self.epochs, 1))]

    monkeypatch.setattr(Measurement, "columns", renamed)
    write(tmp_path / "t.parquet")
    monkeypatch.undo()
    with pytest.raises(TableError, match=r"t\.parquet: .*malformed \(KeyError: 'valid_accuracy_s0_e1'\)"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["code", "train_seconds_s0", "architecture"])
def test_missing_values_are_refused(path: Path, name: str) -> None:
    """A null is no number."""

    def edit(arrow: pa.Table) -> pa.Table:
        column = arrow.column(name)
        return replaced(arrow, name, pa.array([None, *column.to_pylist()[1:]], column.type))

    rewrite(path, edit)
    with pytest.raises(TableError, match=r"toy\.parquet: .*a column has missing values"):
        read_table(path)


def test_a_parquet_file_of_somebody_else_is_refused(path: Path) -> None:
    """The message says that it is Parquet, but no table."""
    pq.write_table(pa.table({"code": [1, 2]}), path)
    with pytest.raises(TableError, match=r"toy\.parquet: a Parquet file, but not a nas-gym table"):
        read_table(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"code,accuracy\n1,0.5\n", bytes(1000)], ids=repr)
def test_a_file_that_is_no_parquet_is_refused(path: Path, content: bytes) -> None:
    """Whatever it is, it is named."""
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"toy\.parquet: not a complete Parquet file"):
        read_table(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The message has the path and the reason."""
    with pytest.raises(TableError, match=r"absent\.parquet: cannot be read: No such file"):
        read_table(tmp_path / "absent.parquet")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """A folder of Parquet files is not read as one table."""
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    write(folder / "part.parquet")
    with pytest.raises(TableError, match=r"folder\.parquet: cannot be read: not a file"):
        read_table(folder)


def test_a_damaged_file_is_refused_every_time(path: Path) -> None:
    """A failure is not remembered as a table."""
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        with pytest.raises(TableError):
            read_table(path)


# --- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codes",
    [
        pytest.param(np.arange(0), id="empty"),
        pytest.param(np.arange(ROWS)[::-1], id="descending"),
        pytest.param(np.repeat(np.arange(ROWS // 2), 2), id="repeated"),
    ],
)
def test_codes_must_ascend(tmp_path: Path, codes: npt.NDArray[np.int64]) -> None:
    """A table with two rows for one architecture cannot be written."""
    with pytest.raises(InvalidArgument, match="strictly ascending"):
        write(tmp_path / "t.parquet", codes=codes)


@pytest.mark.parametrize(
    "shape",
    [(ROWS, SEEDS, EPOCHS - 1), (ROWS, SEEDS * EPOCHS), (ROWS - 1, SEEDS, EPOCHS), (ROWS, EPOCHS, SEEDS)],
    ids=str,
)
def test_values_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """The message names the measurement and both shapes."""
    with pytest.raises(InvalidArgument, match=r"values of valid_accuracy have shape .*, expected \(20, 2, 3\)"):
        write(tmp_path / "t.parquet", columns={**columns(), "valid_accuracy": np.zeros(shape, np.uint16)})


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves neither half a table nor a temporary file."""

    def full_disk(arrow: pa.Table, where: Path, **_options: Any) -> None:
        Path(where).write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is replaced only by a complete one."""
    before = path.read_bytes()

    def full_disk(arrow: pa.Table, where: Path, **_options: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(path)
    assert path.read_bytes() == before


def test_a_write_leaves_the_table_alone_in_its_folder(path: Path) -> None:
    """Nothing temporary stays behind."""
    assert list(path.parent.iterdir()) == [path]


# --- names -----------------------------------------------------------------------------------------


@pytest.fixture
def packaged(tmp_path: Path) -> TableRegistry:
    """Return a registry with the packaged tables `digits` and `letters`."""
    folder = tmp_path / "packaged"
    folder.mkdir()
    for name in ("digits", "letters"):
        (folder / f"{name}.parquet").touch()
    return TableRegistry(folder)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a user's own tables, which holds `mine` and another `digits`."""
    folder = tmp_path / "home" / "tables"
    folder.mkdir(parents=True)
    for name in ("mine", "digits"):
        (folder / f"{name}.parquet").touch()
    monkeypatch.setenv("NAS_GYM_DATA", str(folder.parent))
    return folder


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tables of whoever runs the tests."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)


def test_packaged_tables_are_found_by_name(packaged: TableRegistry) -> None:
    """The name is that of the file."""
    assert packaged["digits"] == packaged.packaged / "digits.parquet"


@pytest.mark.usefixtures("no_data_folder")
def test_names_of_packaged_tables_are_sorted(packaged: TableRegistry) -> None:
    """A registry is a mapping."""
    assert list(packaged) == ["digits", "letters"]
    assert len(packaged) == 2


def test_installed_tables_are_found_by_name(packaged: TableRegistry, installed: Path) -> None:
    """Tables of the user lie in the folder `tables` of $NAS_GYM_DATA."""
    assert packaged["mine"] == installed / "mine.parquet"
    assert list(packaged) == ["digits", "letters", "mine"]


def test_a_packaged_table_comes_before_an_installed_one(packaged: TableRegistry, installed: Path) -> None:
    """Nobody's results change because of a file of the same name."""
    assert packaged["digits"] == packaged.packaged / "digits.parquet"
    assert (installed / "digits.parquet").exists()


def test_a_data_folder_without_tables_is_no_error(
    packaged: TableRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not have been used yet."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path / "absent"))
    assert list(packaged) == ["digits", "letters"]


def test_a_path_is_taken_literally(packaged: TableRegistry) -> None:
    """What ends in .parquet and is no name is a file, whether or not it exists."""
    path = os.path.join("somewhere", "mine.parquet")
    assert packaged[path] == Path(path)


def test_an_unknown_table_is_answered_with_the_nearest_match(packaged: TableRegistry) -> None:
    """A typo is recognised, and the known names are listed."""
    with pytest.raises(UnknownName, match=r"unknown table 'digts'\. Did you mean 'digits'\? Known: digits, letters"):
        packaged["digts"]


def test_looking_for_a_name_does_not_open_a_file(packaged: TableRegistry) -> None:
    """The empty files of this registry are no tables, and nobody minds."""
    assert "digits" in packaged
    assert "digts" not in packaged


def test_the_tables_of_this_package_are_intact() -> None:
    """Every packaged file passes its own verification."""
    assert [name for name in TABLES if len(read_table(TABLES[name])) == 0] == []
