"""Benchmarks: what streamlab does, measured against references in the same run. Run as ``python -m benchmarks``.

An absolute speed says more about the machine than about the code. So each case measures ours and its references
in turn, in several rounds, and what is reported is their ratio. docs/benchmarks.md says how to read and to add one.
"""
