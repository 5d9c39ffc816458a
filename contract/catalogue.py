"""What can be asked for, over HTTP and by the commands: attacks and defenses with the schema of their settings, and suites."""

from sparring.contract.attacks import ATTACKS, CASCADES, PURPOSES, SUITES, describe
from sparring.contract.defenses import DEFENSES
from sparring.contract.defenses import describe as defenses
from sparring.contract.resources import AttackInfo, DefenseInfo, SuiteInfo

ATTACK_INFOS: dict[str, AttackInfo] = {
    describe.kind(attack): AttackInfo(
        kind=describe.kind(attack),
        title=attack.title,
        summary=describe.summary(attack),
        description=(*describe.description(attack), *describe.notes(attack)),
        paper=attack.paper,
        access=attack.access,
        knowledge=attack.knowledge,
        norms=attack.norms,
        bounded=attack.bounded,
        targetable=attack.targetable,
        settings=attack.model_json_schema(),
    )
    for attack in ATTACKS
}
"""By kind, in the order of the contract."""

DEFENSE_INFOS: dict[str, DefenseInfo] = {
    defenses.kind(defense): DefenseInfo(
        kind=defenses.kind(defense),
        title=defense.title,
        summary=defenses.description(defense)[0],
        description=(*defenses.description(defense), *defenses.notes(defense)),
        paper=defense.paper,
        family=defense.family,
        gradients=defense().gradients,
        labelled=defense.labelled,
        unlabelled=defense.unlabelled,
        settings=defense.model_json_schema(),
    )
    for defense in DEFENSES
}
"""By kind, in the order of the contract."""

SUITE_INFOS: dict[str, SuiteInfo] = {
    name: SuiteInfo(
        name=name,
        version=version,
        purpose=PURPOSES[name],
        cascade=name in CASCADES,
        attacks=tuple(attack.model_dump(mode="json") for attack in attacks),
    )
    for name, (version, attacks) in SUITES.items()
}
"""By name; the attacks in the order in which they are run."""
