"""What README.md says, held against docs/proof.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from proof.claim import Claim, Subject
from proof.page import rows_of
from proof.verdicts import FAILED, is_among, numbers


def one_line(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def claims_of(subjects: Sequence[Subject]) -> list[Claim]:
    """Return all claims in their order."""
    return [claim for subject in subjects for claim in subject.claims]


def at_odds(subjects: Sequence[Subject], readme: str, proof: str) -> Iterator[str]:
    """Yield a line for each passage that is missing, that failed, or whose figure is another one.

    A claim that was not run yet is not at odds.
    """
    said, rows = one_line(readme), rows_of(proof)
    for claim in claims_of(subjects):
        if one_line(claim.readme) not in said:
            yield f"README.md does not say: {claim.readme}"
        row = rows.get(claim.says)
        if claim.readme and row and row.verdict.startswith(FAILED):
            yield f"README.md says what failed: {claim.readme}"
        if claim.quotes and row and row.figure:
            measured = numbers(row.figure)
            if not all(is_among(number, measured) for number in numbers(claim.quotes)):
                yield f"README.md says {claim.quotes!r}, docs/proof.md {row.figure!r}"
