"""The Merkle root against the vectors of Certificate Transparency and RFC 6962's own definition."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabildo_trainer.consensus.manifests.merkle import merkle_root

# The test leaves of the Certificate Transparency log, and the root after each of them.
LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_hash(entries: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, to the letter."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + tree_hash(entries[:k]) + tree_hash(entries[k:])).digest()


@pytest.mark.parametrize("count", range(1, len(LEAVES) + 1))
def test_the_logs_vectors_have_their_roots(count: int) -> None:
    leaves = [bytes.fromhex(leaf) for leaf in LEAVES[:count]]
    assert merkle_root(leaves).hex() == ROOTS[count - 1]


def test_no_entry_is_the_empty_hash() -> None:
    assert merkle_root([]) == hashlib.sha256(b"").digest()


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_the_root_is_the_rfcs_recursion(entries: list[bytes]) -> None:
    assert merkle_root(entries) == tree_hash(entries)
