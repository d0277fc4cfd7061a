"""What the tenants of a hostile site have: rows, views, functions and large objects that only they may touch."""

from __future__ import annotations

from dataclasses import dataclass

from tests.isolated.server import ADMIN, OWNER
from tests.isolated.site import Site
from tests.isolated.witness import MARK
from tests.schemas import TENANTS

ATTACKER, VICTIM, OTHER = TENANTS
# Owned by the site's owner, as its migrations would make them.
_OF_A_TENANT = """
INSERT INTO {s}.shop_order (number, buyer, amount, status, created, message)
    VALUES ('{mark}{s}', 'b', 1, 'new', now(), '');
INSERT INTO {s}.auth_user
    (password, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined)
    VALUES ('{mark}{s}', true, 'admin', '', '', '', true, true, now());
INSERT INTO {s}.django_q_schedule (func, schedule_type, repeats, next_run, args, intended_date_kwarg)
    VALUES ('tests.tasks.nothing', 'Y', 1, '2999-01-01 00:00+00', '(''{mark}{s}'',)', '');
CREATE VIEW {s}.orders AS SELECT * FROM {s}.shop_order;
CREATE MATERIALIZED VIEW {s}.totals AS SELECT number, amount FROM {s}.shop_order;
CREATE TYPE {s}.mood AS ENUM ('{mark}{s}');
CREATE SEQUENCE {s}.counter;
SELECT nextval('{s}.counter');
CREATE FUNCTION {s}.give() RETURNS text LANGUAGE sql AS $$SELECT number FROM {s}.shop_order LIMIT 1$$;
CREATE FUNCTION {s}.open_up() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
    AS $$SELECT number FROM {s}.shop_order LIMIT 1$$;
CREATE PROCEDURE {s}.wipe() LANGUAGE sql AS $$DELETE FROM {s}.shop_order$$;
"""
_SHARED = """
CREATE TABLE public.rates (name text PRIMARY KEY, value int);
INSERT INTO public.rates VALUES ('EUR', 1), ('USD', 2);
CREATE TABLE public.vault (name text);
INSERT INTO public.vault VALUES ('{mark}public');
CREATE TABLE public.prize (winner text);
"""
# What a role of SQL may not start; with them in place, a refusal is the server's and not a missing function's.
_EXTENSIONS = "CREATE EXTENSION dblink; CREATE EXTENSION citext; CREATE EXTENSION lo"


@dataclass(frozen=True)
class Names:
    """What the statements of the attacks name."""

    own: str
    own_role: str
    victim: str
    victim_role: str
    database: str
    large_object: int
    owner_pid: int
    host: str
    owner: str = OWNER
    admin: str = ADMIN


def arm(site: Site) -> int:
    """Fill a site; return the number of the large object that the owner keeps in it."""
    site.sql(_EXTENSIONS)
    with site.session(OWNER) as raw:
        for schema in TENANTS:
            raw.execute(_OF_A_TENANT.format(s=schema, mark=MARK))
        raw.execute(_SHARED.format(mark=MARK))
        (number,) = raw.execute("SELECT lo_from_bytea(0, %s)", [f"{MARK}large".encode()]).fetchone()
    return int(number)
