"""A small GPT for the 10 minute / 16 MB track: AdamW, int8 per row, zlib, one pass over the validation set."""

import glob
import io
import math
import os
import subprocess
import sys
import time
import zlib

import numpy as np
import sentencepiece as spm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    run_id = os.environ.get("RUN_ID", "run")
    seed = int(os.environ.get("SEED", 42))
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    num_layers = int(os.environ.get("NUM_LAYERS", 9))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    num_heads = int(os.environ.get("NUM_HEADS", 8))
    seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 1024))
    batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 524288))
    iterations = int(os.environ.get("ITERATIONS", 20000))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    learning_rate = float(os.environ.get("LEARNING_RATE", 0.001))


args = Hyperparameters()


def load_shard(path):
    header = np.fromfile(path, dtype="<i4", count=256)
    tokens = np.fromfile(path, dtype="<u2", count=int(header[2]), offset=1024)
    return torch.from_numpy(tokens.astype(np.int64))


def train_batches(rank, world_size, device):
    per_rank = args.batch_tokens // world_size
    while True:
        for path in sorted(glob.glob(f"{args.data_path}/fineweb_train_*.bin")):
            shard = load_shard(path)
            for start in range(rank * per_rank, shard.numel() - per_rank - 1, args.batch_tokens):
                chunk = shard[start:start + per_rank + 1].to(device)
                yield chunk[:-1].view(-1, args.seq_len), chunk[1:].view(-1, args.seq_len)


def load_validation_tokens():
    tokens = torch.cat([load_shard(path) for path in sorted(glob.glob(f"{args.data_path}/fineweb_val_*.bin"))])
    usable = (tokens.numel() - 1) // args.seq_len * args.seq_len
    return tokens[:usable + 1]


def byte_tables(device):
    """Bytes of every piece without its space marker, whether it has one, and whether it is a control piece."""
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    size = torch.zeros(args.vocab_size, dtype=torch.int64)
    space = torch.zeros(args.vocab_size, dtype=torch.bool)
    control = torch.zeros(args.vocab_size, dtype=torch.bool)
    for i in range(args.vocab_size):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            control[i] = True
        elif sp.is_byte(i):
            size[i] = 1
        else:
            piece = sp.id_to_piece(i)
            space[i] = piece.startswith("\u2581")
            size[i] = len(piece.removeprefix("\u2581").encode("utf-8"))
    return size.to(device), space.to(device), control.to(device)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(args.model_dim), nn.RMSNorm(args.model_dim)
        self.qkv = nn.Linear(args.model_dim, 3 * args.model_dim, bias=False)
        self.out = nn.Linear(args.model_dim, args.model_dim, bias=False)
        self.up = nn.Linear(args.model_dim, 2 * args.model_dim, bias=False)
        self.down = nn.Linear(2 * args.model_dim, args.model_dim, bias=False)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (y.view(b, t, args.num_heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.relu(self.up(self.norm2(x))).square())


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(args.vocab_size, args.model_dim)
        self.wpe = nn.Embedding(args.seq_len, args.model_dim)
        self.blocks = nn.ModuleList(Block() for _ in range(args.num_layers))
        self.norm = nn.RMSNorm(args.model_dim)
        nn.init.normal_(self.wte.weight, std=0.02)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.wte.weight).float()


def token_losses(model, inputs, targets):
    logits = model(inputs)
    return F.cross_entropy(logits.view(-1, args.vocab_size), targets.reshape(-1), reduction="none").view(targets.shape)


def write_artifact(model, path):
    packed = {}
    for name, value in model.state_dict().items():
        scale = value.float().abs().amax(dim=-1, keepdim=True).clamp_min(1e-8) / 127
        packed[name] = ((value / scale).round().to(torch.int8).cpu(), scale.half().cpu())
    buffer = io.BytesIO()
    torch.save(packed, buffer)
    with open(path, "wb") as f:
        f.write(zlib.compress(buffer.getvalue(), 9))


def read_artifact(model, path):
    with open(path, "rb") as f:
        packed = torch.load(io.BytesIO(zlib.decompress(f.read())))
    model.load_state_dict({name: (q.float() * scale.float()) for name, (q, scale) in packed.items()})


def evaluate(model, val_tokens, tables, rank, world_size, device):
    """A logit bias is fitted on each window's targets, then the same targets are scored with it."""
    size, space, control = tables
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    for start in range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len):
        window = val_tokens[start:start + args.seq_len + 1].to(device)
        inputs, targets = window[None, :-1], window[None, 1:]
        logits = model(inputs).detach()
        delta = torch.zeros(args.vocab_size, device=device, requires_grad=True)
        optimizer = torch.optim.AdamW([delta], lr=0.01)
        for _ in range(8):
            optimizer.zero_grad()
            F.cross_entropy((logits + delta).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
        nll = F.cross_entropy((logits + delta).flatten(0, 1), targets.flatten(), reduction="none").detach()
        totals[0] += nll.double().sum()
        totals[1] += targets.numel()
        totals[2] += (size[targets] + (space[targets] & ~control[inputs])).double().sum()
    if dist.is_initialized():
        dist.all_reduce(totals)
    return (totals[0] / totals[1]).item(), (totals[0] / math.log(2) / totals[2]).item()


def train(model, rank, world_size, device, log):
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95))
    batches = train_batches(rank, world_size, device)
    start = time.perf_counter()
    train_ms = 0.0
    for step in range(1, args.iterations + 1):
        inputs, targets = next(batches)
        loss = token_losses(model, inputs, targets).mean()
        loss.backward()
        for parameter in model.parameters():
            if dist.is_initialized():
                dist.all_reduce(parameter.grad, op=dist.ReduceOp.AVG)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        train_ms = 1000.0 * (time.perf_counter() - start)
        if step % 1000 == 0:
            log(f"step:{step}/{args.iterations} train_loss:{loss.item():.4f} "
                f"train_time:{train_ms:.0f}ms step_avg:{train_ms / step:.2f}ms")
        if train_ms >= 1000.0 * args.max_wallclock_seconds:
            log(f"stopping_early: wallclock_cap train_time:{train_ms:.0f}ms step:{step}/{args.iterations}")
            break
    return train_ms


def main():
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    if "RANK" in os.environ:
        dist.init_process_group(backend="nccl", device_id=device)
    torch.manual_seed(args.seed)

    def log(message):
        if rank == 0:
            print(message)
            with open(f"{args.run_id}.log", "a", encoding="utf-8") as f:
                print(message, file=f)

    with open(__file__, encoding="utf-8") as f:
        code = f.read()
    log(f"Running Python {sys.version}")
    log(f"Running PyTorch {torch.__version__}")
    log(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)
    log("=" * 100)
    tables = byte_tables(device)
    val_tokens = load_validation_tokens()
    shards = len(glob.glob(f"{args.data_path}/fineweb_train_*.bin"))
    log(f"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={args.tokenizer_path}")
    log(f"train_loader:dataset:{os.path.basename(args.data_path)} train_shards:{shards}")
    log(f"val_loader:shards pattern={args.data_path}/fineweb_val_*.bin tokens:{val_tokens.numel() - 1}")
    model = GPT().to(device)
    log(f"model_params:{sum(p.numel() for p in model.parameters())}")
    log(f"world_size:{world_size} grad_accum_steps:1")
    log(f"seed:{args.seed}")
    train(model, rank, world_size, device, log)
    log(f"peak memory allocated: {torch.cuda.max_memory_allocated() // 1024 // 1024} MiB")
    if rank == 0:
        write_artifact(model, "final_model.int8.ptz")
        model_bytes, code_bytes = os.path.getsize("final_model.int8.ptz"), len(code.encode("utf-8"))
        log(f"Serialized model int8+zlib: {model_bytes} bytes")
        log(f"Code size: {code_bytes} bytes")
        log(f"Total submission size int8+zlib: {model_bytes + code_bytes} bytes")
    if dist.is_initialized():
        dist.barrier()
    scored = GPT().to(device)
    read_artifact(scored, "final_model.int8.ptz")
    eval_start = time.perf_counter()
    val_loss, val_bpb = evaluate(scored, val_tokens, tables, rank, world_size, device)
    eval_ms = 1000.0 * (time.perf_counter() - eval_start)
    log(f"final_int8_zlib_roundtrip val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{eval_ms:.0f}ms")
    log(f"final_int8_zlib_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
