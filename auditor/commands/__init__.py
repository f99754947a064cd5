"""What the commands of `auditor.cli` do, one module each."""
