"""The words for parameters that weight decay and penalties leave alone."""

from __future__ import annotations

from dltrain.config import reject, suggest

EXEMPTIONS = ("bias", "norm", "activation")
"""The words that `no_decay` knows besides patterns."""


def known_words(key: str, words: list[str]) -> list[str]:
    """`words` of `no_decay` and the like, for a section's validator: a misspelt word of EXEMPTIONS is an error."""
    for word in words:
        if word not in EXEMPTIONS and word.isalpha() and (near := suggest(word, EXEMPTIONS)):
            raise reject(key, f"`{word}` is no group of parameters; did you mean `{near}`?")
    return words
