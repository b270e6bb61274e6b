"""An interrupted cell of a real kernel leaves the slot healthy, the connection whole, and the reader usable."""

from __future__ import annotations

import ast
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamlab import settings
from streamlab.lab.kernel import environment

from .conftest import Shop, eventually

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]


class Kernel:
    """A kernel of its own, as JupyterLab starts one; its interrupt is that of the stop button."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager(kernel_name="python3")
        with (folder / "kernel.log").open("w", encoding="utf-8") as log:
            self.manager.start_kernel(env={**os.environ, **environment(folder=folder)}, stdout=log, stderr=log)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def begin(self, code: str) -> str:
        message: str = self.client.execute(code)
        return message

    def end(self, message: str) -> dict[str, Any]:
        """The reply to a cell."""
        deadline = time.monotonic() + 30
        while True:
            reply = self.client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if reply["parent_header"].get("msg_id") == message:
                content: dict[str, Any] = reply["content"]
                return content

    def run(self, code: str) -> Any:
        """Run a cell; the value of its last expression, which is JSON."""
        reply = self.end(self.client.execute("import json\n" + code, user_expressions={"value": "json.dumps(value)"}))
        assert reply["status"] == "ok", reply
        return json.loads(ast.literal_eval(reply["user_expressions"]["value"]["data"]["text/plain"]))

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


def test_an_interrupted_cell_leaves_the_slot_healthy_and_the_reader_usable(shop: Shop, kernel: Kernel) -> None:
    shop.reader().close()
    dsn = str.__str__(settings.postgres_dsn("cdc"))
    kernel.run(
        f"from streamlab.cdc import PostgreSQLCDC\n"
        f"cdc = PostgreSQLCDC({dsn!r}, {shop.publication!r}, {shop.slot!r})\nseen = []; value = None"
    )
    cell = (
        "for transaction in cdc.transactions():\n"
        "    seen.extend(event.new_data['id'] for event in transaction)\n"
        "    cdc.acknowledge(transaction)"
    )
    served_by = set()
    for number in range(3):
        running = kernel.begin(cell)
        shop.insert(2 * number)
        written = shop.value("SELECT pg_current_wal_lsn()::text")
        # Read, acknowledged, and waiting for more.
        eventually(lambda least=written: shop.value("SELECT %s::pg_lsn <= %s::pg_lsn", least, shop.confirmed()), 30)
        served_by.add(shop.walsender())
        kernel.manager.interrupt_kernel()
        reply = kernel.end(running)
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        # What comes while nobody reads is there for the next cell.
        shop.insert(2 * number + 1)
    assert len(served_by) == 1, "the connection was kept"
    state = "SELECT wal_status = 'reserved' AND active FROM pg_replication_slots WHERE slot_name = %s"
    assert shop.value(state, shop.slot)
    value = kernel.run("seen.extend(e.new_data['id'] for t in cdc.transactions(until=1) for e in t)\nvalue = seen")
    assert value == list(range(6))
    kernel.run("cdc.close(); value = None")
    assert shop.walsender() is None
