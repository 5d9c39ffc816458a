"""What the API's description shows as examples."""

from fastapi.openapi.models import Example

_MODEL, _DATA = "mdl_0123456789abcdefghij", "dat_0123456789abcdefghij"

JOBS: dict[str, Example] = {
    "suite": {
        "summary": "Evaluate with the suite `quick`",
        "value": {
            "kind": "evaluate",
            "model": _MODEL,
            "data": _DATA,
            "threats": [{"norm": "linf", "eps": "8/255"}, {"norm": "l2", "eps": 0.5}],
            "suite": "quick",
        },
    },
    "attacks": {
        "summary": "Evaluate with attacks of your choice on the first 1000 rows",
        "value": {
            "kind": "evaluate",
            "model": _MODEL,
            "data": _DATA,
            "threats": [{"norm": "linf", "eps": 0.1}],
            "attacks": [{"kind": "fgsm"}, {"kind": "pgd", "steps": 40, "restarts": 2}],
            "rows": 1000,
            "seed": 7,
        },
    },
    "craft": {
        "summary": "Craft adversarial examples",
        "value": {
            "kind": "craft",
            "model": _MODEL,
            "data": _DATA,
            "threat": {"norm": "linf", "eps": "8/255"},
            "attack": {"kind": "pgd", "steps": 20},
        },
    },
    "certify": {
        "summary": "Certify rows by linear bounds, and attack them all the same",
        "value": {"kind": "certify", "model": _MODEL, "data": _DATA, "threats": [{"norm": "linf", "eps": "2/255"}], "method": "crown"},
    },
    "retrain": {
        "summary": "Retrain with two defenses, side by side",
        "value": {
            "kind": "retrain",
            "model": _MODEL,
            "data": _DATA,
            "defenses": [{"kind": "pgd", "eps": "8/255"}, {"kind": "vat"}],
            "training": {"epochs": 20},
        },
    },
}
