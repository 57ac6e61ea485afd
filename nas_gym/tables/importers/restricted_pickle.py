"""Pickles read as data: an interpreter of the few opcodes that benchmark archives are made of, which calls nothing.

Python's own unpickler runs whatever a file names. This one knows numbers, strings, bytes, tuples, lists, dictionaries
and sets, and three names: an ordered dictionary, a NumPy data type and a NumPy scalar, for which it puts a dictionary
and a Python number without ever importing what is named. Any other name or opcode is refused, and so is what could
exhaust memory, time or stack: sizes are compared with what is left of the file, references with what was stored, and
keys are scalars or tuples of scalars, so that hashing one is cheap.

Source: the opcodes are documented in Python's ``pickletools``; protocols 4 and 5.
"""

from __future__ import annotations

import bz2
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import TableError

LARGEST = 64 << 20
"""Bytes that a decompressed file may have; the largest official one has 1.4 million."""

_MARK = object()
_SCALARS = (str, int, float, bool, bytes, type(None))
_KEYS = frozenset(_SCALARS)

_NAMES = {
    ("collections", "OrderedDict"): "mapping",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
}
"""What may be named, and what it stands for here."""

_NUMBER = re.compile(r"[fiu][1248]")
_FLOATS = re.compile(
    rb"\((?:(?P<names>(?:\x8c.[ -~]*\x94G.{8})+)|(?P<numbers>(?:K.G.{8})+)"
    rb"|(?P<short>(?:h.G.{8})+)|(?P<long>(?:j.{4}G.{8})+))u",
    re.DOTALL,
)
"""Opcodes that fill a dictionary with floating-point values, nearly all of an archive; they are read at once.

The keys are new texts, small integers, or texts that were stored before.
"""

_NAME = re.compile(rb"\x8c.([ -~]*)\x94G.{8}", re.DOTALL)
_PAIR = {
    "numbers": np.dtype([("_", "V1"), ("key", "u1"), ("__", "V1"), ("value", ">f8")]),
    "short": np.dtype([("_", "V1"), ("key", "u1"), ("__", "V1"), ("value", ">f8")]),
    "long": np.dtype([("_", "V1"), ("key", "<u4"), ("__", "V1"), ("value", ">f8")]),
}


class _Named:
    """What a name stands for; nothing can be changed about it."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


class _DataType:
    """A NumPy data type of a number."""

    __slots__ = ("dtype",)

    def __init__(self, text: str) -> None:
        self.dtype = np.dtype("<" + text)


class _Refused(Exception):
    """Why the content is refused."""


def load_compressed(data: bytes, where: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return what a bz2-compressed pickle holds.

    Args:
        data: the compressed file.
        where: names the file in messages.

    Raises:
        TableError: it is torn, too large, or holds anything but plain data.
    """
    decompressor = bz2.BZ2Decompressor()
    try:
        raw = decompressor.decompress(data, LARGEST)
    except (OSError, EOFError, ValueError) as error:
        raise TableError(f"{where}: not a whole bz2 file ({error}). Fetch it again.") from None
    if not decompressor.eof:
        why = f"more than {LARGEST:,} bytes" if len(raw) >= LARGEST else "the file is torn"
        raise TableError(f"{where}: cannot be decompressed: {why}. Fetch it again.")
    return load(raw, where)


def load(data: bytes, where: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return what a pickle holds: numbers, strings, bytes, None, tuples, lists, dictionaries, sets.

    Raises:
        TableError: it is torn, or holds anything else; nothing of it was executed.
    """
    reader = _Reader(b"")
    try:
        reader.data = _without_frames(data)
        return reader.run()
    except _Refused as reason:
        detail = str(reason)
    except (IndexError, struct.error):
        detail = "it ends in the middle, or takes more from its stack than is there"
    except UnicodeDecodeError:
        detail = "a text is not in UTF-8"
    raise TableError(
        f"{where}: refused near byte {reader.position:,}: {detail}. Official archives hold plain numbers and texts "
        "only; fetch the file again from its publisher."
    )


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where the values of a run of texts and values lie; archives repeat few of them thousands of times.

    Attributes:
        keys: the texts.
        slots: indices of the bytes of the values, shape [number of keys, 8].
        others: indices of all other bytes.
        text: these other bytes.
    """

    keys: list[str]
    slots: npt.NDArray[np.int64]
    others: npt.NDArray[np.int64]
    text: bytes

    @classmethod
    def of(cls, pairs: bytes) -> _Layout | None:
        """Return the layout of a run, from memory where one fits; None where a text is longer or shorter than it says.

        Args:
            pairs: what `_FLOATS` calls names.
        """
        known = _LAYOUTS.get(len(pairs))
        if known is not None and np.frombuffer(pairs, np.uint8)[known.others].tobytes() == known.text:
            return known
        names = _NAME.findall(pairs)
        lengths = np.array([len(name) for name in names])
        # Opcode, length, text, two opcodes, value.
        ends = np.cumsum(lengths + 12)
        content = np.frombuffer(pairs, np.uint8)
        if ends[-1] != len(pairs) or not np.array_equal(content[ends - lengths - 11], lengths):
            return None
        slots = ends[:, None] - 8 + np.arange(8)
        others = np.setdiff1d(np.arange(len(pairs)), slots)
        layout = cls([name.decode() for name in names], slots, others, content[others].tobytes())
        if len(_LAYOUTS) < _MOST_LAYOUTS:
            _LAYOUTS[len(pairs)] = layout
        return layout

    def values(self, pairs: bytes) -> list[float]:
        """Return the values of a run of this layout."""
        return np.frombuffer(pairs, np.uint8)[self.slots].view(">f8")[:, 0].tolist()


_LAYOUTS: dict[int, _Layout] = {}
_MOST_LAYOUTS = 256


def _without_frames(data: bytes) -> bytes:
    """Return a pickle without the headers of its frames, which only announce how much can be read ahead."""
    if data[:1] != b"\x80":
        raise _Refused("it does not begin like a pickle of protocol 4 or 5")
    parts, position = [data[:2]], 2
    while data[position : position + 1] == b"\x95":
        (size,) = _U8.unpack_from(data, position + 1)
        start = position + 1 + _U8.size
        if size > len(data) - start:
            raise _Refused(f"{size:,} bytes are announced, {len(data) - start:,} are left")
        position = start + size
        parts.append(data[start:position])
    return b"".join([*parts, data[position:]])


class _Reader:
    """One pass over a pickle."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.memo: list[Any] = []

    def run(self) -> Any:  # noqa: ANN401 - whatever the file holds
        """Return the object on top when the pickle says that it is over."""
        data, opcodes, stack, memo = self.data, _OPCODES, self.stack, self.memo
        while True:
            opcode = data[self.position]
            # The two most frequent ones are worth no look-up.
            if opcode == _RECALL_BYTE:
                stack.append(self._recall(data[self.position + 1]))
                self.position += 2
                continue
            if opcode == _MEMOIZE:
                memo.append(stack[-1])
                self.position += 1
                continue
            if opcode == _STOP:
                break
            if opcode == _BEGIN and (floats := _FLOATS.match(data, self.position)) and self._fill(floats):
                continue
            action = opcodes.get(opcode)
            if action is None:
                raise _Refused(f"the opcode {chr(opcode)!r} is not one of plain data")
            self.position += 1
            action(self)
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise _Refused(f"{len(self.stack)} objects are left where one is due")
        if self.position + 1 != len(data):
            raise _Refused("there is more behind its end")
        return self._plain(self.stack[0])

    # --- reading ---------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        start = self.position
        if count > len(self.data) - start:
            raise _Refused(f"{count:,} bytes are announced, {len(self.data) - start:,} are left")
        self.position = start + count
        return self.data[start : start + count]

    def _unpack(self, form: struct.Struct) -> int:
        (value,) = form.unpack_from(self.data, self.position)
        self.position += form.size
        return value

    def _fill(self, floats: re.Match[bytes]) -> bool:
        """Fill the dictionary on top of the stack at once; tell whether that was possible, else nothing has changed."""
        kind = str(floats.lastgroup)
        pairs = floats.group(kind)
        if kind == "names":
            layout = _Layout.of(pairs)
            if layout is None:
                return False
            keys, values = layout.keys, layout.values(pairs)
        else:
            table = np.frombuffer(pairs, _PAIR[kind])
            keys, values = table["key"].tolist(), table["value"].tolist()
            if kind != "numbers":
                keys = [self._recall(key) for key in keys]
                _check_keys(keys)
        self._top(dict).update(zip(keys, values, strict=True))
        if kind == "names":
            self.memo.extend(keys)
        self.position = floats.end()
        return True

    # --- the stack ---------------------------------------------------------------------------------------

    def _pop(self) -> Any:  # noqa: ANN401 - whatever lies on top
        value = self.stack.pop()
        if value is _MARK:
            raise _Refused("an object is missing")
        return value

    def _pop_to_mark(self) -> list[Any]:
        stack = self.stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                values = stack[index + 1 :]
                del stack[index:]
                return values
        raise _Refused("a collection has no beginning")

    def _top(self, kind: type) -> Any:  # noqa: ANN401 - an object of `kind`
        if type(self.stack[-1]) is not kind:
            raise _Refused(f"a {kind.__name__} is due to be filled")
        return self.stack[-1]

    def _recall(self, index: int) -> Any:  # noqa: ANN401 - whatever was stored
        if index >= len(self.memo):
            raise _Refused(f"object {index:,} is asked for, {len(self.memo):,} are known")
        return self.memo[index]

    def _plain(self, value: Any) -> Any:  # noqa: ANN401 - any object
        """Return a value that may be kept; names and data types are only good for building."""
        if type(value) in (_Named, _DataType):
            raise _Refused("a name stands where data is due")
        return value

    def _tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self.stack.append(tuple(values[::-1]))

    # --- filling -------------------------------------------------------------------------------------------

    def _append(self) -> None:
        value = self._plain(self._pop())
        self._top(list).append(value)

    def _appends(self) -> None:
        values = [self._plain(value) for value in self._pop_to_mark()]
        self._top(list).extend(values)

    def _setitem(self) -> None:
        value, key = self._plain(self._pop()), self._pop()
        _check_keys([key])
        self._top(dict)[key] = value

    def _setitems(self) -> None:
        values = self._pop_to_mark()
        if len(values) % 2:
            raise _Refused("a key has no value")
        keys = values[::2]
        _check_keys(keys)
        if not {_Named, _DataType}.isdisjoint(map(type, values)):
            raise _Refused("a name stands where data is due")
        self._top(dict).update(zip(keys, values[1::2], strict=True))

    def _additems(self) -> None:
        values = self._pop_to_mark()
        _check_keys(values)
        self._top(set).update(values)

    # --- names ---------------------------------------------------------------------------------------------

    def _name(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise _Refused("a name is no text")
        if (module, name) not in _NAMES:
            raise _Refused(f"it names {module[:80]}.{name[:80]}, which is not plain data")
        self.stack.append(_Named(_NAMES[module, name]))

    def _call(self) -> None:
        """Put in the place of a call what it would give, without calling anything that the file names."""
        arguments, target = self._pop(), self._pop()
        if type(target) is not _Named or type(arguments) is not tuple:
            raise _Refused("something is called that is not plain data")
        self.stack.append(_BUILDERS[target.what](arguments))

    def _build(self) -> None:
        """Check the state of a data type, the only object that has one here."""
        state, target = self._pop(), self.stack[-1]
        if type(target) is not _DataType or type(state) is not tuple or state[2:5] != (None, None, None):
            raise _Refused("an object is changed that is not plain data")
        # A single byte has no order.
        if state[1] != ("<" if target.dtype.itemsize > 1 else "|"):
            raise _Refused("a number is not in little-endian order")


def _check_keys(keys: list[Any]) -> None:
    if _KEYS.issuperset(map(type, keys)):
        return
    for key in keys:
        kind = type(key)
        if kind not in _KEYS and not (kind is tuple and _KEYS.issuperset(map(type, key))):
            raise _Refused(f"a {kind.__name__} serves as a key")


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise _Refused("an ordered dictionary is made of something")
    return {}


def _data_type(arguments: tuple[Any, ...]) -> _DataType:
    text = arguments[0] if arguments else None
    if type(text) is not str or not _NUMBER.fullmatch(text) or text == "f1":
        raise _Refused("a data type is not that of a number")
    return _DataType(text)


def _scalar(arguments: tuple[Any, ...]) -> float | int:
    if len(arguments) != 2 or type(arguments[0]) is not _DataType or type(arguments[1]) is not bytes:
        raise _Refused("a number is not made of a data type and bytes")
    kind, content = arguments[0].dtype, arguments[1]
    if len(content) != kind.itemsize:
        raise _Refused(f"a number has {len(content)} bytes, {kind.itemsize} are due")
    return np.frombuffer(content, kind)[0].item()


_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {"mapping": _mapping, "dtype": _data_type, "scalar": _scalar}

_U1, _U2, _U4, _U8 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")
_STOP, _MEMOIZE, _RECALL_BYTE = ord("."), 0x94, ord("h")
_BEGIN = ord("(")


def _protocol(reader: _Reader) -> None:
    version = reader._unpack(_U1)
    if version not in (4, 5):
        raise _Refused(f"it is a pickle of protocol {version}, not 4 or 5")


def _push(value: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    """Return the action that pushes what `value` reads."""

    def action(reader: _Reader) -> None:
        reader.stack.append(value(reader))

    return action


_OPCODES: dict[int, Callable[[_Reader], None]] = {
    0x80: _protocol,
    # numbers, texts, bytes
    ord("K"): _push(lambda reader: reader._unpack(_U1)),
    ord("M"): _push(lambda reader: reader._unpack(_U2)),
    ord("J"): _push(lambda reader: reader._unpack(_I4)),
    ord("G"): _push(lambda reader: reader._unpack(_F8)),
    ord("N"): _push(lambda reader: None),
    0x88: _push(lambda reader: True),
    0x89: _push(lambda reader: False),
    0x8A: _push(lambda reader: int.from_bytes(reader._take(reader._unpack(_U1)), "little", signed=True)),
    0x8C: _push(lambda reader: reader._take(reader._unpack(_U1)).decode()),
    ord("X"): _push(lambda reader: reader._take(reader._unpack(_U4)).decode()),
    ord("C"): _push(lambda reader: reader._take(reader._unpack(_U1))),
    ord("B"): _push(lambda reader: reader._take(reader._unpack(_U4))),
    # collections
    ord("("): _push(lambda reader: _MARK),
    ord(")"): _push(lambda reader: ()),
    ord("]"): _push(lambda reader: []),
    ord("}"): _push(lambda reader: {}),
    0x8F: _push(lambda reader: set()),
    0x85: lambda reader: reader._tuple(1),
    0x86: lambda reader: reader._tuple(2),
    0x87: lambda reader: reader._tuple(3),
    ord("t"): _push(lambda reader: tuple(reader._pop_to_mark())),
    ord("a"): _Reader._append,
    ord("e"): _Reader._appends,
    ord("s"): _Reader._setitem,
    ord("u"): _Reader._setitems,
    0x90: _Reader._additems,
    # references, but for the most frequent ones
    ord("j"): _push(lambda reader: reader._recall(reader._unpack(_U4))),
    # names and what is made of them
    0x93: _Reader._name,
    ord("R"): _Reader._call,
    ord("b"): _Reader._build,
}
"""Opcode -> what it does; everything else is refused."""
