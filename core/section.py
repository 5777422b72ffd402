"""What all blocks of settings share: frozen, strict, silent about secrets; their value types."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from core.errors import ConfigError
from core.timeframe import tf_ms

HIDDEN = "***"


class Section(BaseModel):
    """A frozen block of settings that refuses keys it does not know.

    The text of its errors never holds the values found: one of them may be a token.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


def _timeframe(value: Any) -> str:
    try:
        tf_ms(str(value))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return str(value)


def _iso_date(value: Any) -> Any:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("is no IANA time zone; write one like Europe/Berlin or UTC") from error
    return value


def hidden(value: Any) -> Any:
    """Return plain values with every text in them hidden; names, numbers and truth values stay."""
    if isinstance(value, dict):
        return {key: hidden(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hidden(item) for item in value]
    return HIDDEN if isinstance(value, str) and value else value


Word = Annotated[str, Field(min_length=1)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Timeframe = Annotated[str, Field(strict=True), BeforeValidator(_timeframe)]
Zone = Annotated[str, AfterValidator(_zone)]
IsoDate = Annotated[date, BeforeValidator(_iso_date)]
SecretText = Annotated[str, Field(repr=False), PlainSerializer(hidden, when_used="json")]
SecretKeys = Annotated[dict[str, Any], Field(repr=False), PlainSerializer(hidden, when_used="json")]
