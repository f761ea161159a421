"""What a calibration answers: `recognizer.calibration.written.as_json` writes it."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from recognizer.api.answers import Answered, PersonRef, Revised


class CalibratedPeople(TypedDict):
    """How many people there are, and how many of them it could learn from."""

    enrolled: int
    used: int
    with_two_photos: int


class CalibratedPhotos(TypedDict):
    """How many photos there are, and how many of them it could learn from."""

    enrolled: int
    used: int


class StatedRate(TypedDict):
    """A share with its 95 % interval."""

    rate: Annotated[float | None, Field(description="Null: too few trials to state one.")]
    low: float
    high: float
    events: int
    trials: int
    people: int


class AtScore(TypedDict):
    """What happens where everything from this score on is a match."""

    score: float
    tpir: Annotated[StatedRate | None, Field(description="Enrolled people who are named.")]
    fpir: Annotated[StatedRate | None, Field(description="Strangers who are taken for somebody.")]


class RuleInForce(AtScore):
    """The rule that decides now."""

    target_fpir: float


class Figure(TypedDict):
    """What to expect at one false-positive rate."""

    fpir: float
    measured: AtScore | None
    too_few: str | None
    rule: AtScore


class Recommendation(TypedDict):
    """Which target to set, and why."""

    target_fpir: float
    reason: str


class Spread(TypedDict):
    """How scores are spread: by percent, the score below which so many are."""

    count: int
    percentiles: dict[str, float]


class Scores(TypedDict):
    """The scores of the trials."""

    genuine: Spread | None
    impostor: Spread | None
    strangers: Spread | None


class Outlier(TypedDict):
    """Photos unlike their person's others."""

    person: PersonRef
    face_ids: list[str]
    likeness: float
    more_like: PersonRef | None
    suggestion: str


class Outliers(TypedDict):
    """How many there are, and the first of them."""

    count: int
    listed: list[Outlier]


class Pair(TypedDict):
    """Two people who are alike."""

    people: list[PersonRef]
    likeness: float
    score: float


class Pairs(TypedDict):
    """How many there are, and the first of them."""

    count: int
    listed: list[Pair]


class Calibration(Answered, Revised):
    """What to expect from the enrolled people of a collection, and what to mend."""

    collection: str
    people: CalibratedPeople
    photos: CalibratedPhotos
    rule: RuleInForce | None
    figures: list[Figure]
    recommendation: Recommendation
    scores: Scores
    outliers: Outliers
    probable_duplicates: Pairs
    confusable_pairs: Pairs
    notes: list[str]
    picture: NotRequired[Annotated[str, Field(description="PNG in base64, when asked for.")]]
