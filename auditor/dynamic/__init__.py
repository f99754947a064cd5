"""The third witness: the submission's own program, run at reduced scale on a CPU inside a sandbox."""
