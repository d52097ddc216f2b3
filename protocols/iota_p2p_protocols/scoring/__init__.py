"""Who validates, what counts as evidence, and how it becomes scores and payouts (spec: protocols/spec/scores.md).

Pure: bytes, seeds, clocks and losses in; values or errors out.
"""
