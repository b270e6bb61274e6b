"""Contract suites: one class of tests for every implementation that stands behind one name."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contracts.dead_letters")
