"""The Merkle tree of RFC 6962: one digest of many entries, each of which can be shown alone.

Here: the root. Never here: what an entry is. Next: `manifest.py`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LEAF_PREFIX: Final = b"\0"
NODE_PREFIX: Final = b"\1"


def merkle_root(entries: Iterable[bytes]) -> bytes:
    """Returns MTH of RFC 6962, section 2.1, with SHA-256: 32 bytes.

    Args:
        entries: The leaves' content, in their order.
    """
    # Complete subtrees by falling size: adding a leaf joins equal sizes, as carrying does in a sum.
    subtrees: list[tuple[int, bytes]] = []
    for entry in entries:
        size, digest = 1, hashlib.sha256(LEAF_PREFIX + entry).digest()
        while subtrees and subtrees[-1][0] == size:
            left = subtrees.pop()[1]
            size, digest = 2 * size, _node(left, digest)
        subtrees.append((size, digest))
    if not subtrees:
        return hashlib.sha256().digest()
    _, root = subtrees.pop()
    while subtrees:
        root = _node(subtrees.pop()[1], root)
    return root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(NODE_PREFIX + left + right).digest()
