"""Records as Debezium writes them, for tests that need some of their own making."""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from typing import Any

ROW: list[dict[str, Any]] = [
    {"type": "int32", "optional": False, "field": "id"},
    {
        "type": "bytes", "optional": True, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
        "parameters": {"scale": "2"}, "field": "total",
    },
    {"type": "string", "optional": True, "field": "note"},
]  # fmt: skip
SOURCE: list[dict[str, Any]] = [
    {"type": form, "optional": True, "field": name}
    for name, form in (
        ("connector", "string"), ("ts_ms", "int64"), ("ts_us", "int64"), ("db", "string"), ("table", "string"),
        ("gtid", "string"), ("snapshot", "string"),
    )
]  # fmt: skip


def schema_of(row: list[dict[str, Any]] = ROW, database: str = "mysql") -> dict[str, Any]:
    """The schema of an envelope."""
    source = SOURCE
    if database == "postgresql":
        source = [*SOURCE[:-2], {"type": "string", "field": "schema"}, {"type": "int64", "field": "txId"}]
    named = {"type": "struct", "name": f"io.debezium.connector.{database}.Source", "fields": source, "field": "source"}
    rows = [{"type": "struct", "fields": row, "optional": True, "field": name} for name in ("before", "after")]
    others = [{"type": "string", "field": "op"}, {"type": "int64", "optional": True, "field": "ts_ms"}]
    return {"type": "struct", "fields": [*rows, named, *others], "name": "p.shop.orders.Envelope", "version": 2}


def envelope(number: int, **changes: Any) -> dict[str, Any]:
    """The insertion of an order, without its schema; as ``decimal.handling.mode=string`` writes it."""
    made = {
        "before": None,
        "after": {"id": number, "total": "1.50", "note": "n"},
        "source": {
            "connector": "mysql", "ts_ms": 1000 + number, "ts_us": 1_000_000 + 1000 * number, "db": "shop",
            "table": "orders", "gtid": f"u:{number}", "snapshot": "false",
        },
        "op": "c",
        "ts_ms": 2000,
        "transaction": None,
    }  # fmt: skip
    return {**made, **changes}


def base64(number: int) -> str:
    """A whole number as Connect writes the digits of a decimal."""
    return b64encode(number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True)).decode()


def with_schema(payload: dict[str, Any], schema: dict[str, Any] | None = None) -> bytes:
    """The record of an envelope; its decimals as Connect writes them."""
    payload = copy.deepcopy(payload)
    for name in ("before", "after"):
        row = payload.get(name)
        if row and isinstance(row.get("total"), str) and "." in row["total"]:
            row["total"] = base64(int(row["total"].replace(".", "")))
    return dumps({"schema": schema or schema_of(), "payload": payload})


def key_of(number: int) -> bytes:
    """The key of an order, with its schema."""
    schema = {"type": "struct", "fields": [{"type": "int32", "optional": False, "field": "id"}], "optional": False}
    return dumps({"schema": schema, "payload": {"id": number}})


def dumps(value: Any) -> bytes:
    """Without spaces, as Connect writes JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
