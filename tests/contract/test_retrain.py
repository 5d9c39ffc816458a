"""What a retraining is measured under, and what it needs."""

import pytest
from pydantic import ValidationError

from sparring.contract.defenses import EnsembleTraining, FGSMTraining, PGDTraining, Plain
from sparring.contract.refs import Need
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


def test_surrogates_are_uploads_that_the_job_needs_each_once():
    one, two, three = (f"mdl_{letter * 20}" for letter in "abc")
    ensembles = EnsembleTraining(models=(one, two)), PGDTraining(), EnsembleTraining(eps=0.1, models=f"{two}+{three}")
    job = Retrain(model="0" * 64, data="1" * 64, unlabelled=None, test="2" * 64, defenses=ensembles)
    assert job.needs() == {
        "test": Need("dataset", "2" * 64, "/test"),
        one: Need("model", one, "/defenses/0/models/0"),
        two: Need("model", two, "/defenses/0/models/1"),
        three: Need("model", three, "/defenses/2/models/1"),
    }


def test_an_ensemble_without_surrogates_is_told_where_to_name_them():
    with pytest.raises(ValidationError, match=r"defenses.1: ensemble has no surrogate: upload other models .* name them in its models"):
        Retrain(model="0" * 64, data="1" * 64, defenses=(PGDTraining(), EnsembleTraining()))
    with pytest.raises(ValidationError, match="at most 20"):
        EnsembleTraining(models=["0" * 64] * 21)
