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
    "SLOW_CLOCK",
    "TRAIN_AT_EVALUATION",
]
