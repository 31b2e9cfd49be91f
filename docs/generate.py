"""Writes what in these pages follows from the code: `python docs/generate.py`.

These are knobs.md, commands.md and the package's study_schema.json; tests/test_docs.py fails
where one of them is not current.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import nnclr_study
from nnclr_study.cli import app
from nnclr_study.study.config import OWN, TrialConfig
from nnclr_study.study.schema import FILE, schema_text, study_schema

DOCS = Path(__file__).parent
MADE_BY = "<!-- Written by docs/generate.py: do not edit. -->"
EXIT_CODES = """## Exit codes

| code | what it says |
|--:|---|
| 0 | fine |
| 1 | finished, with failed trials |
| 2 | usage, study file or run folder |
| 3 | cluster or data; `doctor`: `run` cannot work here |
| 70 | internal error: please report it, with the log that the last line names |
| 130 | interrupted; the same command goes on |"""


def knobs() -> str:
    """Return the page of every knob of a trial."""
    rows = [
        f"| `{name}` | {_kind(name, rule)} | {_default(name)} | {rule['description']} |"
        for name, rule in study_schema()["definitions"].items()
        if name != "condition"
    ]
    said = (
        "What a study file may set in `[trial]`, vary in `[grid]` and `[[points]]`, and search\n"
        "in `[search.space]`. The seed is no knob: seeds stand in `[study]`. A knob without a\n"
        "default follows others, as its description says, or is off when left out."
    )
    head = ["| knob | values | default | what it is |", "|---|---|---|---|"]
    return "\n".join([MADE_BY, "# Every knob", "", said, "", *head, *rows, ""])


def commands() -> str:
    """Return the page of every command: what `--help` says."""
    program: Any = typer.main.get_command(app)
    said = (
        "`nnclr-study --help` lists them, and `nnclr-study COMMAND --help` says what stands\n"
        "here. `nnclr-study --version` prints the version; `nnclr-study --install-completion`\n"
        "teaches your shell to complete."
    )
    lines = [MADE_BY, "# Every command", "", said]
    for name, command in program.commands.items():
        said, _, example = inspect.cleandoc(command.help).partition("Example: ")
        lines += ["", f"## {name}", "", f"`{_usage(name, command)}`", "", said.strip()]
        lines += ["", "```console", example.strip(), "```"]
        if command.params:
            lines += ["", "| | | default |", "|---|---|---|", *map(_parameter, command.params)]
    return "\n".join([*lines, "", EXIT_CODES, ""])


def _kind(name: str, rule: dict[str, Any]) -> str:
    if name in OWN:
        folder = ["folder:NAME"] if name == "dataset" else []
        return ", ".join(f"`{value}`" for value in [*OWN[name], *folder, "plugin:NAME"])
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if rule["type"] != "integer" and rule["type"] != "number":
        return {"boolean": "`true`, `false`", "string": "text"}[rule["type"]]
    kind = "whole number" if rule["type"] == "integer" else "number"
    return " ".join([kind, " and ".join(_limits(rule))]).strip()


def _limits(rule: dict[str, Any]) -> Iterator[str]:
    for key, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<")):
        if key in rule:
            yield f"{sign} {_shown(rule[key])}"
    if "maximum" in rule:
        yield f"<= {_shown(rule['maximum'])}"


def _default(name: str) -> str:
    field = TrialConfig.model_fields[name]
    return "" if field.default_factory or field.default is None else f"`{_shown(field.default)}`"


def _shown(value: Any) -> str:
    """Return a value as a study file has it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"{value:_}" if isinstance(value, int) else f"{value:g}"


def _usage(name: str, command: Any) -> str:
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    words = [_word(p) if p.required else f"[{_word(p)}]" for p in arguments]
    options = len(words) < len(command.params)
    return " ".join(["nnclr-study", name, *words, *["[OPTIONS]"] * options])


def _word(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _parameter(parameter: Any) -> str:
    option = parameter.opts[0].startswith("-")
    name = ", ".join(parameter.opts) if option else _word(parameter)
    default = parameter.default
    shown = f"`{default}`" if default is not None and default is not False else ""
    return f"| `{name}` | {parameter.help} | {shown} |"


MADE = {
    DOCS / "knobs.md": knobs,
    DOCS / "commands.md": commands,
    Path(nnclr_study.__file__).parent / FILE: schema_text,
}

if __name__ == "__main__":
    for path, made in MADE.items():
        path.write_text(made(), encoding="utf-8")
