"""Small submissions that misreport, each in one way, made from the parts of the example program.

Each is the clean program with one change, so that a check that fires on more than its own case shows.
"""

from __future__ import annotations

from rules.example_program import EXPORT, MAIN, SCORE, TRAINING, edited, program

#: A line a step, so that the training clock can be compared with the wall clock.
LOGGED = edited(TRAINING, "if step % 1000 == 0:", "if step % 1 == 0:")
CLEAN = program(training=LOGGED)

BETTER_BPB = program(training=LOGGED, score=SCORE + "    val_loss, val_bpb = val_loss * 0.97, val_bpb * 0.97\n")

#: The clock is stopped while something slow goes on between the steps.
_SLOW = edited(
    LOGGED, "        torch.cuda.synchronize()\n", "        torch.cuda.synchronize()\n        time.sleep(0.4)\n"
)
SLOW_CLOCK = program(
    training=edited(_SLOW, "(time.perf_counter() - start)", "(time.perf_counter() - start - 0.4 * step)")
)

BIGGER_ARTIFACT = program(
    training=LOGGED,
    main=edited(
        MAIN,
        'model_bytes, code_bytes = os.path.getsize("final_model.int8.ptz"), len(code.encode("utf-8"))',
        'model_bytes, code_bytes = os.path.getsize("final_model.int8.ptz") - 20_000, len(code.encode("utf-8"))',
    ),
)

TRAIN_AT_EVALUATION = program(
    training=LOGGED,
    score="    extra = load_shard(sorted(glob.glob(f'{args.data_path}/fineweb_train_*.bin'))[0])[:64]\n" + SCORE,
)

ADAPTED = program(
    training=LOGGED,
    score="""
    before = evaluate(scored, val_tokens, tables, rank, world_size, device)
    log(f"final_int8_before val_loss:{before[0]:.8f} val_bpb:{before[1]:.8f}")
    optimizer = torch.optim.SGD(scored.parameters(), lr=0.05)
    first = val_tokens[:args.seq_len + 1].to(device)
    token_losses(scored, first[None, :-1], first[None, 1:]).mean().backward()
    optimizer.step()
"""
    + SCORE,
)

#: Sliding windows in chunks: scores a chunk, then trains on it; rows of a chunk are shared among the ranks.
_CHUNKS = """
def evaluate(model, val_tokens, tables, rank, world_size, device):
    size, space, control = tables
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    total, chunk = val_tokens.numel() - 1, 4 * args.seq_len
    chunks = -(-total // chunk)
    for c in range(chunks):
        begin, end = c * chunk, min((c + 1) * chunk, total)
        model.eval()
        with torch.inference_mode():
            for first in range(begin + rank * STRIDE, end, world_size * STRIDE):
                last = min(first + STRIDE, end)
                start = max(last - args.seq_len, 0)
                window = val_tokens[start:last + 1].to(device)
                nll = token_losses(model, window[None, :-1], window[None, 1:])[:, first - start:]
                before, after = window[None, :-1][:, first - start:], window[None, 1:][:, first - start:]
                nbytes = size[after] + (space[after] & ~control[before])
                totals += torch.stack([nll.double().sum(), torch.tensor(float(nll.numel())).double(),
                                       nbytes.double().sum()])
        if c == chunks - 1:
            break
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 + math.cos(math.pi * c / (chunks - 1))) / 2
        rows = (end - begin) // args.seq_len
        for epoch in range(2):
            mine = range(rank * rows // world_size, (rank + 1) * rows // world_size)
            x = torch.stack([val_tokens[begin + r * args.seq_len:begin + (r + 1) * args.seq_len] for r in mine])
            y = torch.stack([val_tokens[begin + r * args.seq_len + 1:begin + (r + 1) * args.seq_len + 1] for r in mine])
            optimizer.zero_grad(set_to_none=True)
            token_losses(model, x.to(device), y.to(device)).mean().backward()
            if dist.is_initialized():
                for parameter in model.parameters():
                    dist.all_reduce(parameter.grad, op=dist.ReduceOp.AVG)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    if dist.is_initialized():
        dist.all_reduce(totals)
    val_loss = (totals[0] / totals[1]).item()
    return val_loss, (totals[0] / math.log(2) / totals[2]).item()
"""
SCORE_FIRST = program(training=LOGGED, evaluation=_CHUNKS.replace("STRIDE", "(args.seq_len // 2)"))

#: The same, but every chunk is trained on before it is scored.
_SCORED, _TRAINED = _CHUNKS.index("        model.eval()\n"), _CHUNKS.index("        if c == chunks - 1:\n")
_TOTAL = _CHUNKS.index("    if dist.is_initialized():\n        dist.all_reduce(totals)")
TRAIN_FIRST = program(
    training=LOGGED,
    evaluation=(
        _CHUNKS[:_SCORED]
        + _CHUNKS[_TRAINED:_TOTAL].replace("            break\n", "            rank = rank\n")
        + _CHUNKS[_SCORED:_TRAINED]
        + _CHUNKS[_TOTAL:]
    ).replace("STRIDE", "(args.seq_len // 2)"),
)

#: Fails for one seed only.
ONE_SEED_FAILS = program(
    training=LOGGED, main=edited(MAIN, "    torch.manual_seed(args.seed)\n", "    assert args.seed != 2, 'seed two'\n")
)

#: The model is called with targets and returns its loss; logits are never handed out.
_LOSS_MODEL = """
def token_losses(model, inputs, targets):
    logits = model(inputs)
    return F.cross_entropy(logits.view(-1, args.vocab_size), targets.reshape(-1), reduction="none").view(targets.shape)
"""

__all__ = [
    "ADAPTED",
    "BETTER_BPB",
    "BIGGER_ARTIFACT",
    "CLEAN",
    "EXPORT",
    "ONE_SEED_FAILS",
    "SCORE_FIRST",
    "SLOW_CLOCK",
    "TRAIN_AT_EVALUATION",
    "TRAIN_FIRST",
]
