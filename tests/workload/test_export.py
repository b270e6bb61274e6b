"""The seed files in data/ are what the generator makes."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from streamlab.workload.export import export
from streamlab.workload.tables import TABLES

DATA = Path(__file__).parents[2] / "data"


def lines(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def test_files_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    made = export(tmp_path)
    assert {path.name for path in made} == {path.name for path in DATA.glob("*.jsonl")}
    for path in made:
        assert path.read_bytes() == (DATA / path.name).read_bytes(), path.name


def test_files_hold_the_columns_of_the_tables_and_refer_to_each_other() -> None:
    for name, table in TABLES.items():
        assert all(tuple(line) == table.columns for line in lines(f"{name}.jsonl"))
    customers = {line["id"] for line in lines("customers.jsonl")}
    orders = {line["id"]: line for line in lines("orders.jsonl")}
    assert {line["customer_id"] for line in orders.values()} <= customers
    totals = dict.fromkeys(orders, Decimal(0))
    for line in lines("order_items.jsonl"):
        totals[line["order_id"]] += Decimal(str(line["amount"]))
    assert {key: Decimal(str(order["total"])) for key, order in orders.items()} == totals


def test_the_page_names_every_file_and_column() -> None:
    page = (DATA / "README.md").read_text(encoding="utf-8")
    for path in DATA.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in page
    for table in TABLES.values():
        assert all(f"`{column}`" in page for column in table.columns)
