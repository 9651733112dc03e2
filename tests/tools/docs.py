"""The parts of the documents and .env.example that are made from the code: `python -m tests.tools.docs` writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import yaml

from loader_ws_trades.cli.main import cli
from loader_ws_trades.config.settings import OPTIONS, Option
from loader_ws_trades.monitoring.metrics import METRICS
from tests.tools.rights import RIGHTS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCKER = ROOT / "docker"
EXAMPLE = ROOT / ".env.example"


def settings_table() -> str:
    """All settings: variable, flag, default, meaning."""
    rows = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    rows += [f"| `{option.variable}` | {_flags(option)} | {_default(option)} | {option.help} |" for option in OPTIONS]
    return "\n".join(rows)


def _flags(option: Option) -> str:
    return ", ".join(f"`{flag}`" for flag in (option.short, option.flag) if flag)


def _default(option: Option) -> str:
    if option.default is not None:
        return f"`{option.default}`"
    return "required" if option.required else ""


def commands_table() -> str:
    """All commands and what each does."""
    rows = ["| command | does |", "|---|---|"]
    for name, command in sorted(cli.commands.items()):
        does = command.get_short_help_str(200).replace("|", r"\|")
        rows.append(f"| `{name}` | {does} |")
    return "\n".join(rows)


def rights_table() -> str:
    """All rights on a secured cluster: what for, which, whose, and what is without it."""
    rows = ["| for | right | on | of the user | without it |", "|---|---|---|---|---|"]
    rows += [
        f"| {right.feature} | {right.operation} | {right.on} | `{right.user.upper()}` | {right.without} |"
        for right in RIGHTS
    ]
    return "\n".join(rows)


def metrics_table() -> str:
    """All metrics: name with labels, type, meaning."""
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    for metric in METRICS:
        labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
        rows.append(f"| `{metric.name}{labels}` | {metric.kind} | {metric.meaning} |")
    return "\n".join(rows)


def alerts_table() -> str:
    """All alerts: name, severity, summary."""
    rows = ["| alert | severity | summary |", "|---|---|---|"]
    _, rules = yaml.safe_load_all((DOCKER / "k8s" / "monitoring.yaml").read_text("utf-8"))
    for rule in (rule for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule):
        summary = re.sub(r"{{ \$labels\.(\w+) }}", r"`\1`", rule["annotations"]["summary"])
        rows.append(f"| `{rule['alert']}` | {rule['labels']['severity']} | {summary} |")
    return "\n".join(rows)


TABLES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"commands": commands_table, "settings": settings_table, "metrics": metrics_table, "rights": rights_table},
    DOCKER / "README.md": {"alerts": alerts_table},
}


def generated(document: Path) -> str:
    """A document's text with its tables regenerated."""
    text = document.read_text("utf-8")
    for name, table in TABLES[document].items():
        head, found, rest = re.split(rf"(<!-- {name}: [^\n]*-->\n).*?(?=<!-- end of {name} -->)", text, flags=re.DOTALL)
        text = f"{head}{found}{table()}\n{rest}"
    return text


def env_example() -> str:
    """A file of all variables, the required ones to be filled in, the others as comments with their defaults."""
    lines = ["# Copy to .env and fill in. Flags and environment variables go over it.", ""]
    for option in OPTIONS:
        lines.append(f"# {option.help}")
        lines += [f"{option.variable}=" if option.required else f"# {option.variable}={option.default or ''}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    for document in TABLES:
        document.write_text(generated(document), "utf-8")
    EXAMPLE.write_text(env_example(), "utf-8")
