"""Facts the auditor compares with: fingerprints of the validation set and the history of records."""
