"""What a check of a SavedModel found, for a terminal and for a program."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from kerasformer.serving.ops import SERVERS
from kerasformer.serving.session_loader import Session

MIB = 2**20


@dataclass(frozen=True)
class Tensor:
    """An input or output; an unknown dimension is None, and so is the shape when its rank is unknown."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        shape = ["..."] if self.shape is None else ["?" if size is None else str(size) for size in self.shape]
        return f"{self.dtype} [{', '.join(shape)}]"


@dataclass(frozen=True)
class Signature:
    """What a signature takes and gives, by the names that clients use."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Finding:
    """What some servers refuse (an error), or what users will trip over on any of them (a warning)."""

    what: str
    where: tuple[str, ...]
    advice: str
    refused_by: tuple[str, ...] = ()  # of SERVERS

    @property
    def severity(self) -> str:
        return "error" if self.refused_by else "warning"


@dataclass(frozen=True)
class Report:
    """The findings on one version of a model, and what a run in a fresh process measured, if there was one."""

    version_dir: Path
    signatures: dict[str, Signature]
    findings: tuple[Finding, ...]
    session: Session | None = None

    @property
    def verdicts(self) -> dict[str, bool]:
        """Whether each release of TF Serving serves the model."""
        refused = {server for finding in self.findings for server in finding.refused_by}
        return {server: server not in refused for server in SERVERS}

    @property
    def ok(self) -> bool:
        """Whether the newest release serves it."""
        return self.verdicts[SERVERS[-1]]

    def to_json(self) -> str:
        findings = [{"severity": finding.severity, **dataclasses.asdict(finding)} for finding in self.findings]
        report = {"ok": self.ok, "verdicts": self.verdicts, **dataclasses.asdict(self), "findings": findings}
        return json.dumps(report, default=str, indent=2)

    def render(self) -> Group:
        """What `rich.print` shows of the report."""
        parts = [Text(str(self.version_dir), style="bold"), _verdict(self)]
        if self.signatures:
            parts.append(_signature_table(self.signatures))
        if self.findings:
            parts.append(_finding_table(self.findings))
        if self.session:
            parts += _session_lines(self.session)
        return Group(*parts)


def _verdict(report: Report) -> Text:
    served = [server for server, serves in report.verdicts.items() if serves]
    refused = [server for server, serves in report.verdicts.items() if not serves]
    text = Text()
    if served:
        text.append(f"served by TensorFlow Serving {_span(served)}", style="green")
    if refused:
        text.append(", " if served else "")
        text.append(f"refused by {'' if served else 'TensorFlow Serving '}{_span(refused)}", style="red")
    return text


def _span(servers: list[str]) -> str:
    """Releases in a row as a range: what one adds stays in those after it."""
    return servers[0] if len(servers) == 1 else f"{servers[0]} to {servers[-1]}"


def _table(*headers: str) -> Table:
    return Table(*(Column(header, overflow="fold") for header in headers), box=box.SIMPLE_HEAD, pad_edge=False)


def _signature_table(signatures: dict[str, Signature]) -> Table:
    table = _table("signature", "inputs", "outputs")
    for name, signature in signatures.items():
        table.add_row(*map(Text, (name, _tensor_lines(signature.inputs), _tensor_lines(signature.outputs))))
    return table


def _tensor_lines(tensors: dict[str, Tensor]) -> str:
    return "\n".join(f"{name}: {tensor}" for name, tensor in tensors.items())


def _finding_table(findings: tuple[Finding, ...]) -> Table:
    table = _table("", "finding", "where", "what to do")
    for finding in findings:
        servers = f" ({_span(list(finding.refused_by))})" if finding.refused_by not in ((), SERVERS) else ""
        more = f"\nand {len(finding.where) - 1} more" if len(finding.where) > 1 else ""
        severity = Text(finding.severity, style="red" if finding.refused_by else "yellow")
        table.add_row(severity, *map(Text, (finding.what + servers, finding.where[0] + more, finding.advice)))
    return table


def _session_lines(session: Session) -> list[str]:
    own = (session.peak_memory - session.base_memory) / MIB
    lines = [
        f"loaded in {session.load_seconds:.2f} s; memory at its peak {session.peak_memory / MIB:.0f} MiB, "
        f"{own:.0f} MiB of it above bare TensorFlow"
    ]
    cold = {}
    for replay in session.replays:
        cold.setdefault(replay.signature, replay)
    for name, replay in cold.items():
        first, second = replay.first_seconds * 1000, replay.second_seconds * 1000
        lines.append(f"{name}: first request {first:.1f} ms, then {second:.1f} ms")
    return lines
