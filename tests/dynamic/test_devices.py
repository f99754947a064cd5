"""Where tensors are, as a program on the stand-in GPU is told, and what moves between the memories copy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

# The stand-in takes the whole process over, so it gets one of its own. The program's code has a name as in the sandbox.
RUN = """
import json, sys
from auditor.dynamic.inside import standin
standin.install()
told = {}
exec(compile(sys.stdin.read(), "/repo/train_gpt.py", "exec"), {"told": told})
print(json.dumps(told))
"""


def told(program: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", RUN], input="import copy, io\nimport numpy as np\nimport torch\n" + program,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_parameters_are_where_they_were_put() -> None:
    found = told("""
device = torch.device("cuda", 0)
model = torch.nn.Linear(3, 3).to(device)
told["put"] = [parameter.device == device for parameter in model.parameters()]
told["back"] = [str(p.device) for p in model.cpu().parameters()]
told["again"] = [str(p.device) for p in model.to(0).parameters()]
told["copy"] = [str(p.device) for p in copy.deepcopy(model).to("cpu").parameters()]
told["kept"] = str(model.weight.device)
model(torch.ones(2, 3, device=device)).sum().backward()
told["norm"] = str(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).device)
told["index"] = model.weight.get_device()
""")
    assert found["put"] == [True, True]
    assert found["back"] == found["copy"] == ["cpu", "cpu"]
    assert found["again"] == ["cuda:0", "cuda:0"]
    assert (found["kept"], found["norm"], found["index"]) == ("cuda:0", "cuda:0", 0)


def test_what_is_made_of_host_tensors_is_on_the_host() -> None:
    found = told("""
x = torch.ones(4, device="cuda").cpu()
told["host"] = [str(t.device) for t in (x, x.float().contiguous(), (2 * x + 1)[:2], torch.stack([x, x]))]
told["flags"] = [x.is_cuda, x.is_cpu, x.to("cuda").is_cuda, x.to("cuda").is_cpu]
told["numpy"] = str(torch.from_numpy(np.zeros(2)).device)
told["pinned"] = str(torch.from_numpy(np.zeros(2)).pin_memory().to("cuda", non_blocking=True).device)
with torch.device("cuda"):
    told["context"] = str(torch.zeros(2).device)
""")
    assert set(found["host"]) == {"cpu"}
    assert found["flags"] == [False, True, True, False]
    assert (found["numpy"], found["pinned"], found["context"]) == ("cpu", "cuda:0", "cuda:0")


def test_a_snapshot_in_the_hosts_memory_does_not_follow_the_weights() -> None:
    found = told("""
model = torch.nn.Linear(2, 2, device="cuda")
before = model.weight.detach().clone()
snapshot = {name: value.cpu() for name, value in model.state_dict().items()}
other = {name: value.to("cpu") for name, value in model.state_dict().items()}
same = snapshot["weight"].cpu()
with torch.no_grad():
    model.weight.add_(1)
told["kept"] = [bool((held["weight"] == before).all()) for held in (snapshot, other)]
told["within"] = same is snapshot["weight"]
back = snapshot["weight"].to("cuda")
back.add_(1)
told["apart"] = bool((snapshot["weight"] == before).all())
""")
    assert found == {"kept": [True, True], "within": True, "apart": True}


def test_loaded_tensors_are_where_they_were_loaded_to() -> None:
    found = told("""
file = io.BytesIO()
torch.save({"a": torch.ones(2, device="cuda")}, file)
for place in ("cpu", torch.device("cuda", 0), None):
    file.seek(0)
    told[str(place)] = torch.load(file, map_location=place)["a"].is_cuda
""")
    assert found == {"cpu": False, "cuda:0": True, "None": True}
