"""`pytest` runs this test; `pytest --sparring-gate gate.yaml` the rules of the gate as well."""

from pathlib import Path

from sparring.contract.specs import ModelSpec

MODELS = Path(__file__).parents[1] / "models"


def test_a_single_step_breaks_few_rows(robustness):
    report = robustness(
        MODELS / "robust.safetensors",
        MODELS / "digits.npz",
        threats=["linf:0.05"],
        attacks=["fgsm"],
        rows=100,
        model_spec=ModelSpec(arch="mlp"),
    )
    low, _ = report.threats[0].worst.interval
    assert low > 0.7
