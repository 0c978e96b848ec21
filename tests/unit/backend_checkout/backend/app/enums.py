"""The values that the application knows."""

from enum import StrEnum


class Priority(StrEnum):
    """How urgent an item is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


class Arbeitskreis(StrEnum):
    """The working groups."""

    AK1 = "AK1"
    AK2 = "AK2"
    AK3 = "AK3"
    AK4 = "AK4"
    AK5 = "AK5"
    QAG = "QAG"
