"""The JSON Schema of a study file, for editors: what a table may hold, key by key.

It is weaker than `load_study`, which also knows what does not fit together. Draft 7, which TOML
editors read.
"""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from nnclr_study.study.config import OWN, TrialConfig
from nnclr_study.study.plugins import NAME
from nnclr_study.study.search import OBJECTIVES, SearchTable
from nnclr_study.study.tables import BudgetTable, ConfirmationTable, ReferenceTable, StudyTable

FILE = "study_schema.json"
"""Where the package keeps it, from its root."""

_CONDITION = {"$ref": "#/definitions/condition"}


def schema_text() -> str:
    """Return the schema as its file holds it."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


def study_schema() -> dict[str, Any]:
    """Return the schema, ready for JSON."""
    knobs = _knobs()
    condition = _table({knob: _ref(knob) for knob in knobs})
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "nnclr-study: a study file",
        "description": "A question: which knobs are fixed, which vary, and with which seeds.",
        **_table(
            {
                "study": _study(),
                "budget": _of_model(BudgetTable),
                "trial": _said("The knobs of every trial, unless varied.", _CONDITION),
                "grid": _table({knob: _some_of(knob) for knob in knobs}),
                "search": _search(knobs),
                "points": _list_of(_CONDITION),
                "references": _list_of(_of_model(ReferenceTable)),
                "confirmation": _of_model(ConfirmationTable),
            },
            ["study"],
        ),
        "allOf": [
            {"not": {"required": ["grid", "search"]}},
            {"not": {"required": ["grid", "confirmation"]}},
            {"not": {"required": ["search", "confirmation"]}},
        ],
        "dependencies": {"search": ["budget"], "confirmation": ["points"]},
        "definitions": {"condition": condition} | knobs,
    }


def _knobs() -> dict[str, dict[str, Any]]:
    """Return what each knob may be; a seed is none, as it belongs in `[study]`."""
    knobs = _keys(TrialConfig)
    del knobs["seed"]
    for knob, own in OWN.items():
        kinds = "(folder|plugin)" if knob == "dataset" else "plugin"
        # Any plug-in's name: the schema is the same wherever it is written.
        knobs[knob] |= {"anyOf": [{"enum": list(own)}, {"pattern": f"^{kinds}:{NAME}$"}]}
    return knobs


def _keys(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the rule of each of a model's keys."""
    keys = {}
    for name, told in model.model_json_schema()["properties"].items():
        # TOML has no null: what may be none is left out.
        rule, *_ = told.pop("anyOf", [{}])
        left_out = ("title", "default") if told.get("default") is None else ("title",)
        keys[name] = {key: value for key, value in told.items() if key not in left_out} | rule
    return keys


def _table(keys: dict[str, Any], needed: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(needed),
        "properties": keys,
    }


def _of_model(model: type[BaseModel]) -> dict[str, Any]:
    return _table(
        _keys(model), [name for name, field in model.model_fields.items() if field.is_required()]
    )


def _ref(knob: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{knob}"}


def _said(description: str, rule: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "allOf": [rule]}  # draft 7 sees nothing beside a $ref


def _list_of(rule: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": rule}


def _some_of(knob: str) -> dict[str, Any]:
    return _list_of(_ref(knob)) | {"minItems": 1, "uniqueItems": True}


def _study() -> dict[str, Any]:
    table = _of_model(StudyTable)
    keys = table["properties"]
    keys["baseline"] = _said(keys["baseline"]["description"], _CONDITION)
    keys["seeds"]["uniqueItems"] = True
    return table


def _search(knobs: dict[str, Any]) -> dict[str, Any]:
    table = _of_model(SearchTable)
    keys = table["properties"]
    keys["objectives"] |= {"items": {"enum": list(OBJECTIVES)}, "uniqueItems": True}
    space = _table({knob: _axis(knob, rule) for knob, rule in knobs.items()})
    keys["space"] = space | {"minProperties": 1}
    return table | {"required": ["space"]}


def _axis(knob: str, rule: dict[str, Any]) -> dict[str, Any]:
    """Return in what a knob may be searched: a range only where it is a number."""
    when = _said("searched only where other knobs are so", _CONDITION)
    axes = [_table({"choices": _some_of(knob), "when": when}, ["choices"])]
    if rule["type"] in ("integer", "number") and "enum" not in rule:
        keys = {
            "low": _ref(knob),
            "high": _ref(knob),
            "log": {"description": "even in the logarithm", "type": "boolean"},
            "step": {"type": rule["type"], "exclusiveMinimum": 0},
            "when": when,
        }
        axes.append(_table(keys, ["low", "high"]))
    return {"description": rule["description"], "anyOf": axes}
