"""`streamlab doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from streamlab.cli.show import console, document

__all__ = ["doctor"]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Look for what could keep this machine from running the lessons.

    The exit code is 1 when something does, with the fix beside it; warnings leave it at 0.
    """
    from streamlab.stack.doctor import Verdict, examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if as_json:
            continue
        mark, colour = {Verdict.OK: ("✓", "green"), Verdict.WARN: ("!", "yellow"), Verdict.FAIL: ("✗", "red")}[
            finding.verdict
        ]
        detail = finding.detail.replace("\n", "\n" + " " * 17)
        console.print(Text.assemble((mark, colour), f" {finding.subject:<14} {detail}"), soft_wrap=True)
        if finding.fix and finding.verdict is not Verdict.OK:
            console.print(Text(f"    → {finding.fix}"), soft_wrap=True)
    failed = any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        document({"ok": not failed, "findings": [asdict(each) for each in findings]})
    elif failed:
        console.print("This machine is not ready: see ✗ above.", style="red")
    else:
        console.print("This machine is ready.", style="green")
    if failed:
        raise typer.Exit(1)
