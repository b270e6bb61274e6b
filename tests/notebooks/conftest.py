"""What lessons leave running on purpose does not run on into other files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def registry_as_before() -> Iterator[None]:
    """A schema registry that a lesson has started goes with its file."""
    from streamlab.stack import Stack

    yield
    Stack().down(["registry"])
