"""Unpacking: every form of packing gives back the source, nothing runs, bombs stop, the rest is named."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import subprocess
import sys
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import UnpackLimit
from auditor.submission import Submission
from auditor.unpack import outline, parses, read_program, unpack_bytes
from auditor.unpacking.decoders import Budget, inflate, unbrotli, unbz2, unlzma, unzstd

FOLDER = "records/track_10min_16mb/2026-04-01_Packed"
SOURCE = "import math\n\n\ndef main():\n    total = 0.0\n" + "".join(
    f"    total += math.sqrt({i})  # step {i}\n" for i in range(60)
)
SOURCE += "    print(f'val_bpb:{total}')\n\n\nif __name__ == '__main__':\n    main()\n"
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]

# name, compression, the call that undoes it (`{}` is the inner expression), the import it needs
COMPRESSIONS = {
    "lzma": (lzma.compress, "lzma.decompress({})", "import lzma"),
    "alone": (
        lambda d: lzma.compress(d, lzma.FORMAT_ALONE),
        "L.decompress({}, format=L.FORMAT_ALONE)",
        "import lzma as L",
    ),
    "raw": (
        lambda d: lzma.compress(d, lzma.FORMAT_RAW, filters=FILTERS),
        'L.decompress({},format=L.FORMAT_RAW,filters=[{{"id":L.FILTER_LZMA2,"preset":9|L.PRESET_EXTREME}}])',
        "import lzma as L",
    ),
    "raw-dict": (
        lambda d: lzma.compress(d, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]),
        "decompress({}, FORMAT_RAW, None, FS)",
        "from lzma import decompress, FORMAT_RAW, FILTER_LZMA2\nFS = [dict(id=FILTER_LZMA2, dict_size=1 << 20)]",
    ),
    "machine": (lzma.compress, "X.LZMADecompressor().decompress({})", "import lzma as X"),
    "zlib": (lambda d: zlib.compress(d, 9), "zz({})", "from zlib import decompress as zz"),
    "deflate": (
        lambda d: zlib.compress(d, 9, wbits=-15),
        "z.decompress({}, -15)",
        "import zlib as z",
    ),
    "decompressobj": (lambda d: zlib.compress(d), "zlib.decompressobj().decompress({})", "import zlib"),
    "gzip": (gzip.compress, "gzip.decompress({})", "import gzip"),
    "gzip-file": (
        gzip.compress,
        "gzip.GzipFile(fileobj=io.BytesIO({})).read()",
        "import gzip, io",
    ),
    "bz2": (bz2.compress, "__import__('bz2').decompress({})", ""),
    "brotli": (brotli.compress, "B.decompress({})", "import brotli as B"),
    "zstd": (
        lambda d: zstandard.ZstdCompressor(level=19).compress(d),
        "zstandard.ZstdDecompressor().decompress({})",
        "import zstandard",
    ),
}
ENCODINGS = {
    "b64": (base64.b64encode, "base64.b64decode({})", "import base64"),
    "urlsafe": (base64.urlsafe_b64encode, "u({})", "from base64 import urlsafe_b64decode as u"),
    "b85": (base64.b85encode, "d({})", "from base64 import b85decode as d"),
    "a85": (base64.a85encode, "Q.a85decode({})", "import base64 as Q"),
    "hex": (lambda d: d.hex().encode(), "bytes.fromhex({})", ""),
    "unhexlify": (lambda d: d.hex().encode(), "h.unhexlify({})", "import binascii as h"),
    "codecs": (base64.encodebytes, "codecs.decode(({}).encode(), 'base64')", "import codecs"),
    "none": (lambda d: d, "{}", ""),
}
LITERALS = {
    "str": lambda t: repr(t),
    "implicit": lambda t: "(\n" + "\n".join(repr(t[i : i + 70]) for i in range(0, len(t), 70)) + "\n)",
    "explicit": lambda t: f"{t[:40]!r} + {t[40:]!r}",
    "join": lambda t: "''.join([" + ",".join(repr(t[i : i + 90]) for i in range(0, len(t), 90)) + "])",
    "triple": lambda t: "'''" + t.replace("\\", "\\\\").replace("'", "\\'") + "'''",
}
RUNNERS = {
    "exec": "exec({})",
    "compile": "exec(compile({}, 'train_gpt.py', 'exec'), globals())",
    "named": "payload = {}\nexec(payload.decode('utf-8'))",
    "function": "def unpack():\n    return {}\n\ndef start(source):\n    exec(source)\n\nstart(unpack())",
    "runpy": "import os, runpy, tempfile\nwith tempfile.NamedTemporaryFile('wb', suffix='.py', delete=False) as f:\n"
    "    f.write({})\nrunpy.run_path(f.name, run_name='__main__')",
    "importlib": "import importlib.util, pathlib\np = pathlib.Path('/x/inner.py')\np.write_bytes({})\n"
    "s = importlib.util.spec_from_file_location('__main__', p)\nm = importlib.util.module_from_spec(s)\n"
    "s.loader.exec_module(m)",
}  # fmt: skip


def pack(source: bytes, compression: str, encoding: str, literal: str, runner: str) -> str:
    compress, decompress, needs = COMPRESSIONS[compression]
    encode, undo, needs_too = ENCODINGS[encoding]
    data = encode(compress(source))
    text = repr(data) if encoding == "none" else LITERALS[literal](data.decode())
    call = decompress.format(undo.format(text))
    return f"{needs}\n{needs_too}\n" + RUNNERS[runner].replace("{}", call) + "\n"


def inner(script: str | bytes, **siblings: bytes) -> str:
    data = script.encode() if isinstance(script, str) else script
    layers, problems = unpack_bytes(data, {n.replace("__", "."): lambda d=d: d for n, d in siblings.items()})
    assert problems == []
    return layers[-1].text


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_compression_in_every_encoding(compression, encoding):
    assert inner(pack(SOURCE.encode(), compression, encoding, "str", "exec")) == SOURCE


@pytest.mark.parametrize("literal", LITERALS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_every_literal_with_every_runner(literal, runner):
    assert inner(pack(SOURCE.encode(), "raw", "b85", literal, runner)) == SOURCE


identifiers = st.text("abcdefghijklmnop_", min_size=3, max_size=9)
sources = st.lists(st.tuples(identifiers, st.integers(0, 10**9)), min_size=1, max_size=40).map(
    lambda rows: "import os\n" + "".join(f"v_{name} = {value}\n" for name, value in rows)
)
forms = st.tuples(
    st.sampled_from(sorted(COMPRESSIONS)),
    st.sampled_from(sorted(ENCODINGS)),
    st.sampled_from(sorted(LITERALS)),
    st.sampled_from(sorted(RUNNERS)),
)


@settings(max_examples=120, deadline=None)
@given(sources, st.lists(forms, min_size=1, max_size=3))
def test_round_trip_nested(source, chain):
    packed = source
    for form in chain:
        packed = pack(packed.encode(), *form)
    assert inner(packed) == source


@settings(max_examples=60, deadline=None)
@given(sources, st.permutations(["qa", "_b", "Zc", "d1", "e_", "f9"]))
def test_names_do_not_matter(source, names):
    a, b, c, d, e, f = names
    text = base64.b85encode(lzma.compress(source.encode(), lzma.FORMAT_RAW, filters=FILTERS)).decode()
    stub = (
        f"import lzma as {a}\nfrom base64 import b85decode as {b}\n{c} = exec\n"
        f"{d} = [{{'id': {a}.FILTER_LZMA2, 'preset': 9 | {a}.PRESET_EXTREME}}]\n"
        f"{e} = {b}({text!r})\n{f} = {a}.decompress({e}, {a}.FORMAT_RAW, filters={d})\n{c}({f})\n"
    )
    assert inner(stub) == source


def test_stub_and_the_real_interpreter_agree(tmp_path):
    """What we read is what Python would have run."""
    source = SOURCE.replace("main()\n", "print(open(__file__).name and 'ran')\n")
    for runner in ("exec", "compile", "named", "function"):
        stub = pack(source.encode(), "raw", "b85", "implicit", runner)
        script = tmp_path / "stub.py"
        script.write_text(stub)
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
        assert "ran" in done.stdout and inner(stub) == source


def test_payload_in_a_sibling_file():
    blob = lzma.compress(SOURCE.encode())
    stubs = (
        "import lzma\nexec(lzma.decompress(open('payload.bin', 'rb').read()))\n",
        "import lzma, pathlib\nH = pathlib.Path(__file__).resolve().parent\n"
        "exec(lzma.decompress((H / 'payload.bin').read_bytes()))\n",
        "import lzma, os\nwith open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'payload.bin'), 'rb') "
        "as f:\n"
        "    exec(lzma.decompress(f.read()))\n",
        "import lzma\nwith lzma.open('payload.bin') as f:\n    exec(f.read())\n",
        "import lzma, os\nexec(lzma.decompress(open(f'{os.path.dirname(__file__)}/payload.bin', 'rb').read()))\n",
    )
    for stub in stubs:
        assert inner(stub, payload__bin=blob) == SOURCE, stub
        layers, _ = unpack_bytes(stub.encode(), {"payload.bin": lambda: blob})
        assert (layers[1].name, layers[1].parent) == ("payload.bin!lzma", "train_gpt.py")


def program(files: dict[str, str | bytes]):
    return read_program(Submission.from_files({f"{FOLDER}/{n}": d for n, d in files.items()}))


@pytest.mark.parametrize(
    "stub",
    [
        "exec(open('real.py').read())\n",
        "exec(open(__file__.replace('train_gpt.py', 'real.py')).read())\n",
        "import runpy, pathlib\nrunpy.run_path(str(pathlib.Path(__file__).with_name('real.py')), "
        "run_name='__main__')\n",
        "from real import main\nmain()\n",
        "import importlib\nimportlib.import_module('real').main()\n",
        "import subprocess, sys\nsubprocess.run([sys.executable, 'real.py'], check=True)\n",
        "import os\nos.system('python3 real.py --seed 1')\n",
        "import os, sys\nos.execv(sys.executable, [sys.executable, "
        "os.path.join(os.path.dirname(__file__), 'real.py')])\n",
    ],
)
def test_launcher_of_another_file_of_the_folder(stub):
    found = program({"train_gpt.py": stub, "real.py": SOURCE})
    assert found.main.name == f"{FOLDER}/real.py" and not found.packed
    assert found.counted_bytes == len(stub) and found.problems == []


def test_launcher_of_a_file_outside_the_folder():
    outside = "records/track_10min_16mb/base/train_gpt.py"
    stub = (
        "import runpy\nfrom pathlib import Path\nroot = Path(__file__).resolve().parents[3]\n"
        "runpy.run_path(str(root / 'records' / 'track_10min_16mb' / 'base' / 'train_gpt.py'))\n"
    )
    files = {f"{FOLDER}/train_gpt.py": stub, f"{FOLDER}/README.md": "x", outside: SOURCE}
    found = read_program(Submission.from_files(files, folder=FOLDER))
    assert found.main.name == outside
    assert any("outside the record folder" in p for p in found.problems)


def test_counted_bytes_are_those_of_the_shipped_file():
    stub = pack(SOURCE.encode(), "raw", "b85", "str", "exec")
    found = program({"train_gpt.py": stub, "helper.py": "x = 1\n"})
    assert found.packed and found.main.text == SOURCE and found.counted_bytes == len(stub)
    assert [layer.name for layer in found.layers] == [
        f"{FOLDER}/train_gpt.py",
        f"{FOLDER}/helper.py",
        f"{FOLDER}/train_gpt.py!b85!lzma",
    ]
    assert found.main.codecs == ("b85", "lzma") and found.main.parent == f"{FOLDER}/train_gpt.py"


def test_program_that_embeds_a_kernel_stays_the_program():
    kernel = "import triton\n" + "x = 1  # kernel\n" * 40
    helpers = "".join(f"def f{i}():\n    return {i}\n\n" for i in range(20))
    found = program({"train_gpt.py": SOURCE + helpers + f"\nexec({kernel!r})\n"})
    assert found.main.name.endswith("train_gpt.py") and not found.packed
    assert any(layer.text == kernel for layer in found.layers)


def test_payload_in_a_module_is_decoded_too():
    found = program({"train_gpt.py": SOURCE, "helper.py": pack(SOURCE.encode(), "zlib", "b64", "str", "exec")})
    assert found.main.name.endswith("train_gpt.py")
    assert any(layer.name.endswith("helper.py!b64!zlib") and layer.text == SOURCE for layer in found.layers)


def test_data_in_a_script_is_not_taken_for_a_program():
    table = base64.b64encode(zlib.compress(b"the quick brown fox\n" * 99)).decode()
    found = program(
        {"train_gpt.py": f"import base64, zlib\nD = zlib.decompress(base64.b64decode({table!r}))\n{SOURCE}"}
    )
    assert len(found.layers) == 1 and not found.packed and found.problems == []


def test_chain_the_evaluator_cannot_follow_is_found_among_the_literals():
    text = base64.b85encode(lzma.compress(SOURCE.encode())).decode()
    stub = f"import sys\nfrom secrets_of_mine import undo\nexec(undo({text!r}))\n"
    assert inner(stub) == SOURCE


def test_unreadable_payload_is_a_problem_not_a_pass():
    noise = base64.b85encode(bytes((i * 7919 + i // 7) % 256 for i in range(5000))).decode()
    stub = f"import mine\nexec(mine.undo({noise!r}))\n"
    found = program({"train_gpt.py": stub})
    assert found.main.text == stub and any("only running the program would tell" in p for p in found.problems)
    code = f"import marshal, base64\nexec(marshal.loads(base64.b85decode({noise!r})))\n"
    assert any("byte code" in p for p in program({"train_gpt.py": code}).problems)


def test_source_changed_before_it_runs():
    followed = "exec(open('real.py').read().replace('math', 'cmath'))\n"
    found = program({"train_gpt.py": followed, "real.py": SOURCE})
    assert found.main is not None
    lost = "import re, sys\nexec(re.sub(sys.argv[1], 'y', open('real.py').read()))\n"
    found = program({"train_gpt.py": lost, "real.py": SOURCE})
    assert found.main.name.endswith("real.py") and any("changed before it runs" in p for p in found.problems)


def test_nothing_is_executed(tmp_path):
    marker = tmp_path / "ran"
    attack = f"open({str(marker)!r}, 'w').write('x')\n"
    text = base64.b64encode(zlib.compress((attack * 9).encode())).decode()
    layers, _ = unpack_bytes(
        f"import zlib, base64\nexec(zlib.decompress(base64.b64decode({text!r})))\n{attack}".encode()
    )
    assert len(layers) == 2 and not marker.exists()


# ---------------------------------------------------------------------- bad input


def test_bombs_stop_at_the_bound():
    zeros = bytes(300 * 2**20)
    bombs = [
        (zlib.compress(zeros, 9), inflate),
        (bz2.compress(zeros), unbz2),
        (lzma.compress(zeros, preset=0), unlzma),
        (brotli.compress(zeros, quality=1), unbrotli),
        (zstandard.compress(zeros), unzstd),
    ]
    del zeros
    for bomb, function in bombs:
        with pytest.raises(UnpackLimit):
            function(bomb, Budget())


def test_bomb_in_a_script_is_a_problem():
    text = base64.b85encode(zlib.compress(zlib.compress(bytes(80 * 2**20), 9), 9)).decode()
    stub = f"import zlib, base64\nexec(zlib.decompress(zlib.decompress(base64.b85decode({text!r}))))\n"
    found = program({"train_gpt.py": stub})
    assert found.main.text == stub and any("expand to more than" in p for p in found.problems)


@pytest.mark.parametrize(
    "stub",
    [
        "x = 'a' * 10**12\nexec(x)\n",
        "x = 2 ** (2 ** 62)\nexec('1' * x)\n",
        "def f(n):\n    return f(n) + f(n)\nexec(f(9))\n",
        "s = 'ab' * 1000\n" + "s = s + s\n" * 60 + "exec(s)\n",
        "for i in range(10**9):\n    for j in range(10**9):\n        exec('pass')\n",
        "exec('{:>999999999}'.format(1))\n",
        "s = 'a' * 1000\n" + "s = s.replace('a', s)\n" * 12 + "exec(s)\n",
    ],
)
def test_scripts_made_to_exhaust_the_evaluator(stub):
    layers, _ = unpack_bytes(stub.encode())
    assert layers[0].text == stub


@pytest.mark.parametrize(
    "shape", ["-" * 60_000 + "1", "(" * 5000 + ")" * 5000, "x" + ".a" * 60_000, "1" + "+1" * 60_000]
)
def test_deeply_nested_source_is_named_not_fatal(shape):
    stub = f"import base64\nexec({shape})\n"
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from auditor.unpack import read_program; from auditor.submission "
         "import Submission;"
         "p = read_program(Submission.from_files({'train_gpt.py': sys.stdin.buffer.read()})); print(p.problems)"],
        input=stub.encode(), capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    assert b"not Python" in done.stdout


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_garbage_never_raises(data):
    unpack_bytes(data)
    unpack_bytes(b"exec(" + data)


def test_binary_garbage_as_a_script_is_named():
    found = program({"train_gpt.py": bytes(range(256)) * 20})
    assert any("not Python" in p and "train_gpt.py" in p for p in found.problems)


def test_prose_is_not_python_but_newer_syntax_is():
    assert any(":1: not Python" in p for p in program({"train_gpt.py": "This is — of course — prose.\n"}).problems)
    newer = "x = {'a': 1}\nprint(f'{x['a']}')\n"
    found = program({"train_gpt.py": newer})
    assert parses(found.main) and found.problems == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings_and_line_ends(encoding):
    text = "# -*- coding: latin-1 -*-\nname = 'é'\n" if encoding == "latin-1" else "name = 'é'\n"
    found = program({"train_gpt.py": text.replace("\n", "\r\n").encode(encoding)})
    assert found.main.text == text and found.problems == []


def test_empty_and_absent_scripts():
    empty = program({"train_gpt.py": ""})
    assert empty.counted_bytes == 0 and empty.main.text == ""
    absent = program({"README.md": "x"})
    assert absent.main is None and absent.layers == []


def test_outline_names_functions_and_methods_with_their_lines():
    text = (
        "class A:\n    def f(self):\n        return 1\n\n\n@cache\ndef g():\n    def h():\n        pass\n    return h\n"
    )
    layers, _ = unpack_bytes(text.encode())
    assert [(e.kind, e.name, e.line, e.end) for e in outline(layers[0])] == [
        ("class", "A", 1, 3),
        ("function", "A.f", 2, 3),
        ("function", "g", 6, 10),
        ("function", "g.h", 8, 9),
    ]


def test_command_prints_and_writes(tmp_path, capsys):
    from auditor.commands.unpack import run

    script = tmp_path / "train_gpt.py"
    script.write_text(pack(SOURCE.encode(), "raw", "b85", "str", "exec"))
    assert run(str(script)) == 0
    assert "val_bpb:{total}" in capsys.readouterr().out
    assert run(str(script), out=tmp_path / "out") == 0
    (written,) = [p for p in (tmp_path / "out").iterdir() if p.read_text() == SOURCE]
    assert "main" in capsys.readouterr().out and written.suffix == ".py"


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("number", "codecs"), [(1493, ("b85", "lzma")), (463, ("b64", "lzma")), (2050, ("b85", "brotli"))]
)
def test_corpus_forms(repo, number, codecs):
    found = read_program(Submission.from_git(repo, number)[0])
    assert found.packed and found.main.codecs == codecs and parses(found.main)


def test_several_files_in_one_payload():
    """A stub that unpacks a runner, the program and a kernel into a temporary folder and starts the runner."""
    runner = "import os\nimport program\n" + "os.environ['A'] = '1'  # settings\n" * 9 + "program.main()\n"
    kernel = "// C++ " + "x" * 400 + "\nint main() { return 0; }\n"
    bundle = "\n# === NEXT ===\n".join((runner, SOURCE, kernel))
    text = base64.b85encode(lzma.compress(bundle.encode(), lzma.FORMAT_RAW, filters=FILTERS)).decode()
    stub = (
        "import lzma, base64, tempfile, os, sys\n"
        f"b = lzma.decompress(base64.b85decode({text!r}), format=lzma.FORMAT_RAW, "
        "filters=[{'id': lzma.FILTER_LZMA2}])\n"
        "d = tempfile.mkdtemp()\n"
        "for n, c in zip(['run.py', 'program.py', 'k/kernel.cpp'], b.decode().split('\\n# === NEXT ===\\n')):\n"
        "    f = os.path.join(d, n); os.makedirs(os.path.dirname(f), exist_ok=True)\n"
        "    open(f, 'w').write(c)\n"
        "sys.path.insert(0, d)\nexec(open(os.path.join(d, 'run.py')).read())\n"
    )
    found = program({"train_gpt.py": stub})
    assert found.main.text == SOURCE and found.packed and found.problems == []
    assert sorted(layer.text for layer in found.layers if layer.parent) == sorted((runner, SOURCE))
