"""What software this is: recorded with every run, printed on every page."""

import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nnclr_study
from nnclr_study.study.plugins import Named
from nnclr_study.study.plugins import versions as plugin_versions

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy")

_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s/@:?#]*:)(.*)@")
"""Of a URL: up to the last @ of the line, as a password may hold some itself."""
_PARAMETER = re.compile(
    r"(?i)((?:^|[?&;\s])[\w.-]*(?:key|secret|token|passw|pwd|credential|signature)[\w.-]*=)([^&\s]+)"
)
_SHORTEST_PART = 3
"""Characters of a part of a password that is masked alone."""


def masked(text: str, url: str = "") -> str:
    """Return a word or a line without the passwords and keys of the URLs in it.

    Those of `url` are masked in part as well: a driver that misread it names what it took for
    the host.
    """
    text = text.replace(url, masked(url)) if url else text
    text = _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))
    secrets = [found[1] for kind in (_PASSWORD, _PARAMETER) for found in kind.findall(url)]
    parts = {part for secret in secrets for part in [secret, *re.split(r"\W+", secret)]}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_PART:
            text = text.replace(part, "***")
    return text


def versions(plugins: Iterable[Named] = ()) -> dict[str, str]:
    """Return the versions that a trial's numbers may depend on, without importing them."""
    found = {"nnclr-study": nnclr_study.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | plugin_versions(plugins)


def machine() -> str:
    """Return this machine's system and processor: `Linux x86_64, AMD EPYC 9654`."""
    kind = f"{platform.system()} {platform.machine()}"
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return kind
    models = [line.split(":")[1].strip() for line in told.splitlines() if "model name" in line]
    return f"{kind}, {models[0]}" if models else kind


def commit() -> str | None:
    """Return the commit of the nnclr-study checkout, or None where it is no checkout."""
    root = Path(nnclr_study.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if head and changes else head


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
