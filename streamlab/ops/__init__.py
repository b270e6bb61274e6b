"""Proofs and operations: what servers can be asked, and faults on purpose."""

from __future__ import annotations
