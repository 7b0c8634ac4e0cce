"""Texts to tokens, without TensorFlow, exactly as Keras' layers do it."""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Iterable

STANDARDS = ("lower_and_strip_punctuation", "lower", "strip_punctuation", None)
SPLITS = ("word", "character")
#: What `keras.layers.TextVectorization` strips.
PUNCTUATION = r'[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']'
_PUNCTUATION = re.compile(PUNCTUATION)
_SPACES = re.compile(r"[ \t\n\v\f\r]+")
#: TensorFlow lowers ASCII letters alone.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_BITS = 0xFFFFFFFFFFFFFFFF


def standardized(text: str, standard: str | None) -> str:
    """`standardize` of `keras.layers.TextVectorization`."""
    if standard in ("lower", "lower_and_strip_punctuation"):
        text = text.translate(_LOWER)
    if standard in ("strip_punctuation", "lower_and_strip_punctuation"):
        text = _PUNCTUATION.sub("", text)
    return text


def tokens_of(text: str, standard: str | None, split: str) -> list[str]:
    """The tokens of a text: words between blanks, or characters."""
    text = standardized(text, standard)
    if split == "character":
        return list(text)
    return [word for word in _SPACES.split(text) if word]


def vocabulary_of(
    tokens: Iterable[str], most: int | None, least_count: int
) -> tuple[str, ...]:
    """Tokens by how often they come, equals from last to first in the alphabet."""
    counts = Counter(tokens)
    kept = [token for token, count in counts.items() if count >= least_count]
    kept.sort(key=lambda token: (counts[token], token.encode()), reverse=True)
    return tuple(kept[:most])


@functools.lru_cache(maxsize=2**18)
def bucket_of(token: str, buckets: int, salt: int) -> int:
    """`tf.strings.to_hash_bucket_strong(token, buckets, key=[salt, salt])`.

    Reference: Aumasson & Bernstein, SipHash, INDOCRYPT 2012.
    """
    return siphash(token.encode(), salt, salt) % buckets


def siphash(data: bytes, key0: int, key1: int) -> int:
    """SipHash-2-4."""
    v = [
        key0 ^ 0x736F6D6570736575,
        key1 ^ 0x646F72616E646F6D,
        key0 ^ 0x6C7967656E657261,
        key1 ^ 0x7465646279746573,
    ]
    whole = len(data) - len(data) % 8
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v[3] ^= word
        _rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    _rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        v[0] = (v[0] + v[1]) & _BITS
        v[1] = _rotated(v[1], 13) ^ v[0]
        v[0] = _rotated(v[0], 32)
        v[2] = (v[2] + v[3]) & _BITS
        v[3] = _rotated(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & _BITS
        v[3] = _rotated(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & _BITS
        v[1] = _rotated(v[1], 17) ^ v[2]
        v[2] = _rotated(v[2], 32)


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _BITS
