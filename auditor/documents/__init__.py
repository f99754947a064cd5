"""The first witness: submission.json, README and train logs, read tolerantly into claims and measurements."""
