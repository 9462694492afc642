"""Writing configuration files that running programs may be watching; nothing else.

kube-proxy, for one, ends itself when its file changes. So a file is touched only when its
text differs, and then replaced as a whole, never seen half written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_configuration(path: Path, *, text: str) -> None:
    """Have a file say a text, its folder made if missing."""
    try:
        if path.read_text() == text:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.rename(path)
