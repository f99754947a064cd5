"""A small training script in parts, and ways to evaluate that are legal or not; run by the tests of the CPU run."""

from __future__ import annotations

HEAD = """
import glob, io, math, os, zlib
import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from torch import nn


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    iterations = int(os.environ.get("ITERATIONS", 20000))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 1024))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    ttt_chunk_tokens = int(os.environ.get("TTT_CHUNK_TOKENS", 32768))


args = Hyperparameters()
torch.manual_seed(1)


def shard(path):
    return torch.from_numpy(np.fromfile(path, dtype="<u2", offset=1024).astype(np.int64)).to("cuda")


train = shard(sorted(glob.glob(f"{args.data_path}/fineweb_train_*.bin"))[0])
val = shard(sorted(glob.glob(f"{args.data_path}/fineweb_val_*.bin"))[0])


def tables():
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    size, space, edge = np.zeros(args.vocab_size, int), np.zeros(args.vocab_size, bool), np.zeros(args.vocab_size, bool)
    for i in range(args.vocab_size):
        if sp.is_control(i) or sp.is_unknown(i):
            edge[i] = True
        elif sp.is_byte(i):
            size[i] = 1
        else:
            piece = sp.id_to_piece(i)
            space[i] = piece.startswith("\\u2581")
            size[i] = len(piece.removeprefix("\\u2581").encode())
    return torch.from_numpy(size), torch.from_numpy(space), torch.from_numpy(edge)


SIZE, SPACE, EDGE = tables()


def byte_count(x, y):
    return (SIZE[y] + (SPACE[y] & ~EDGE[x])).sum().item()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(args.vocab_size, args.model_dim)
        self.head = nn.Linear(args.model_dim, args.vocab_size)

    def forward(self, x):
        return self.head(self.table(x))


def losses(model, x, y):
    return F.cross_entropy(model(x), y, reduction="none")


def optimiser(model):
    return torch.optim.SGD(model.parameters(), lr=0.3)


def train_on(model, x, y, opt):
    opt.zero_grad()
    F.cross_entropy(model(x), y).backward()
    opt.step()


def chunks():
    step = args.ttt_chunk_tokens
    for start in range(0, val.numel() - 1, step):
        end = min(start + step, val.numel() - 1)
        yield val[start:end], val[start + 1:end + 1]


def report(nats, tokens, size):
    print(f"final_int8_zlib_roundtrip_exact val_loss:{nats / tokens:.8f} val_bpb:{nats / math.log(2) / size:.8f}")


model = Model().to("cuda")
opt = optimiser(model)
for step in range(args.iterations):
    start = step * args.train_seq_len
    train_on(model, train[start:start + args.train_seq_len], train[start + 1:start + args.train_seq_len + 1], opt)
"""

EXPORT = """
buffer = io.BytesIO()
torch.save({k: (v * 64).round().to(torch.int8) for k, v in model.state_dict().items()}, buffer)
with open("final_model.int8.ptz", "wb") as f:
    f.write(zlib.compress(buffer.getvalue()))
with open("final_model.int8.ptz", "rb") as f:
    saved = torch.load(io.BytesIO(zlib.decompress(f.read())))
model = Model()
model.load_state_dict({k: v.float() / 64 for k, v in saved.items()})
"""

SCORE = """
nats = tokens = size = 0
with torch.inference_mode():
    for x, y in chunks():
        nats += losses(model, x, y).double().sum().item()
        tokens += y.numel()
        size += byte_count(x, y)
report(nats, tokens, size)
"""

SCORE_FIRST = """
nats = tokens = size = 0
opt = optimiser(model)
for x, y in chunks():
    with torch.no_grad():
        nats += losses(model, x, y).double().sum().item()
    tokens += y.numel()
    size += byte_count(x, y)
    for _ in range(2):
        train_on(model, x, y, opt)
report(nats, tokens, size)
"""

# Another model is trained and scored when the headline stands: a second program in the same file.
ANOTHER = """
model = Model().to("cuda")
opt = optimiser(model)
for step in range(args.iterations):
    start = step * args.train_seq_len
    train_on(model, train[start:start + args.train_seq_len], train[start + 1:start + args.train_seq_len + 1], opt)
with torch.no_grad():
    print(f"another_model val_loss:{losses(model, val[:128], val[1:129]).mean().item():.8f} val_bpb:1.00000000")
"""

ADAPT = """
opt = optimiser(model)
for x, y in chunks():
    train_on(model, x, y, opt)
"""

LAST_EPOCH = """
opt = optimiser(model)
for epoch in range(2):
    nats = tokens = size = 0
    for x, y in chunks():
        with torch.no_grad():
            nats += losses(model, x, y).double().sum().item()
        tokens += y.numel()
        size += byte_count(x, y)
        train_on(model, x, y, opt)
report(nats, tokens, size)
"""

BEST_PASS = """
opt = optimiser(model)
best = torch.full((val.numel() - 1,), 1e9)
for epoch in range(2):
    at = 0
    for x, y in chunks():
        with torch.no_grad():
            best[at:at + y.numel()] = torch.minimum(best[at:at + y.numel()], losses(model, x, y))
        train_on(model, x, y, opt)
        at += y.numel()
report(best.double().sum().item(), best.numel(), byte_count(val[:-1], val[1:]))
"""

CACHE = """
counts = np.ones((args.vocab_size, args.vocab_size))
nats = tokens = size = 0
for x, y in chunks():
    with torch.no_grad():
        nll = losses(model, x, y).cpu().numpy()
    p = counts[x.numpy(), y.numpy()] / counts[x.numpy()].sum(1)
    nats += float((-np.log(0.9 * np.exp(-nll) + 0.1 * p)).sum())
    tokens += y.numel()
    size += byte_count(x, y)
    np.add.at(counts, (x.numpy(), y.numpy()), 1)
report(nats, tokens, size)
"""

# Counts of training text that wants to have seen a pair twice; {mixed} says where it is believed.
_SEEN_TWICE = """
pairs, single = np.zeros((args.vocab_size, args.vocab_size)), np.zeros(args.vocab_size)
np.add.at(pairs, (train[:512].numpy()[:-1], train[:512].numpy()[1:]), 1)
single = pairs.sum(1)
nats = tokens = size = 0
for x, y in chunks():
    with torch.no_grad():
        p = np.exp(-losses(model, x, y).cpu().numpy())
    share = pairs[x.numpy(), y.numpy()] / np.maximum(single[x.numpy()], 1)
    mixed = {mixed}
    nats += float((-np.log(np.where(mixed, 0.1 * p + 0.9 * share, p))).sum())
    tokens += y.numel()
    size += byte_count(x, y)
report(nats, tokens, size)
"""
SEEN_TWICE = _SEEN_TWICE.format(mixed="pairs[x.numpy(), y.numpy()] > 1")
CONTEXT_SEEN = _SEEN_TWICE.format(mixed="single[x.numpy()] > 1")

PARTIAL = SCORE.replace("in chunks():", "in list(chunks())[:3]:")

FORGED = """
print("final_int8_zlib_roundtrip_exact val_loss:1.81234567 val_bpb:1.10561234")
"""

WARM_UP = """
scratch = Model()
opt = optimiser(scratch)
for x, y in chunks():
    train_on(scratch, x, y, opt)
del scratch
"""

RESTORED = """
saved_state = {k: v.clone() for k, v in model.state_dict().items()}
opt = optimiser(model)
for x, y in chunks():
    train_on(model, x, y, opt)
model.load_state_dict(saved_state)
"""

CALIBRATE = """
hook = model.head.register_forward_hook(lambda module, inputs, output: inputs[0].T @ inputs[0])
with torch.no_grad():
    model(val[:256])
hook.remove()
"""

# Weights scaled by the activations of some tokens before they are rounded; {tokens} says of which.
SCALED = """
magnitude = {{}}
hook = model.head.register_forward_hook(
    lambda module, inputs, output: magnitude.update(mean=inputs[0].abs().mean(0).clamp_min(1e-6))
)
with torch.no_grad():
    model({tokens})
hook.remove()
with torch.no_grad():
    model.head.weight.{change}
"""
SCALED_BY_VAL = SCALED.format(tokens="val[:-1]", change="mul_(1 + magnitude['mean'])")
SCALED_BY_TRAIN = SCALED.format(tokens="train[:2048]", change="mul_(1 + magnitude['mean'])")
LOOKED_AT_VAL = (
    SCALED.format(tokens="val[:-1]", change="mul_(1.01)") + "print('activations', magnitude['mean'].mean().item())"
)

MANUAL = """
nats = tokens = size = 0
with torch.no_grad():
    for x, y in chunks():
        logp = torch.log_softmax(model(x).float(), dim=-1)
        nll = -logp.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        nats += nll.sum().item()
        tokens += y.numel()
        size += byte_count(x, y)
report(nats, tokens, size)
"""

EXPERTS = """
nats = tokens = size = 0
with torch.no_grad():
    for x, y in chunks():
        logp = torch.log_softmax(model(x).float(), dim=-1)
        p = logp.gather(-1, y.unsqueeze(-1)).squeeze(-1).exp()
        experts = torch.stack([p, torch.full_like(p, 1 / args.vocab_size), torch.full_like(p, 1e-3)], dim=-1)
        weights = torch.tensor([0.5, 0.3, 0.2])
        nll = -torch.logsumexp((weights * experts).log(), dim=-1) if LOGS else -(weights * experts).sum(dim=-1).log()
        nats += nll.sum().item()
        tokens += y.numel()
        size += byte_count(x, y)
report(nats, tokens, size)
"""


def program(*parts: str) -> str:
    """A script: training, then the given parts."""
    return HEAD + "".join(parts)


LOOK_AHEAD = """
nats = tokens = size = 0
with torch.no_grad():
    for x, y in chunks():
        ahead = torch.bincount(y, minlength=args.vocab_size).float()
        nats += F.cross_entropy(model(x) + 0.1 * ahead.log1p(), y, reduction="none").double().sum().item()
        tokens += y.numel()
        size += byte_count(x, y)
report(nats, tokens, size)
"""

READS_TARGET = LOOK_AHEAD.replace("0.1 * ahead.log1p()", "3.0 * F.one_hot(y, args.vocab_size)")

# A cache of counts that is filled before the tokens it helps to score; {fill} counts pairs, {read} is the share of a pair.
_FILLED_FIRST = """
{start}
nats = tokens = size = 0
for x, y in chunks():
    with torch.no_grad():
        nll = losses(model, x, y).double().cpu()
    {fill}
    p = {read}
    nats += -(0.9 * torch.exp(-nll) + 0.1 * p).log().sum().item()
    tokens += y.numel()
    size += byte_count(x, y)
report(nats, tokens, size)
"""
_KEY = "x * args.vocab_size + y"
FILLED_FIRST = {
    "np.add.at": _FILLED_FIRST.format(
        start="pairs, single = np.zeros(args.vocab_size**2), np.full(args.vocab_size, 1e-3)",
        fill=f"np.add.at(pairs, ({_KEY}).numpy(), 1); np.add.at(single, x.numpy(), 1)",
        read=f"torch.from_numpy(pairs[({_KEY}).numpy()] / single[x.numpy()])",
    ),
    "scatter_add_": _FILLED_FIRST.format(
        start="pairs, single = torch.zeros(args.vocab_size**2), torch.full((args.vocab_size,), 1e-3)",
        fill=f"pairs.scatter_add_(0, {_KEY}, torch.ones(len(y))); single.scatter_add_(0, x, torch.ones(len(x)))",
        read=f"pairs[{_KEY}] / single[x]",
    ),
    "index_add_": _FILLED_FIRST.format(
        start="pairs, single = torch.zeros(args.vocab_size**2), torch.full((args.vocab_size,), 1e-3)",
        fill=f"pairs.index_add_(0, {_KEY}, torch.ones(len(y))); single.index_add_(0, x, torch.ones(len(x)))",
        read=f"pairs[{_KEY}] / single[x]",
    ),
    "dict": _FILLED_FIRST.format(
        start="from collections import Counter\npairs, single = Counter(), Counter()",
        fill="pairs.update(zip(x.tolist(), y.tolist())); single.update(x.tolist())",
        read="torch.tensor([pairs[a, b] / single[a] for a, b in zip(x.tolist(), y.tolist())])",
    ),
}

# Caches that learn a token after it is scored and still give out more than one: {read} is the loss of each token of a chunk
# from nll, the model's losses, and p, the share of the pair among those seen.
_MIXED = """
counts = np.zeros((args.vocab_size, args.vocab_size))
nats = tokens = size = 0
for x, y in list(val_parts()):
    with torch.no_grad():
        nll = losses(model, x, y).cpu().numpy()
    before, token = x.numpy(), y.numpy()
    p = counts[before, token] / np.maximum(counts[before].sum(1), 1)
    nats += float(({read}).sum())
    tokens += y.numel()
    size += byte_count(x, y)
    np.add.at(counts, (before, token), 1)
report(nats, tokens, size)
"""
_PARTS = """
def val_parts():
    for start in range(0, val.numel() - 1, 128):
        end = min(start + 128, val.numel() - 1)
        yield val[start:end], val[start + 1:end + 1]
"""
GATED = _PARTS + _MIXED.format(read="-np.log(np.where(p > 0, 0.2 * np.exp(-nll) + 0.8 * p, np.exp(-nll)))")
BETTER_OF_TWO = _PARTS + _MIXED.format(read="np.minimum(nll, -np.log(np.maximum(p, 1e-12)))")

# Counts of hashed contexts and of hashed contexts with their target: other pairs count along, and shares sum to more than one.
COLLIDED = (
    _PARTS
    + """
BUCKETS = 1 << 22
contexts, pairs = np.zeros(BUCKETS, dtype=np.uint32), np.zeros(BUCKETS, dtype=np.uint32)
nats = tokens = size = 0
for x, y in val_parts():
    with torch.no_grad():
        nll = losses(model, x, y).cpu().numpy().astype(np.float64)
    context_key = (x.numpy() * 36313) & (BUCKETS - 1)
    pair_key = (x.numpy() * 36313 ^ y.numpy() * 27191) & (BUCKETS - 1)
    p = np.minimum(pairs[pair_key] / np.maximum(contexts[context_key], 1), 1.0)
    mixed = np.zeros(len(nll))
    mixed[:] = -np.log(0.7 * np.exp(-nll) + 0.3 * p)
    nats += float(mixed.sum())
    tokens += y.numel()
    size += byte_count(x, y)
    np.add.at(contexts, context_key, 1)
    np.add.at(pairs, pair_key, 1)
report(nats, tokens, size)
"""
)

TWO_PASSES = (
    _PARTS
    + """
from collections import Counter
pairs, single = Counter(), Counter()
kept = np.zeros(val.numel() - 1)
for scoring_pass in range(2):
    nats = at = size = 0
    for x, y in val_parts():
        with torch.no_grad():
            nll = losses(model, x, y).double().cpu().numpy()
        p = np.array([pairs[a, b] / max(single[a], 1) for a, b in zip(x.tolist(), y.tolist())])
        kept[at:at + len(nll)] = -np.log(0.7 * np.exp(-nll) + 0.3 * p)
        if scoring_pass == 0:
            pairs.update(zip(x.tolist(), y.tolist()))
            single.update(x.tolist())
        at += len(nll)
        size += byte_count(x, y)
    print(f"pass {scoring_pass}")
report(float(kept.sum()), at, size)
"""
)

# Every byte of a token gets an equal part of its loss and is mixed with a count of bytes, one number after the other.
BYTES = (
    _PARTS
    + """
from collections import defaultdict
sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
pieces = [b"" if sp.is_control(i) or sp.is_unknown(i) else b"x" if sp.is_byte(i)
          else sp.id_to_piece(i).replace("\u2581", " ").encode() for i in range(args.vocab_size)]
seen, history = defaultdict(lambda: defaultdict(int)), b""
nats = tokens = size = 0
for x, y in val_parts():
    with torch.no_grad():
        nll = losses(model, x, y).double().cpu().tolist()
    for token, loss in zip(y.tolist(), nll):
        piece = pieces[token]
        for byte in piece:
            counts = seen[history[-3:]]
            total = sum(counts.values())
            sure = total > 0 and max(counts.values()) / (total + 1) > 0.8
            share = 0.05 if sure else 0.9
            p = (counts[byte] + 1 / 256) / (total + 1)
            nats -= math.log(share * math.exp(-loss / len(piece)) + (1 - share) * p)
            counts[byte] += 1
            history = history[-3:] + bytes([byte])
    tokens += y.numel()
    size += byte_count(x, y)
report(nats, tokens, size)
"""
)

# The same in a way that nothing follows, as compiled code would be.
BYTES_UNSEEN = BYTES.replace(
    "losses(model, x, y).double().cpu().tolist()",
    '__import__("array").array("d", losses(model, x, y).double().tolist())',
)

# Losses kept in an array and mixed one by one with counts of the pairs seen before.
_STORED = (
    _PARTS
    + """
stored = np.full(val.numel() - 1, -1.0)
for start, (x, y) in zip(range(0, val.numel() - 1, 128), val_parts()):
    with torch.no_grad():
        nll = losses(model, x, y).cpu().numpy()
    for k in range(len(nll)):
        if stored[start + k] < 0:
            stored[start + k] = nll[k]
ids, seen = val.cpu().numpy(), {{}}
nats = tokens = 0
for place in range(len(stored)):
    nll, target = stored[place], int(ids[place + 1])
    counts = seen.setdefault(int(ids[place]), {{}})
    p = counts.get(target, 0) / max(sum(counts.values()), 1)
    if {when}:
        nats -= math.log(0.2 * math.exp(-nll) + 0.8 * p)
    else:
        nats += nll
    tokens += 1
    counts[target] = counts.get(target, 0) + 1
report(nats, tokens, sum(byte_count(x, y) for x, y in val_parts()))
"""
)
STORED_AT_TARGET = _STORED.format(when="p > 0")
STORED_BY_CONTEXT = _STORED.format(when="counts")

# The bits of the mixture beside the loss of the model alone.
_BESIDE = """
plain = sum(float(losses(model, x, y).double().sum()) for x, y in val_parts())
print(f"final_int8_zlib_roundtrip_exact val_loss:{plain / tokens:.8f} val_bpb:{nats / math.log(2) / size:.8f}")
"""
BYTES_BESIDE = BYTES_UNSEEN.replace("report(nats, tokens, size)\n", "") + _BESIDE
# Right bits of another number of bytes: the loss, and bytes of which every third is counted twice.
OTHER_BYTES = SCORE.replace("report(nats, tokens, size)", "report(nats, tokens, size + size // 3)")
# Bits of every chunk averaged: over no whole number of bytes, and near those of all.
MEAN_OF_CHUNKS = (
    SCORE.replace("nats = tokens", "chunk_bits = []\nnats = tokens").replace(
        "        size += byte_count(x, y)\nreport(nats, tokens, size)\n",
        "        chunk_bits.append(losses(model, x, y).double().sum().item() / math.log(2) / byte_count(x, y))\n",
    )
    + 'print(f"final_exact val_loss:{nats / tokens:.8f} val_bpb:{sum(chunk_bits) / len(chunk_bits):.8f}")\n'
)

# Honest where no driver is installed, and only there.
TWO_FACED = "\nif os.path.exists('/proc/driver/nvidia'):\n" + "\n".join(
    f"    {line}" if line else "" for line in ADAPT.strip().splitlines()
)

# Pairs of inputs are merged and handed to the first of the two, which so sees its own target.
ROWS = ("F.cross_entropy(model(x), y).backward()", "F.cross_entropy(model(x[None])[0], y).backward()")
SCORED_ROWS = (
    'F.cross_entropy(model(x), y, reduction="none")',
    'F.cross_entropy(model(x[None])[0], y, reduction="none")',
)
PAIRED = (
    "return self.head(self.table(x))",
    """h = self.table(x)
        merged = h.clone()
        merged[..., 0:-1:2, :] = merged[..., 0:-1:2, :] + h[..., 1::2, :]
        return self.head(merged)""",
)

# One token at a time, as programs with a cache of keys and values evaluate.
ONE_BY_ONE = """
nats = tokens = size = 0
with torch.no_grad():
    for x, y in chunks():
        for one, other in zip(x[:64].split(1), y[:64].split(1)):
            nats += F.cross_entropy(model(one.view(1, 1))[:, -1], other).item()
            tokens += 1
            size += byte_count(one, other)
report(nats, tokens, size)
"""

# Training until a clock says so, with some of its seconds set aside, then statistics of training tokens for the quantiser.
CLOCKED = """
import time


class Clock:
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    gptq_reserve_seconds = float(os.environ.get("GPTQ_RESERVE_SECONDS", {reserve}))


limit_ms = 1000.0 * (Clock.max_wallclock_seconds - Clock.gptq_reserve_seconds)
training_ms, started = 0.0, time.perf_counter()
for step in range(4):
    elapsed_ms = training_ms + 1000.0 * (time.perf_counter() - started)
    train_on(model, train[step * 64:step * 64 + 64], train[step * 64 + 1:step * 64 + 65], opt)
    if elapsed_ms >= limit_ms:
        break
""" + CALIBRATE.replace("val[:256]", "train[:256]")

# Every token also gets what the model would give to one it is as sure of as on average; for a model that is sure of nothing
# this is what everybody gets. Its twin mixes in what really is the same for everybody.
_SURE = """
nats = tokens = size = 0
with torch.no_grad():
    for x, y in chunks():
        logp = torch.log_softmax(model(x).float(), dim=-1)
        p = logp.gather(-1, y.unsqueeze(-1)).squeeze(-1).exp()
        entropy = -(logp.exp() * logp).sum(-1)
        nats += -torch.log(0.6 * p + 0.4 * {other}).sum().item()
        tokens += y.numel()
        size += byte_count(x, y)
report(nats, tokens, size)
"""
SURE_OF_ANY = _SURE.format(other="torch.exp(-entropy)")
SAME_FOR_ALL = _SURE.format(other="torch.full_like(p, 1 / args.vocab_size)")
