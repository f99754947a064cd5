"""What the static evaluator knows of the standard library: decoders, paths, text methods, and what executes text."""

from __future__ import annotations

import ast
import codecs
import lzma
import posixpath
import string
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from auditor.unpacking import decoders
from auditor.unpacking.decoders import DecodeError
from auditor.unpacking.values import (
    UNKNOWN,
    Data,
    File,
    Machine,
    Method,
    Name,
    Place,
    Sink,
    Spec,
    Text,
    Unknown,
    tagged,
)

if TYPE_CHECKING:
    from auditor.unpacking.evaluate import Evaluator

MAX_REPEAT = 2**20
MAX_TEXT = 2**25
_PYTHON_PATHS = ("pathlib.Path", "pathlib.PurePath", "pathlib.PosixPath", "Path")
_PATH_IDENTITIES = frozenset({"resolve", "absolute", "expanduser", "as_posix", "__fspath__", "__str__"})
_OS_IDENTITIES = frozenset(
    {"os.path.abspath", "os.path.realpath", "os.path.normpath", "os.path.expanduser", "os.fspath"}
)
_LZMA_CONSTANTS = ("FORMAT", "FILTER", "CHECK", "MODE", "MF", "PRESET")
_CONSTANTS: dict[str, Any] = {
    **{f"lzma.{n}": getattr(lzma, n) for n in dir(lzma) if n.split("_")[0] in _LZMA_CONSTANTS},
    "zlib.MAX_WBITS": zlib.MAX_WBITS,
    "zlib.DEF_BUF_SIZE": zlib.DEF_BUF_SIZE,
    "sys.argv": [Place("train_gpt.py", False)],
    "sys.executable": "python",
    "string.printable": string.printable,
}  # fmt: skip


def normal(path: str) -> str:
    """Path relative to the script's folder, `.` and `..` removed."""
    return posixpath.normpath(path.replace("\\", "/")).removeprefix("./")


def join_place(place: Place, *parts: Any) -> Place:
    """A place below another; unknown parts make it a place known by its last part only."""
    known = place.known
    path = place.path
    for part in parts:
        if isinstance(part, Place):
            part = part.path
        if isinstance(part, str):
            path = posixpath.join(path, part.lstrip("/") if path else part)
        else:
            known, path = False, posixpath.join(path, "*")
    return Place(path, known)


def as_place(value: Any) -> Place | None:
    """A path value as a place."""
    if isinstance(value, Place):
        return value
    if isinstance(value, str) and value and len(value) < 1024 and "\n" not in value:
        return Place(value, not value.startswith(("/", "~")))
    return None


def name_of(callee: Any) -> str:
    """Name of a callee for messages."""
    if isinstance(callee, Name):
        return callee.dotted
    return callee.name if isinstance(callee, Method) else "a call"


def attribute(owner: Any, name: str) -> Any:
    """`owner.name`: a constant of a known module, a part of a path, or a method to be called."""
    if isinstance(owner, Name):
        dotted = f"{owner.dotted}.{name}"
        return _CONSTANTS.get(dotted, Name(dotted))
    if isinstance(owner, Place):
        if name == "parent":
            return Place(posixpath.dirname(owner.path), owner.known)
        if name == "parents":
            return _parents(owner)
        if name in ("name", "stem"):
            base = posixpath.basename(owner.path)
            return base if name == "name" else posixpath.splitext(base)[0]
    if isinstance(owner, Spec) and name in ("loader", "submodule_search_locations"):
        return owner
    if isinstance(owner, File) and name == "name" and owner.place:
        return owner.place
    return Method(owner, name)


def _parents(place: Place) -> list[Place]:
    """`Path.parents`; above what is known of the path there is nothing."""
    found = []
    path = place.path
    while path:
        path = posixpath.dirname(path)
        found.append(Place(path, place.known))
    return found


def subscript(owner: Any, index: Any) -> Any:
    """`owner[index]` for known sequences and mappings."""
    try:
        if isinstance(index, slice):
            if all(part is None or isinstance(part, int) for part in (index.start, index.stop, index.step)):
                return tagged(owner[index], owner) if isinstance(owner, str | bytes | list | tuple) else UNKNOWN
            return Unknown(owner if isinstance(owner, str | bytes) else None)
        if isinstance(owner, str | bytes | list | tuple) and isinstance(index, int):
            return tagged(owner[index], owner)
        if isinstance(owner, dict):
            return owner.get(index, UNKNOWN)
    except (IndexError, TypeError, ValueError):
        pass
    return Unknown(owner if isinstance(owner, str | bytes) else None)


def operate(op: ast.operator, left: Any, right: Any) -> Any:
    """Concatenation, path joining, and integer arithmetic within bounds."""
    if isinstance(op, ast.Div) and isinstance(left, Place):
        return join_place(left, right)
    if isinstance(op, ast.Add):
        if (isinstance(left, str) and isinstance(right, str)) or (isinstance(left, bytes) and isinstance(right, bytes)):
            return tagged(left + right, left, right) if len(left) + len(right) <= MAX_TEXT else UNKNOWN
        if isinstance(left, list) and isinstance(right, list):
            return left + right if len(left) + len(right) <= MAX_REPEAT else UNKNOWN
        if isinstance(left, Place) and isinstance(right, str):
            # the script's own folder is the empty path, "/payload.bin" behind it is not at the root
            return Place((left.path + right) if left.path else right.lstrip("/"), left.known)
    if isinstance(left, int) and isinstance(right, int) and abs(left) < 2**40 and 0 <= right < 2**40:
        return _integers(op, left, right)
    if isinstance(op, ast.Mult) and isinstance(left, str | bytes) and isinstance(right, int):
        return tagged(left * right, left) if len(left) * max(right, 0) <= MAX_REPEAT else UNKNOWN
    if isinstance(op, ast.Mod) and isinstance(left, str):
        return Unknown(left)
    source = next((v for v in (left, right) if isinstance(v, str | bytes) and len(v) > 64), None)
    return Unknown(source if source is not None else getattr(left, "source", None) or getattr(right, "source", None))


def _integers(op: ast.operator, left: int, right: int) -> Any:
    if isinstance(op, ast.Pow | ast.LShift) and right > 48:
        return UNKNOWN
    table: dict[type, Callable[[int, int], int]] = {
        ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
        ast.BitOr: lambda a, b: a | b, ast.BitXor: lambda a, b: a ^ b, ast.BitAnd: lambda a, b: a & b,
        ast.LShift: lambda a, b: a << b, ast.RShift: lambda a, b: a >> b, ast.Pow: lambda a, b: a**b,
        ast.FloorDiv: lambda a, b: a // b if b else 0, ast.Mod: lambda a, b: a % b if b else 0,
    }  # fmt: skip
    operation = table.get(type(op))
    return operation(left, right) if operation else UNKNOWN


# ---------------------------------------------------------------------- what executes text


def sink(
    callee: Any, arguments: list[Any], named: dict[Any, Any], module_place: Callable[[str], Place | None]
) -> Sink | None:
    """The sink a call is, None when it is none."""
    first = arguments[0] if arguments else next(iter(named.values()), UNKNOWN)
    if isinstance(callee, Name):
        return _named_sink(callee.dotted, first, arguments, named, module_place)
    if isinstance(callee, Method):
        return _method_sink(callee, first)
    return None


def _named_sink(
    dotted: str, first: Any, arguments: list[Any], named: dict[Any, Any], module_place: Callable[[str], Place | None]
) -> Sink | None:
    short = dotted.removeprefix("builtins.")
    if short in ("exec", "eval"):
        return Sink("exec", first, 0)
    if short == "compile":
        return Sink("compile", first, 0)
    if dotted in ("runpy.run_path", "execfile"):
        return Sink("run", as_place(first) or first, 0)
    if dotted in ("importlib.import_module", "__import__", "runpy.run_module"):
        place = module_place(first) if isinstance(first, str) else None
        return Sink("run" if "run_" in dotted else "import", place, 0) if place else None
    if dotted in ("marshal.loads", "marshal.load"):
        return Sink("marshal", first, 0)
    if dotted.split(".")[0] in ("subprocess", "os") and dotted.split(".")[-1] in _STARTERS:
        return _process_sink(arguments)
    return None


_STARTERS = frozenset(
    {"run", "call", "check_call", "check_output", "Popen", "system", "popen", "execv", "execvp", "execve", "execvpe",
     "execl", "execlp", "spawnv", "spawnl"}
)  # fmt: skip


def _process_sink(arguments: list[Any]) -> Sink | None:
    """A Python file among the words of a command line."""
    words: list[Any] = []
    for argument in arguments:
        if isinstance(argument, list | tuple):
            words += argument
        elif isinstance(argument, str) and len(argument) < 4096:
            words += argument.split()
        else:
            words.append(argument)
    for word in words:
        place = as_place(word)
        if place and place.path.endswith(".py") and "://" not in place.path:
            return Sink("run", place, 0)
    return None


def _method_sink(callee: Method, first: Any) -> Sink | None:
    owner = callee.owner
    if callee.name in ("write", "write_text", "write_bytes", "writelines"):
        place = owner.place if isinstance(owner, File) else owner if isinstance(owner, Place) else None
        if isinstance(owner, File):
            owner.written.append(first)
        # Output streams show text, they do not keep it.
        if isinstance(owner, Method | Name):
            return None
        return Sink("write", first, 0, place.path if place else "")
    if callee.name in ("exec_module", "load_module") and isinstance(owner, Spec):
        return Sink("run", owner.place, 0)
    if callee.name in ("exec_module", "load_module") and isinstance(owner, Method | Name | Unknown):
        return None
    return None


# ---------------------------------------------------------------------- calls that yield values


def call(callee: Any, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> Any:
    """Value of a call of a known function or method.

    Raises:
        DecodeError: a decoder refused its data.
        UnpackLimit: a decoder passed its bound.
    """
    if isinstance(callee, Method):
        return _method(callee, arguments, named, run)
    if not isinstance(callee, Name):
        return UNKNOWN
    dotted = callee.dotted.removeprefix("builtins.")
    decoder = _decoder(dotted)
    if decoder:
        return _decode(dotted, decoder, arguments, named, run)
    if dotted in _PYTHON_PATHS or dotted in _OS_IDENTITIES or dotted == "os.path.join":
        return _path(arguments)
    if dotted in ("os.path.dirname",):
        place = as_place(arguments[0])
        return Place(posixpath.dirname(place.path), place.known) if place else UNKNOWN
    if dotted in ("open", "io.open", "codecs.open", "pathlib.Path.open"):
        return File(as_place(arguments[0]) or Place("*", False))
    if dotted in (
        "gzip.open",
        "lzma.open",
        "bz2.open",
        "gzip.GzipFile",
        "lzma.LZMAFile",
        "bz2.BZ2File",
        "zstandard.open",
    ):
        return _compressed_file(dotted, arguments, named, run)
    if dotted in ("io.BytesIO", "io.StringIO"):
        return File(None, arguments[0] if arguments else Data())
    if dotted in ("tempfile.NamedTemporaryFile", "tempfile.TemporaryFile", "os.fdopen"):
        return File(Place("*", False))
    if dotted in _MACHINES:
        return Machine(dotted, tuple(arguments), tuple(named.items()))
    if dotted in ("importlib.util.spec_from_file_location", "importlib.machinery.SourceFileLoader"):
        place = as_place(arguments[1] if len(arguments) > 1 else named.get("location", named.get("path")))
        return Spec(place) if place else UNKNOWN
    if dotted == "importlib.util.module_from_spec":
        return arguments[0]
    return _builtin(dotted, arguments, named)


def _path(arguments: list[Any]) -> Any:
    first = as_place(arguments[0]) if arguments else Place("")
    start = first or (Place("*", False) if isinstance(arguments[0], Unknown | Method | Name) else None)
    return join_place(start, *arguments[1:]) if start else UNKNOWN


def _builtin(dotted: str, arguments: list[Any], named: dict[Any, Any]) -> Any:
    first = arguments[0] if arguments else UNKNOWN
    if dotted in ("bytes", "bytearray", "memoryview"):
        if isinstance(first, str):
            return tagged(first.encode(str(arguments[1]) if len(arguments) > 1 else "utf-8"), first)
        if isinstance(first, bytes):
            return tagged(first, first)
        return Data(bytes(first)) if isinstance(first, list) and len(first) < MAX_REPEAT else UNKNOWN
    if dotted == "str":
        if isinstance(first, bytes):
            return tagged(first.decode(str(arguments[1]) if len(arguments) > 1 else "utf-8", "replace"), first)
        return first if isinstance(first, str | Place) else str(first) if isinstance(first, int) else UNKNOWN
    if dotted in ("chr", "ord", "int", "len", "abs") and isinstance(first, int | str | bytes):
        functions: dict[str, Callable[..., Any]] = {"chr": chr, "ord": ord, "int": int, "len": len, "abs": abs}
        return functions[dotted](*arguments[:2])
    if dotted == "range" and all(isinstance(a, int) for a in arguments):
        return range(*arguments) if len(range(*arguments)) <= MAX_REPEAT else UNKNOWN
    if dotted in ("list", "tuple", "reversed") and isinstance(first, list | tuple | bytes | str):
        return list(first)[::-1] if dotted == "reversed" else list(first)
    if dotted in ("zip", "enumerate") and all(isinstance(a, list | tuple) for a in arguments):
        rows = zip(*arguments, strict=False) if dotted == "zip" else enumerate(first)
        return [list(row) for row in rows]
    if dotted == "dict":
        return dict(named)
    if dotted in ("textwrap.dedent", "inspect.cleandoc") and isinstance(first, str):
        import textwrap

        return tagged(textwrap.dedent(first), first)
    if dotted in ("__import__", "importlib.import_module") and isinstance(first, str):
        return Name(str(first))
    return Unknown(next((a for a in arguments if isinstance(a, Data | Text) and (a.codecs or a.file)), None))


def _method(callee: Method, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> Any:
    owner, name = callee.owner, callee.name
    if isinstance(owner, str | bytes):
        return _text_method(owner, name, arguments, named)
    if isinstance(owner, Place):
        return _place_method(owner, name, arguments, run)
    if isinstance(owner, File):
        return _file_method(owner, name, run)
    if isinstance(owner, Machine) and name in ("decompress", "process"):
        dotted = _MACHINES[owner.dotted]
        decoder = _decoder(dotted)
        return (
            _decode(dotted, decoder, arguments + list(owner.arguments), dict(owner.named), run) if decoder else UNKNOWN
        )
    if isinstance(owner, Machine):
        return Data()  # flush() and the like yield nothing that matters
    if isinstance(owner, Spec):
        return owner
    if isinstance(owner, dict) and name in ("items", "keys", "values") and not arguments:
        return [list(row) if name == "items" else row for row in getattr(owner, name)()]
    if isinstance(owner, dict) and name == "get" and arguments:
        return owner.get(arguments[0], arguments[1] if len(arguments) > 1 else None)
    if isinstance(owner, list) and name == "append":
        owner.append(arguments[0])
        return None
    return Unknown(getattr(owner, "source", None))


def _text_method(owner: Any, name: str, arguments: list[Any], named: dict[Any, Any]) -> Any:
    if name == "join":
        parts = arguments[0]
        if isinstance(parts, list | tuple) and all(type(p) in (str, bytes, Text, Data) for p in parts):
            if sum(map(len, parts)) + len(owner) * len(parts) > MAX_TEXT:
                return UNKNOWN
            return tagged(owner.join(parts), *parts)
        return Unknown(
            next((p for p in parts if isinstance(p, str | bytes)), None) if isinstance(parts, list) else None
        )
    if any(isinstance(a, Unknown | Method | Name) for a in (*arguments, *named.values())):
        return Unknown(owner)
    if name == "decode" and isinstance(owner, bytes):
        encoding = str(arguments[0]) if arguments else str(named.get("encoding", "utf-8"))
        return tagged(owner.decode(encoding, "replace"), owner)
    if name == "encode" and isinstance(owner, str):
        return tagged(owner.encode(str(arguments[0]) if arguments else "utf-8", "replace"), owner)
    if name in ("fromhex",):
        return UNKNOWN
    if name in ("replace", "strip", "lstrip", "rstrip", "translate", "removeprefix", "removesuffix", "upper", "lower",
                "swapcase", "split", "splitlines", "rsplit", "partition", "rpartition", "expandtabs", "format",
                "hex", "index", "find", "rfind"):  # fmt: skip
        if name == "replace" and len(arguments) > 1 and len(arguments[1]) > 64 + len(arguments[0]):
            growth = owner.count(arguments[0]) * len(arguments[1])
            if growth + len(owner) > MAX_TEXT:
                return Unknown(owner)
        if name in ("format", "expandtabs"):
            return Unknown(owner)  # a width in a format may be of any size
        made = getattr(owner, name)(*arguments)
        if isinstance(made, list | tuple):
            return [tagged(part, owner) for part in made]
        return tagged(made, owner)
    return Unknown(owner)


def _place_method(owner: Place, name: str, arguments: list[Any], run: Evaluator) -> Any:
    if name == "read_bytes":
        return run.read(owner)
    if name == "read_text":
        content = run.read(owner)
        return tagged(content.decode("utf-8", "replace"), content) if isinstance(content, bytes) else content
    if name == "open":
        return File(owner)
    if name in ("with_name", "with_suffix", "joinpath"):
        base = Place(posixpath.dirname(owner.path), owner.known)
        if name == "joinpath":
            return join_place(owner, *arguments)
        if name == "with_name":
            return join_place(base, *arguments)
        return Place(posixpath.splitext(owner.path)[0] + str(arguments[0]), owner.known)
    if name == "replace" and len(arguments) > 1 and all(isinstance(a, str) for a in arguments):
        return Place(owner.path.replace(arguments[0], arguments[1]), owner.known)  # __file__ and str(path) are text
    return owner if name in _PATH_IDENTITIES else UNKNOWN


def _file_method(owner: File, name: str, run: Evaluator) -> Any:
    if name not in ("read", "getvalue", "readall", "readlines", "__enter__"):
        return UNKNOWN
    if name == "__enter__":
        return owner
    content = owner.content
    if isinstance(content, Unknown) and owner.place and not owner.written:
        content = run.read(owner.place)
    return content


def _compressed_file(dotted: str, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> Any:
    source = named.get("fileobj") or (arguments[0] if arguments else UNKNOWN)
    if not isinstance(source, File):
        source = File(as_place(source))
    content = _file_method(source, "read", run)
    function = {"gzip": "gzip.decompress", "lzma": "lzma.decompress", "bz2": "bz2.decompress"}.get(dotted.split(".")[0])
    if function is None or not isinstance(content, bytes):
        return File(source.place, Unknown(content))
    options = {k: v for k, v in named.items() if k in ("format", "filters")}
    return File(None, _decode(function, _decoder(function), [content], options, run))


# ---------------------------------------------------------------------- decoders by name

_MACHINES = {
    "lzma.LZMADecompressor": "lzma.decompress!machine",
    "bz2.BZ2Decompressor": "bz2.decompress",
    "zlib.decompressobj": "zlib.decompress",
    "zstandard.ZstdDecompressor": "zstandard.decompress!machine",
    "zstd.ZstdDecompressor": "zstandard.decompress!machine",
    "compression.zstd.ZstdDecompressor": "zstandard.decompress!machine",
    "brotli.Decompressor": "brotli.decompress",
}

_Decoder = Callable[[bytes, list[Any], dict[Any, Any], "Evaluator"], bytes]


def _plain(function: Callable[[bytes], bytes]) -> _Decoder:
    return lambda data, arguments, named, run: function(data)


def _spent(function: Callable[..., bytes]) -> _Decoder:
    return lambda data, arguments, named, run: function(data, run.budget)


def _b64(data: bytes, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> bytes:
    alt = named.get("altchars", arguments[0] if arguments else None)
    return decoders.b64(data, bytes(alt, "ascii") if isinstance(alt, str) else alt if isinstance(alt, bytes) else None)


def _zlib(data: bytes, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> bytes:
    wbits = named.get("wbits", arguments[0] if arguments else zlib.MAX_WBITS)
    return decoders.inflate(data, run.budget, wbits if isinstance(wbits, int) else zlib.MAX_WBITS)


def _lzma(data: bytes, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> bytes:
    form = named.get("format", arguments[0] if arguments else lzma.FORMAT_AUTO)
    filters = named.get("filters", arguments[2] if len(arguments) > 2 else None)
    if not isinstance(form, int) or (form == lzma.FORMAT_RAW and not _concrete(filters)):
        raise DecodeError("the format or the filters are computed at run time")
    return decoders.unlzma(data, run.budget, form, filters)


def _concrete(filters: Any) -> bool:
    return isinstance(filters, list) and all(
        isinstance(f, dict) and all(isinstance(v, int) for v in f.values()) for f in filters
    )


def _a85(data: bytes, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> bytes:
    return decoders.a85(data, bool(named.get("adobe", False)))


_BY_NAME: dict[str, tuple[str, _Decoder]] = {
    "base64.b64decode": ("b64", _b64),
    "base64.standard_b64decode": ("b64", _plain(decoders.b64)),
    "base64.decodebytes": ("b64", _plain(decoders.b64)),
    "binascii.a2b_base64": ("b64", _plain(decoders.b64)),
    "base64.urlsafe_b64decode": ("b64", _plain(lambda d: decoders.b64(d, b"-_"))),
    "base64.b85decode": ("b85", _plain(decoders.b85)),
    "base64.a85decode": ("a85", _a85),
    "base64.b32decode": ("b32", _plain(decoders.b32)),
    "base64.b16decode": ("hex", _plain(decoders.unhex)),
    "base64.z85decode": ("z85", _plain(lambda d: decoders.b85(_from_z85(d)))),
    "binascii.unhexlify": ("hex", _plain(decoders.unhex)),
    "binascii.a2b_hex": ("hex", _plain(decoders.unhex)),
    "bytes.fromhex": ("hex", _plain(decoders.unhex)),
    "bytearray.fromhex": ("hex", _plain(decoders.unhex)),
    "zlib.decompress": ("zlib", _zlib),
    "gzip.decompress": ("gzip", _spent(lambda d, b: decoders.inflate(d, b, 31))),
    "bz2.decompress": ("bz2", _spent(decoders.unbz2)),
    "lzma.decompress": ("lzma", _lzma),
    # a decompressor object takes (format, memlimit, filters), like the function
    "lzma.decompress!machine": ("lzma", _lzma),
    "brotli.decompress": ("brotli", _spent(decoders.unbrotli)),
    "brotlicffi.decompress": ("brotli", _spent(decoders.unbrotli)),
    "zstd.decompress": ("zstd", _spent(decoders.unzstd)),
    "zstd.uncompress": ("zstd", _spent(decoders.unzstd)),
    "zstandard.decompress": ("zstd", _spent(decoders.unzstd)),
    "zstandard.decompress!machine": ("zstd", _spent(decoders.unzstd)),
    "compression.zstd.decompress": ("zstd", _spent(decoders.unzstd)),
    "pyzstd.decompress": ("zstd", _spent(decoders.unzstd)),
}
_CODEC_NAMES = {
    "base64": "base64.b64decode", "base64_codec": "base64.b64decode", "base_64": "base64.b64decode",
    "hex": "bytes.fromhex", "hex_codec": "bytes.fromhex", "zip": "zlib.decompress", "zlib": "zlib.decompress",
    "zlib_codec": "zlib.decompress", "bz2": "bz2.decompress", "bz2_codec": "bz2.decompress",
}  # fmt: skip


def _from_z85(data: bytes) -> bytes:
    z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    b85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    return data.translate(bytes.maketrans(z85, b85))


def _decoder(dotted: str) -> tuple[str, _Decoder] | None:
    if dotted == "codecs.decode":
        return "codecs", _plain(lambda d: d)
    return _BY_NAME.get(dotted.removeprefix("compression.")) or _BY_NAME.get(dotted)


def _decode(dotted: str, decoder: Any, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> Any:
    data = arguments[0] if arguments else next((v for k, v in named.items() if k in ("data", "s", "string")), UNKNOWN)
    if dotted == "codecs.decode":
        return _codecs_decode(data, arguments, named, run)
    if isinstance(data, str):
        raw = data.encode("ascii", "ignore")
    elif isinstance(data, bytes):
        raw = bytes(data)
    else:
        return Unknown(getattr(data, "source", None))
    codec, function = decoder
    out = function(raw, arguments[1:], named, run)
    if len(out) > len(raw) and codec in ("b64", "b85", "a85", "hex", "b32", "z85"):
        run.budget.spend(len(out))
    return tagged(out, data, codec=codec)


def _codecs_decode(data: Any, arguments: list[Any], named: dict[Any, Any], run: Evaluator) -> Any:
    encoding = str(arguments[1] if len(arguments) > 1 else named.get("encoding", "utf-8")).lower().replace("-", "_")
    if encoding in _CODEC_NAMES:
        dotted = _CODEC_NAMES[encoding]
        return _decode(dotted, _BY_NAME[dotted], [data], {}, run)
    if encoding in ("rot13", "rot_13") and isinstance(data, str):
        return tagged(codecs.decode(data, "rot13"), data, codec="rot13")
    return tagged(data.decode(encoding, "replace"), data) if isinstance(data, bytes) else UNKNOWN
