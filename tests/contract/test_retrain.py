"""What a retraining is measured under."""

import pytest

from sparring.contract.defenses import FGSMTraining, PGDTraining, Plain
from sparring.contract.retrain import Retrain
from sparring.contract.threat import Threat


@pytest.mark.parametrize(
    ("defenses", "span", "expected"),
    [
        ((PGDTraining(eps="8/255"), FGSMTraining(eps="8/255")), 1.0, (Threat(norm="linf", eps="8/255"),)),
        ((PGDTraining(norm="l2", eps=0.5), PGDTraining(eps=0.1)), 1.0, (Threat(norm="linf", eps=0.1), Threat(norm="l2", eps=0.5))),
        ((PGDTraining(),), 2.0, (Threat(norm="linf", eps=16 / 255),)),
        ((Plain(),), 1.0, (Threat(norm="linf", eps=8 / 255),)),
    ],
    ids=["as it was written", "sorted", "of the range of the data", "nobody said"],
)
def test_the_radii_are_those_of_the_defenses(defenses, span, expected):
    job = Retrain(model="0" * 64, data="1" * 64, defenses=defenses)
    assert [each.model_dump() for each in job.measured(span)] == [each.model_dump() for each in expected]
