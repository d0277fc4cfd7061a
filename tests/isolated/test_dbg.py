import time
from tests import schemas
from tenant_q.provisioning import provision_tenant
def test_x(isolated_site):
    names=[f"c_{n}" for n in range(20)]
    t=time.time(); schemas.clone_tenants(names); print("clone", time.time()-t)
    for r in range(3):
        t=time.time(); c=time.process_time()
        for n in names[r*5:r*5+5]: provision_tenant(n, adopt=True, probe=False, actor="t")
        print("prov", time.time()-t, time.process_time()-c)
    assert 0
