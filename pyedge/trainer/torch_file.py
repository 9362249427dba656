"""Reads what `torch.save` wrote, and runs nothing of it.

Such a file is a zip archive: a pickle, and the bytes of each storage, uncompressed. A pickle is a
program whose instructions name functions to import and call. Here they are only written down: a
`Call` is a node that says what would be called, with what. Of those, one kind is understood, the
one that places a tensor on its storage; everything else stays inert, and is looked at by nobody.
"""

from __future__ import annotations

import math
import os
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyedge.errors import CheckpointError, UnsupportedError
from pyedge.trainer import tensor_file
from pyedge.trainer.tensor_file import ITEM_BYTES, Format

_PICKLE_LIMIT = 16 << 20  # bytes; the state of IResNet-100 takes less than one million
_MOST_OPCODES = 2_000_000
_STORAGES = {
    **{"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16"},
    **{"BFloat16Storage": "BF16", "LongStorage": "I64", "IntStorage": "I32"},
    **{"ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL"},
}
_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, struct.error, zlib.error, OverflowError)
# The header before an entry's bytes ends with the lengths of its name and of what is extra.
_LOCAL = struct.Struct("<26xHH")
# What torch before 1.6 begins a file with.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True, eq=False)
class Global:
    """A function or class that the file names; never imported."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in the archive: `count` of them."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class Table:
    """A dictionary, as its pairs. Keys are not hashed: they are as unknown as the values."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Call:
    """What would be called, and with what; `table` is what would be set in the result."""

    function: Any
    arguments: Any
    table: Table = field(default_factory=Table)


@dataclass(frozen=True)
class StoredTensor(Format):
    """A tensor in the archive: `entry` has its bytes from `start` on."""

    entry: str
    start: int


class TorchFile:
    """A file of `torch.save`.

    Attributes:
        path: of the file.
        root: what was saved: numbers, texts, tuples, lists, and the nodes of this module.
    """

    def __init__(self, path: Path) -> None:
        """Reads the structure, no tensor.

        Raises:
            CheckpointError: no such file, or a damaged one.
            UnsupportedError: a form of file, or an instruction in it, that is not known here.
        """
        self.path = path
        self._entries = self._directory()
        roots = [n for n in self._entries if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(roots) != 1:
            raise CheckpointError(f"{path}: is an archive, but not one of torch.save")
        self._folder = roots[0].removesuffix("data.pkl")
        order = f"{self._folder}byteorder"
        if order in self._entries and self._small(order, 16) != b"little":
            raise UnsupportedError(f"{path}: its numbers are not little-endian")
        self.root = _Interpreter(path).run(self._small(roots[0], _PICKLE_LIMIT))

    def _directory(self) -> dict[str, zipfile.ZipInfo]:
        """What is in the archive, by its name."""
        with tensor_file.reading(self.path) as file:
            if file.read(len(_LEGACY)) == _LEGACY:
                raise UnsupportedError(
                    f"{self.path}: is in the form of torch before 1.6, which is no archive: load "
                    "it with torch, and save it again"
                )
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
        except (OSError, EOFError, ValueError, RuntimeError, *_ZIP_ERRORS) as error:
            raise CheckpointError(
                f"{self.path}: cannot be read as a zip archive: {error}"
            ) from error
        by_name = {entry.filename: entry for entry in entries}
        if len(by_name) < len(entries):
            raise CheckpointError(f"{self.path}: has two entries of one name")
        return by_name

    def _small(self, name: str, limit: int) -> bytes:
        size = self._entry(name).file_size
        if size > limit:
            raise CheckpointError(f"{self.path}: {name} has {size} bytes; expected up to {limit}")
        return b"".join(bytes(chunk) for chunk in self._read(name, 0, size))

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self.path}: {name:.80} is missing in the archive")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise CheckpointError(f"{self.path}: {name:.80} is compressed; torch.save does not")
        return entry

    def _read(self, name: str, start: int, count: int) -> Iterator[memoryview]:
        """Bytes of an entry in pieces; where it is all of them, their CRC must be right."""
        entry = self._entry(name)
        with tensor_file.reading(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            local = b""
            if 0 <= entry.header_offset <= size:
                file.seek(entry.header_offset)
                local = file.read(_LOCAL.size)
            if len(local) < _LOCAL.size or local[:4] != b"PK\3\4":
                raise CheckpointError(f"{self.path}: {name:.80} is not where the archive says")
            data = entry.header_offset + _LOCAL.size + sum(_LOCAL.unpack(local))
            crc = 0
            for chunk in tensor_file.read_chunks(file, self.path, data + start, count):
                crc = zlib.crc32(chunk, crc)
                yield chunk
            if count == entry.file_size and crc != entry.CRC:
                raise CheckpointError(f"{self.path}: {name:.80} is damaged: its CRC is another")

    def mapping(self, node: Any, what: str) -> dict[str, Any]:
        """The values of a dictionary by their names; `what` is what a message calls it.

        Raises:
            CheckpointError: it is none, or has a key that is no text or is there twice.
        """
        if isinstance(node, Call) and _is(node.function, "collections", "OrderedDict"):
            node = node.table
        if not isinstance(node, Table):
            raise CheckpointError(f"{self.path}: {what} is no dictionary")
        result: dict[str, Any] = {}
        for key, value in node.pairs:
            if not isinstance(key, str) or key in result:
                raise CheckpointError(f"{self.path}: {what} has a key twice or one that is no text")
            result[key] = value
        return result

    def tensor(self, node: Any, what: str) -> StoredTensor:
        """Where a tensor lies.

        Raises:
            CheckpointError: it lies outside its storage, or that is not as large as it says.
            UnsupportedError: it is no dense tensor, row after row.
        """
        if isinstance(node, Call) and _is(node.function, "torch._utils", "_rebuild_parameter"):
            parameter = node.arguments
            node = parameter[0] if isinstance(parameter, tuple) and parameter else None
        made = isinstance(node, Call) and _is(node.function, "torch._utils", "_rebuild_tensor_v2")
        arguments = node.arguments if made else None
        if not isinstance(arguments, tuple) or len(arguments) < 4:
            raise UnsupportedError(
                f"{self.path}: {what} is no plain tensor; nothing else can be read without running "
                "what the file says"
            )
        storage, first, shape, strides = arguments[:4]
        if not isinstance(storage, Storage):
            raise UnsupportedError(f"{self.path}: {what} has numbers of a kind not known here")
        if not all(
            isinstance(sizes, tuple) and all(type(n) is int and 0 <= n < 2**62 for n in sizes)
            for sizes in ((first,), shape, strides)
        ):
            raise CheckpointError(f"{self.path}: {what} has no sizes")
        if len(shape) > 16 or len(shape) != len(strides) or not _is_dense(shape, strides):
            raise UnsupportedError(f"{self.path}: {what} does not lie row after row")
        if first + math.prod(shape) > storage.count:
            raise CheckpointError(f"{self.path}: {what} does not lie within its storage")
        item, name = ITEM_BYTES[storage.dtype], f"{self._folder}data/{storage.key}"
        size = self._entry(name).file_size
        if size != item * storage.count:
            raise CheckpointError(
                f"{self.path}: the storage of {what} has {size} bytes; expected "
                f"{item * storage.count}"
            )
        return StoredTensor(storage.dtype, shape, name, first * item)

    def chunks(self, tensor: StoredTensor) -> Iterator[memoryview]:
        """The bytes of a tensor in pieces; each is valid until the next."""
        return self._read(tensor.entry, tensor.start, tensor.nbytes)


def _is(node: Any, module: str, name: str) -> bool:
    return isinstance(node, Global) and (node.module, node.name) == (module, name)


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected and 0 not in shape:
            return False
        expected *= size
    return True


class _Interpreter:
    """A pickle's machine without its power: a stack, marks in it, a memo."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
                if count > _MOST_OPCODES:
                    raise CheckpointError(
                        f"{self._path}: its pickle has more than {_MOST_OPCODES} instructions"
                    )
                if opcode.name == "STOP":
                    return self._stack.pop()
                action = _ACTIONS.get(opcode.name)
                if action is None:
                    raise UnsupportedError(
                        f"{self._path}: its pickle has the instruction {opcode.name}, which "
                        "torch.save does not write"
                    )
                action(self, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{self._path}: its pickle is damaged: {reason}") from error
        raise CheckpointError(f"{self._path}: its pickle has no end")

    def nothing(self, argument: Any) -> None:
        """Marks of the form, which mean nothing here."""

    def push(self, argument: Any) -> None:
        self._stack.append(argument)

    def mark(self, argument: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def tuple_of_marked(self, argument: Any) -> None:
        items = self.to_mark()
        self._stack.append(tuple(items))

    def set_of_marked(self, argument: Any) -> None:
        items = self.to_mark()
        self._stack.append(items)

    def tuple_of(self, count: int) -> None:
        items = tuple(self._pop() for _ in range(count))
        self._stack.append(items[::-1])

    def add_pair(self, argument: Any) -> None:
        value, key = self._pop(), self._pop()
        self._table().pairs.append((key, value))

    def add_pairs(self, argument: Any) -> None:
        items = self.to_mark()
        self._table().pairs.extend(zip(items[::2], items[1::2], strict=True))

    def append(self, argument: Any) -> None:
        item = self._pop()
        self._extend([item])

    def extend(self, argument: Any) -> None:
        self._extend(self.to_mark())

    def global_(self, argument: str) -> None:
        module, name = argument.split(" ", 1)
        self._stack.append(Global(module, name))

    def global_of_stack(self, argument: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a function's name is no text")
        self._stack.append(Global(module, name))

    def call(self, argument: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(Call(function, arguments))

    def call_with_names(self, argument: Any) -> None:
        names, arguments, function = self._pop(), self._pop(), self._pop()
        self._stack.append(Call(function, (arguments, names)))

    def build(self, argument: Any) -> None:
        """The state of an object: what it would be is nobody's concern here."""
        self._pop()

    def storage(self, argument: Any) -> None:
        match self._pop():
            case ("storage", Global("torch", kind), str(key), str(), int(count), *_) if (
                kind in _STORAGES and count >= 0
            ):
                self._stack.append(Storage(_STORAGES[kind], key, count))
            case _:
                # Of a kind that is not known: inert, as all else.
                self._stack.append(None)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _table(self) -> Table:
        target = self._stack[-1]
        if isinstance(target, Call):
            return target.table
        if not isinstance(target, Table):
            raise ValueError("items are set in what is no dictionary")
        return target

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Call):
            raise ValueError("items are added to what is no list")


_Action = Callable[[_Interpreter, Any], None]
_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "FRAME"), _Interpreter.nothing),
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE"),
            *("SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
            *("BINSTRING", "SHORT_BINSTRING"),
        ),
        _Interpreter.push,
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push(Table()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "FROZENSET": _Interpreter.set_of_marked,
    "TUPLE": _Interpreter.tuple_of_marked,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "MARK": _Interpreter.mark,
    "SETITEM": _Interpreter.add_pair,
    "SETITEMS": _Interpreter.add_pairs,
    "APPEND": _Interpreter.append,
    "APPENDS": _Interpreter.extend,
    "ADDITEMS": _Interpreter.extend,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Interpreter.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Interpreter.get),
    "GLOBAL": _Interpreter.global_,
    "STACK_GLOBAL": _Interpreter.global_of_stack,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Interpreter.call),
    "NEWOBJ_EX": _Interpreter.call_with_names,
    "BUILD": _Interpreter.build,
    "BINPERSID": _Interpreter.storage,
}
