"""The attacker is the SQL of a task under "login". Nothing elsewhere is read, written or locked, and all goes on."""

from __future__ import annotations

import pytest

from tenant_q.tenancy import in_schema
from tests.isolated import attack_tasks, witness
from tests.isolated.arming import ATTACKER, TENANTS, arm
from tests.isolated.attacks import ATTACKS
from tests.isolated.scene import names_of, not_refused, read_elsewhere, statements
from tests.isolated.server import OWNER

pytestmark = pytest.mark.seam


@pytest.mark.parametrize("name", ATTACKS)
def test_it_reaches_nothing(scene, name):
    with scene.nothing_elsewhere():
        outcomes = scene.commit("attempt", statements(ATTACKS[name], scene.names))
    assert not_refused(ATTACKS[name], outcomes) == []
    assert read_elsewhere(outcomes) == []


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.crosses])
def test_where_the_schema_is_only_a_setting_it_is_seen_to_cross(isolated_site, name):
    site = isolated_site
    with site.session(OWNER) as owners:
        names = names_of(site, arm(site), owners)
        with site.here(admin_database=site.admin_url, role_key=site.role_key, shared_read=["rates"]):
            site.provision(*TENANTS)
        before = witness.look(site, ATTACKER, names.own_role)
        with in_schema(ATTACKER):
            outcomes = attack_tasks.attempt(statements(ATTACKS[name], names))
        with site.server.connect() as raw:
            raw.execute(f"ALTER ROLE {OWNER} PASSWORD '{site.server.passwords[OWNER]}'")
            raw.execute(f"ALTER ROLE {OWNER} RESET ALL")
        changed = witness.changes(before, witness.look(site, ATTACKER, names.own_role))
    assert read_elsewhere(outcomes) or changed
