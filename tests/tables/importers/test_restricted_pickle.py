"""Plain data comes out as it went in; everything else is refused, and nothing in a file is ever executed."""

from __future__ import annotations

import bz2
import copyreg
import io
import operator
import os
import pickle  # noqa: TID251 - the attacker's tool, and what defines the right answer
import struct
import time
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import TableError
from nas_gym.tables.importers.restricted_pickle import LARGEST, load, load_compressed

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
)
KEYS = SCALARS | st.tuples(SCALARS, SCALARS)
PLAIN = st.recursive(
    SCALARS | st.sets(st.integers() | st.text()),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=40,
)
FLOATS = st.floats(allow_nan=False)


def pickled(value: object, protocol: int = 4) -> bytes:
    """Return a pickle by Python's own means."""
    return pickle.dumps(value, protocol=protocol)


@given(PLAIN, st.sampled_from([4, 5]))
def test_plain_data_comes_out_as_it_went_in(value: Any, protocol: int) -> None:
    """Numbers, texts, bytes and collections of them, in both protocols."""
    found = load(pickled(value, protocol), "file")
    assert (found, type(found)) == (value, type(value))


@given(st.lists(st.dictionaries(st.text(max_size=70) | st.integers(0, 300), FLOATS, max_size=30), max_size=8))
def test_dictionaries_of_floats_are_read_at_once_and_right(dictionaries: list[dict[Any, float]]) -> None:
    """The quick path for keys and floating-point values agrees with Python, whatever the keys are."""
    assert load(pickled(dictionaries), "file") == dictionaries


@given(st.lists(st.text("ab\n\x94\x8cG-~é", max_size=12), unique=True, min_size=1), st.integers(1, 300))
def test_stored_keys_are_recalled(texts: list[str], padding: int) -> None:
    """Dictionaries that share their keys name them by their place in the memory, in one byte or in four."""
    value = [[str(number) for number in range(padding)], dict.fromkeys(texts, 0.5), dict.fromkeys(texts, -1.0)]
    assert load(pickled(value), "file") == value


def test_many_frames_are_joined() -> None:
    """A pickle above 64 KiB comes in several frames, also where a dictionary crosses their border."""
    value = [{f"x-valid@{epoch}": epoch + part / 7 for epoch in range(400)} for part in range(40)]
    data = pickled(value)
    assert data.count(b"\x95") > 4
    assert load(data, "file") == value


@pytest.mark.parametrize("number", [np.float64(0.25), np.float32(1.5), np.int64(-7), np.uint8(200)])
def test_numpy_numbers_become_python_numbers(number: np.generic) -> None:
    """No NumPy object comes out, and NumPy is asked for nothing that the file names."""
    found = load(pickled([number]), "file")[0]
    assert (found, type(found)) == (number.item(), type(number.item()))


def test_ordered_dictionaries_become_dictionaries() -> None:
    """Their order is that of any dictionary."""
    found = load(pickled(OrderedDict([("b", 1.0), ("a", 2.0)])), "file")
    assert (type(found), list(found.items())) == (dict, [("b", 1.0), ("a", 2.0)])


# --- hostile files ---------------------------------------------------------------------------------------


class Reduced:
    """An object that pickles as a call."""

    def __init__(self, *call: Any) -> None:
        """Remember the function and its arguments, and what else a pickle may say."""
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    """An object whose class runs code when its state is restored."""

    def __setstate__(self, state: object) -> None:
        Path(str(state)).touch()

    def __getstate__(self) -> str:
        return os.environ["MARKER"]


def persistent(marker: str) -> bytes:
    """Return a pickle with a persistent identity inside of a list."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 4)
    pickler.persistent_id = lambda value: f"touch {marker}" if value == "secret" else None  # pyright: ignore
    pickler.dump([1, ["secret"]])
    return file.getvalue()


def extension(_marker: str) -> bytes:
    """Return a pickle that names a function by its number in the registry of extensions."""
    copyreg.add_extension("os", "system", 123)
    try:
        return pickled(Reduced(os.system, ("true",)))
    finally:
        copyreg.remove_extension("os", "system", 123)


ORDERED = b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93"
DTYPE = b"\x8c\x05numpy\x8c\x05dtype\x93"

HOSTILE: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda marker: pickled(Reduced(os.system, (f"touch {marker}",))),
    "os.system within data": lambda marker: pickled({"12": [1.0, (2, Reduced(os.system, (f"touch {marker}",)))]}),
    "os.system as a key": lambda marker: pickled({Reduced(os.system, (f"touch {marker}",)): 1.0}),
    "builtins.eval": lambda marker: pickled(Reduced(eval, (f"open({marker!r}, 'w')",))),
    "builtins.exec": lambda marker: pickled(Reduced(exec, (f"open({marker!r}, 'w')",))),
    "builtins.getattr": lambda _: b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x02os\x8c\x06system\x86R.",
    "big-endian number": lambda _: (
        b"\x80\x04" + DTYPE + b"\x8c\x02f8\x89\x88\x87R(K\x03\x8c\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb."
    ),
    "builtins.open": lambda marker: pickled(Reduced(open, (marker, "w"))),
    "pathlib": lambda marker: pickled(Path(marker)),
    "operator.methodcaller": lambda marker: pickled(Reduced(operator.methodcaller("touch"), (Path(marker),))),
    "numpy array": lambda _: pickled(np.arange(3.0)),
    "numpy object scalar": lambda _: (
        b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x06scalar\x93"
        + DTYPE
        + b"\x8c\x02O8\x89\x88\x87RC\x08\0\0\0\0\0\0\0\0\x86R."
    ),
    "numpy.load": lambda marker: pickled(Reduced(np.load, (marker, None, True))),
    "numpy.fromfile": lambda marker: pickled(Reduced(np.fromfile, (marker,))),
    "numpy dtype of objects": lambda _: pickled(np.dtype("O")),
    "numpy dtype of fields": lambda _: b"\x80\x04" + DTYPE + b"\x8c\x05f8,f8\x89\x88\x87R.",
    "numpy.core private": lambda _: b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x0c_reconstruct\x93.",
    "attribute of an allowed module": lambda _: b"\x80\x04\x8c\x0bcollections\x8c\x0asys.modules\x93.",
    "copyreg._reconstructor": lambda _: b"\x80\x04\x8c\x07copyreg\x8c\x0e_reconstructor\x93.",
    "copyreg extension": extension,
    "persistent identity": persistent,
    "persistent identity as text": lambda _: b"\x80\x04Pid\n.",
    "__setstate__": lambda _: pickled(Stateful()),
    "new object": lambda _: pickled(types.SimpleNamespace(a=1)),
    "protocol 0": lambda marker: pickle.dumps(Reduced(os.system, (f"touch {marker}",)), protocol=0),
    "protocol 2": lambda marker: pickled(Reduced(os.system, (f"touch {marker}",)), 2),
    "GLOBAL": lambda marker: f"\x80\x04cos\nsystem\nX{chr(6 + len(marker))}\0\0\0touch {marker}\x85R.".encode(
        "latin-1"
    ),
    "INST": lambda marker: f"\x80\x04(X{chr(6 + len(marker))}\0\0\0touch {marker}ios\nsystem\n.".encode("latin-1"),
    "OBJ": lambda _: b"\x80\x04(" + ORDERED + b"o.",
    "NEWOBJ": lambda _: b"\x80\x04" + ORDERED + b")\x81.",
    "state of an ordered dictionary": lambda _: b"\x80\x04" + ORDERED + b")R}\x8c\x01a\x8c\x01bsb.",
    "state of a name": lambda _: b"\x80\x04" + ORDERED + b"}\x8c\x08__call__\x8c\x01bsb.",
    "attributes of a name": lambda _: b"\x80\x04" + ORDERED + b"N}\x8c\x08__call__\x8c\x01bs\x86b.",
    "a name itself": lambda _: b"\x80\x04" + ORDERED + b".",
    "a name in a list": lambda _: b"\x80\x04]" + ORDERED + b"a.",
    "a name as a key": lambda _: b"\x80\x04}" + ORDERED + b"Ns.",
    "an ordered dictionary of a list": lambda _: b"\x80\x04" + ORDERED + b"]\x85R.",
    "a call of data": lambda _: b"\x80\x04\x8c\x02os)R.",
    "a list as a key": lambda _: b"\x80\x04}]Ns.",
    "filling a text": lambda _: b"\x80\x04\x8c\x02osNa.",
    "protocol 9": lambda _: b"\x80\x09N.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_run_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file names or calls, it ends in an error that says so, and no file appears."""
    marker = tmp_path / "ran"
    monkeypatch.setenv("MARKER", str(marker))
    with pytest.raises(TableError, match="archive: refused near byte"):
        load(HOSTILE[name](str(marker)), "archive")
    assert not marker.exists()


def test_the_hostile_files_do_run_in_pythons_own_unpickler(tmp_path: Path) -> None:
    """The test above would notice: the same bytes do leave the file behind where they are trusted."""
    marker = tmp_path / "ran"
    pickle.loads(HOSTILE["os.system within data"](str(marker)))
    assert marker.exists()


def nested_key(depth: int) -> bytes:
    """Return a dictionary whose key is a tuple of twice itself, `depth` times: hashing it takes 2 ** depth steps."""
    doubled = b"".join(b"\x86\x94" + b"h" + bytes([level]) + b"h" + bytes([level]) for level in range(depth))
    return b"\x80\x04}NN" + doubled + b"\x86Ns."


BOMBS = {
    "text of 2 GB": b"\x80\x04X\xff\xff\xff\x7fabc.",
    "bytes of 4 GB": b"\x80\x04B\xff\xff\xff\xffabc.",
    "text of 8 EB": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b"abc.",
    "bytes of 8 EB": b"\x80\x05\x8e" + struct.pack("<Q", 2**63 - 1) + b"abc.",
    "bytearray of 1 TB": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",
    "frame of 16 EB": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "memory at 4 G": b"\x80\x04Nr\xff\xff\xff\xff.",
    "memory at 4 G, as text": b"\x80\x04Np4000000000\n.",
    "reference to what is not there": b"\x80\x04Nj\xff\xff\xff\x7f.",
    "integer of 2 GB": b"\x80\x04\x8b\xff\xff\xff\x7f1.",
    "key that doubles 60 times": nested_key(60),
    "key that is 100,000 deep": b"\x80\x04}N" + b"\x85" * 100_000 + b"Ns.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str) -> None:
    """Announced sizes, references and keys cost neither memory nor time nor the stack.

    Ten seconds are what a busy machine may need; what these files ask for would take years or gigabytes.
    """
    started = time.process_time()
    with pytest.raises(TableError, match="refused near byte"):
        load(BOMBS[name], "archive")
    assert time.process_time() - started < 10


def test_deep_data_neither_recurse_nor_break() -> None:
    """A list 200,000 levels deep is read and forgotten like any other."""
    found = load(b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".", "file")
    assert len(found) == 1


def test_a_decompression_bomb_is_refused() -> None:
    """A few bytes that would become more than any official file has are not decompressed to the end."""
    bomb = bz2.compress(bytes(LARGEST + 1))
    with pytest.raises(TableError, match="more than 67,108,864 bytes"):
        load_compressed(bomb, "archive")


# --- damaged files ---------------------------------------------------------------------------------------

WHOLE = pickled({"12": {"a": np.float64(1.5), "b": [1, 2.5, None, True], ("c", 7): {"x@1": 0.5, "x@2": 0.25}}})


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_every_torn_file_is_refused(length: int) -> None:
    """Cut anywhere, it raises the one error that readers expect."""
    with pytest.raises(TableError):
        load(WHOLE[:length], "archive")


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_damaged_files_raise_nothing_else(first: int, value: int, second: int, other: int) -> None:
    """With any two bytes changed a file is either still plain data or refused."""
    damaged = bytearray(WHOLE)
    damaged[first], damaged[second] = value, other
    try:
        load(bytes(damaged), "archive")
    except TableError:
        return


@given(st.binary(max_size=60))
def test_noise_raises_nothing_else(noise: bytes) -> None:
    """Any bytes behind the header of a pickle are plain data or refused."""
    try:
        load(b"\x80\x04" + noise, "archive")
    except TableError:
        return


def test_a_torn_compressed_file_is_refused() -> None:
    """Half of a download is not half of an answer."""
    with pytest.raises(TableError, match="torn"):
        load_compressed(bz2.compress(WHOLE)[:-8], "archive")


def test_what_is_not_compressed_is_refused() -> None:
    """The message says what was expected."""
    with pytest.raises(TableError, match="not a whole bz2 file"):
        load_compressed(WHOLE, "archive")
