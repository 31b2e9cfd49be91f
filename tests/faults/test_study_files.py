"""Study files as nobody should write them: exit 2 or 0, every time, and soon."""

import json
import re
import tomllib
from pathlib import Path
from time import process_time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nnclr_study.cli import main

FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.toml"))
TABLES = [tomllib.loads(file.read_text()) for file in FILES]
TEXTS = [file.read_bytes() for file in FILES]
OFTEN = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
HEAD = '[study]\nname = "x"\nseeds = [1]\n[trial]\ndataset = "digits"\n'
SMALL = HEAD + "batch_size = 8\nlabelled_batch_size = 4\n"


def planned(path, capsys):
    """Return the exit code of `plan` and what it said, after checking what always holds."""
    code = main(["plan", str(path), "--json"])
    told, complaint = capsys.readouterr()
    assert code in (0, 2), complaint
    assert "Traceback" not in told + complaint
    if code == 2:
        assert complaint.startswith(f"error: {path} ")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", complaint), "no control characters"
    else:
        assert json.loads(told)["study"]
    return code, complaint


def toml(value):
    """Return a value as TOML; what TOML cannot say is said as near to it as JSON can."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}.get(
            t := json.dumps(value), t
        )
    return json.dumps(value)


def written(tables):
    return "".join(f"{json.dumps(name)} = {toml(table)}\n" for name, table in tables.items())


scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.sampled_from([0, -1, 10**9, 2**63, 2**64, 10**4000, 1e308, 5e-324, -0.0]),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["../../x", "digits", "folder:../x", "\x1b[31m", "asha", "nan", "0"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text("abchilow_ ./é\n\x1b", max_size=9), inner, max_size=4),
    ),
    max_leaves=8,
)


@st.composite
def mutated(draw):
    """Return the tables of a study file with a few places changed, taken out or added."""
    tables = json.loads(json.dumps(draw(st.sampled_from(TABLES))))
    for _ in range(draw(st.integers(1, 3))):
        place = tables
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None or not isinstance(place[key], dict | list) or draw(st.booleans()):
                break
            place = place[key]
        change = draw(st.sampled_from(["set", "drop", "add"]))
        if change == "drop" and key is not None:
            del place[key]
        elif change == "set" and key is not None:
            place[key] = draw(values)
        elif isinstance(place, dict):
            known = st.sampled_from(["queue_size", "width", "seed", "when", "low", "choices"])
            place[draw(st.one_of(known, st.text(max_size=12)))] = draw(values)
        else:
            place.append(draw(values))
    return tables


def test_the_files_survive_their_way_through_json(tmp_path, capsys):
    for place, tables in enumerate(TABLES):
        path = tmp_path / "study.toml"
        path.write_text(written(tables))
        assert planned(path, capsys)[0] == 0, FILES[place].name


@OFTEN
@given(mutated())
def test_a_mutated_file_is_planned_or_refused(tmp_path, capsys, tables):
    path = tmp_path / "study.toml"
    try:
        text = written(tables)
    except (ValueError, UnicodeEncodeError):
        return
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    planned(path, capsys)


@OFTEN
@given(st.data())
def test_damaged_bytes_are_planned_or_refused(tmp_path, capsys, data):
    text = data.draw(st.sampled_from(TEXTS))
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 30)))
    path = tmp_path / "study.toml"
    path.write_bytes(text[:start] + data.draw(st.binary(max_size=30)) + text[stop:])
    planned(path, capsys)


@OFTEN
@given(st.binary(max_size=300))
@example(b"\x00")
@example(b"\xff\xfe[\x00s\x00")
@example(b"\xef\xbb\xbf[study]")
def test_any_bytes_are_refused(tmp_path, capsys, content):
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    assert planned(path, capsys)[0] == 2


@OFTEN
@given(st.dictionaries(st.sampled_from(["a", "study", "grid", "search"]), values))
def test_any_tables_are_refused(tmp_path, capsys, tables):
    path = tmp_path / "study.toml"
    path.write_text(written(tables), encoding="utf-8", errors="replace")
    assert planned(path, capsys)[0] == 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels|File name"),
        (lambda path: path.symlink_to("/dev/zero"), "more than 1,000,000 bytes"),
        (lambda path: path.write_bytes(b"\xff"), r"not UTF-8 text \(byte 0, in line 1\); save it"),
        (lambda path: path.write_bytes(b'[study]\r\nname = "\xe9"'), r"byte 17, in line 2\)"),
        (lambda path: path.write_text("[study]", "utf-16"), "is UTF-16 text; save it as UTF-8"),
        (lambda path: path.write_bytes(b"\xfe\xff\0["), "is UTF-16 text"),
        (lambda path: path.write_text(HEAD + "queue_size = " + "9" * 5_000), "4300 digits"),
        (
            lambda path: path.write_text(HEAD + "queue_size = 0x" + "f" * 5_000),
            "queue_size = what",
        ),
        (lambda path: path.write_text(HEAD + '"a\\u001b[31m" = 1'), r"trial\.a\\x1b\[31m' = 1"),
    ],
    ids=range(11),
)
def test_what_is_no_study_file_is_named(tmp_path, capsys, make, says):
    path = tmp_path / "study.toml"
    make(path)
    code, complaint = planned(path, capsys)
    assert code == 2
    assert re.search(says, complaint)


def test_a_path_with_a_null_byte_is_refused(capsys):
    assert main(["plan", "a\0b"]) == 2
    assert "null byte" in capsys.readouterr().err


SLOW = {
    "10 MB": SMALL + "#" * 10_000_000,
    "deep": SMALL + "x = " + "[" * 400_000,
    "dotted": SMALL + "a." * 400_000 + "a = 1",
    "deep header": "[" + "a." * 10_000 + "a]\n" + "b = 1\n" * 50_000,
    "10^9 trials": SMALL + f"[grid]\nqueue_size = {[*range(12, 1012)]}\n"
    f"temperature = {[n / 10 for n in range(1, 1001)]}\nlearning_rate = "
    f"{[n / 1000 for n in range(1, 1001)]}\n",
    "keys": SMALL + "\n".join(f"key_number_{n} = 1" for n in range(35_000)),
    "a long key": SMALL + "k" * 900_000 + " = 1",
    "tables": SMALL + "[[references]]\n" * 60_000,
    "points": SMALL + "[[points]]\ntemperature = 0.5\n" * 30_000,
}


@pytest.mark.parametrize("name", SLOW)
def test_a_monstrous_file_is_refused_soon(tmp_path, capsys, name):
    path = tmp_path / "study.toml"
    path.write_text(SLOW[name])
    started = process_time()
    assert planned(path, capsys)[0] == 2
    assert process_time() - started < 10, "seconds of this process, whatever else the machine does"


def test_a_search_of_many_knobs_is_planned_soon(tmp_path, capsys):
    ranges = ["learning_rate", "temperature", "weight_decay", "gradient_clip", "jitter_hue"]
    ranges += ["flip_prob", "jitter_prob", "grey_prob", "blur_prob", "solarise_prob"]
    ranges += ["jitter_contrast", "jitter_brightness", "jitter_saturation", "brightness_shift"]
    ranges += ["view2_blur_prob", "view2_solarise_prob", "solarise_threshold", "lars_trust"]
    axes = "".join(f"{knob} = {{ low = 0.1, high = 0.4 }}\n" for knob in ranges)
    axes += (
        f"queue_size = {{ choices = {[*range(100, 200)]} }}\nwidth = {{ low = 8, high = 64 }}\n"
    )
    path = tmp_path / "study.toml"
    path.write_text(f"{SMALL}[budget]\ntrials = 5\n[search]\n[search.space]\n{axes}")
    started = process_time()
    assert main(["plan", str(path), "--json"]) == 0
    assert process_time() - started < 10
    queue_bytes = json.loads(capsys.readouterr().out)["forecast"]["queue_bytes"]
    assert queue_bytes == 4 * 199 * 64, "the largest corner is among those that were looked at"


def test_every_one_of_many_problems_is_named(tmp_path, capsys):
    path = tmp_path / "study.toml"
    knobs = {"queue_size": -1, "widht": 3, "epochs": "2", "temperature": 0, "seed": 3}
    path.write_text(
        '[study]\nname = "a b"\nseeds = [1, 1]\n[trial]\n'
        + "".join(f"{knob} = {json.dumps(value)}\n" for knob, value in knobs.items())
        + "[grid]\nqueue_size = []\nlearning_rate = [1, -1]\n[more]\nx = 1\n"
    )
    code, complaint = planned(path, capsys)
    assert code == 2
    for key in ("study.name", "study.seeds", "more", "grid.learning_rate[1]", "grid.queue_size"):
        assert f"\n  {key} = " in complaint
    for knob in knobs:
        assert f"\n  trial.{knob} = " in complaint


def test_when_there_are_too_many_problems_to_print_that_is_said(tmp_path, capsys):
    path = tmp_path / "study.toml"
    path.write_text(SLOW["keys"])
    complaint = planned(path, capsys)[1]
    assert "trial.key_number_499 = 1" in complaint
    assert "and more than these 500; mend them first" in complaint


@pytest.mark.parametrize(
    "name", ["..", "../x", "/etc", "a/b", "a\\\\b", "-x", ".x", "a\\nb", "x" * 65, "a\\u0000", ""]
)
def test_a_study_s_name_is_no_way_to_another_folder(tmp_path, capsys, name):
    path = tmp_path / "study.toml"
    path.write_text(SMALL.replace('"x"', f'"{name}"'))
    code, complaint = planned(path, capsys)
    assert code == 2
    assert "study.name = " in complaint


@pytest.mark.parametrize(
    "name",
    ["folder:../../etc", "folder:/etc", "folder:..", "folder:a/b", "folder:a\\nb", "folder:"],
)
def test_nor_is_a_data_set_s(tmp_path, capsys, name):
    path = tmp_path / "study.toml"
    path.write_text(HEAD.replace("digits", name))
    assert planned(path, capsys)[0] == 2
    path.write_text(SMALL.replace('dataset = "digits"', "") + f'[grid]\ndataset = ["{name}"]\n')
    assert planned(path, capsys)[0] == 2
