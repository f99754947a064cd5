"""Re-runs of a submission, measured from outside, and the comparison with what it claims.

`plan` says what will run, `rerun` runs it seed by seed and keeps what finished, `measure` turns what was observed into
times, sizes and scores, `compare` sets them beside the claims, `render` writes the section of the report. `rescore`
takes the losses of a submission's own model with the reference evaluator's loop.
"""
