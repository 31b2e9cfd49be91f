"""MkDocs hook: include files outside docs/ that a page links to.

A link such as `../deploy/slurm.sh` works on GitHub as it stands. The site gets a copy of each
linked file below `repository/`: Markdown files as pages, whose own links are followed too, and
other files unchanged. A link to a folder keeps its text only.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
COPIES = "repository/"
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the linked files to the site."""
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for _, path, _ in LINK.findall(page.content_string):
            target = _target(page.src_uri, path)
            uri = _site_uri(target)
            if (ROOT / target).is_file() and files.get_file_from_path(uri) is None:
                copy = File.generated(config, uri, abs_src_path=str(ROOT / target))
                files.append(copy)
                waiting += [copy] if copy.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point the page's links at the copies."""

    def rewritten(link: re.Match[str]) -> str:
        text, path, anchor = link.groups(default="")
        target = _target(page.file.src_uri, path)
        if (ROOT / target).is_dir():
            return text
        uri = _site_uri(target)
        return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri))}{anchor})"

    return LINK.sub(rewritten, markdown)


def _target(page_uri: str, link: str) -> str:
    """Return the path in the repository that a page's link leads to."""
    home = page_uri.removeprefix(COPIES) if page_uri.startswith(COPIES) else f"docs/{page_uri}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), link))


def _site_uri(path: str) -> str:
    """Return the path in the site of a file of the repository."""
    return path.removeprefix("docs/") if path.startswith("docs/") else COPIES + path
