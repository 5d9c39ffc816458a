"""What can be asked for, as it is told over HTTP and by the commands: every attack, with the schema of its settings, and every suite."""

from sparring.contract.attacks import ATTACKS, CASCADES, PURPOSES, SUITES, describe
from sparring.contract.resources import AttackInfo, SuiteInfo

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
