"""Keys of submission.json by what they hold, in lower case with underscores, the surest first.

From the keys that real files use; other keys are recognised by their words (`auditor.documents.metadata`).
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: Objects that hold the submission's own results.
PARENTS = _words(
    """
    results result metrics final headline summary evaluation eval scores performance record main submission
    reported aggregate stats statistics mean best
    """
)

#: Headline.
BPB = _words(
    """
    val_bpb final_val_bpb headline_val_bpb bpb val_bpb_exact post_ttt_val_bpb ttt_val_bpb val_bpb_ttt
    legal_ttt_val_bpb val_bpb_sliding sliding_val_bpb val_bpb_sliding_window sliding_window_val_bpb final_bpb
    best_val_bpb quantized_val_bpb roundtrip_val_bpb val_bpb_roundtrip score score_bpb
    """
)

#: Mean over seeds.
MEAN_BPB = _words(
    """
    mean_val_bpb val_bpb_mean mean_bpb bpb_mean avg_val_bpb val_bpb_avg average_val_bpb val_bpb_3seed_mean
    val_bpb_mean_3seed 3_seed_mean_val_bpb three_seed_mean_val_bpb seed_mean_val_bpb val_bpb_seed_mean
    mean_val_bpb_3seed mean_ttt_bpb mean_ttt_val_bpb ttt_bpb_mean ttt_mean_bpb mean_sliding_bpb
    """
)

#: Spread over seeds.
STD_BPB = _words(
    """
    val_bpb_std std_val_bpb std_bpb bpb_std val_bpb_stdev val_bpb_std_dev stdev_val_bpb sd_val_bpb val_bpb_sd
    std_dev std stddev sample_std std_ttt_bpb
    """
)

#: Validation loss, nats per token.
LOSS = _words(
    """
    val_loss mean_val_loss val_loss_mean final_val_loss val_loss_nats val_loss_exact post_ttt_val_loss mean_loss
    roundtrip_val_loss
    """
)

#: Model plus code.
TOTAL = _words(
    """
    bytes_total total_bytes artifact_bytes artifact_bytes_max max_artifact_bytes artifact_size_bytes
    total_artifact_bytes artifact_total_bytes submission_bytes total_submission_bytes submission_size_bytes
    total_submission_size_bytes total_size_bytes artifact_size total_size bytes_total_max max_bytes_total
    artifact_mb artifact_size_mb total_mb size_mb total_size_mb artifact_size_mib submission_size
    compressed_size_bytes artifact_bytes_total bytes_artifact model_size_mb total_submission_bytes_max
    """
)

#: Mean of it over seeds.
TOTAL_MEAN = _words(
    """
    artifact_bytes_mean mean_artifact_bytes bytes_total_mean artifact_bytes_avg
    """
)

#: Packed model.
MODEL = _words(
    """
    bytes_model model_bytes compressed_model_bytes model_size_bytes bytes_model_compressed
    model_compressed_bytes bytes_weights weights_bytes compressed_bytes model_artifact_bytes
    """
)

#: Program.
CODE = _words(
    """
    bytes_code code_bytes code_size_bytes code_size bytes_code_compressed train_gpt_bytes script_bytes
    packed_code_bytes code_bytes_max
    """
)

#: Training time.
TRAIN = _words(
    """
    training_time_seconds train_time_seconds train_seconds training_seconds train_time_s training_time_s
    train_time_s_max train_time_s_mean train_time_ms training_time_ms train_time_sec train_time training_time
    training_wallclock_seconds train_wallclock_seconds train_wallclock_s wallclock_seconds wallclock_s
    wall_clock_seconds training_wallclock_s wallclock_time_seconds wallclock_train_seconds wallclock_train_s
    wall_time_seconds train_ms wallclock train_time_ms_mean training_time_minutes train_minutes
    wallclock_minutes time_seconds
    """
)

#: Evaluation time.
EVAL = _words(
    """
    eval_time_seconds eval_time_s eval_seconds evaluation_time_seconds eval_time_s_max eval_time_s_mean
    eval_time_ms eval_time total_eval_time_s total_eval_time_seconds total_eval_seconds eval_wallclock_seconds
    eval_time_max_s eval_time_mean_s eval_wallclock_s eval_time_sec ttt_time_seconds ttt_eval_time_s
    ttt_eval_seconds ttt_time_s eval_time_seconds_max eval_time_seconds_mean eval_time_ms_mean
    ttt_eval_time_seconds eval_ms
    """
)

#: Objects that hold settings.
SETTING_PARENTS = _words(
    """
    config hyperparameters hyperparams training model architecture params settings training_config model_config
    optimizer quantization ttt compliance setup env run_config tokenizer environment eval_config
    key_hyperparameters
    """
)

#: Who and what, no settings.
IDENTITY = _words(
    """
    author github_id github name date track hardware blurb description notes note
    """
)
