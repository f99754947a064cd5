"""Parts of `auditor.unpack`: bounded decoders, a static evaluator for stubs, a search through literals."""
