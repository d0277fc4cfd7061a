"""An app with workflows whose steps note as whom they act: `TEST_APPS='["tests.isolated.flows_roles.Flows"]'`."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import connection

from tenant_q.workflows import Context, Workflow
from tests.tasks import note, notes


class Flows(AppConfig):
    name = "tests.isolated.flows_roles"


flow = Workflow("flow", input={"key": str})


def _who() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user::text, (SELECT count(*) FROM shop_order)")
        return list(cursor.fetchone())


@flow.step(transactional=True)
def first(ctx: Context) -> dict[str, Any]:
    ctx.set("who", _who())
    return {"items": [1, 2, 3]}


@flow.step(after=first, max_attempts=1)
def second(ctx: Context) -> list[Any]:
    if not notes(f"{ctx.input['key']}-go"):
        raise ValueError("not yet")
    return _who()


@flow.step(each=(first, "items"), after=[first, second], transactional=True)
def third(ctx: Context) -> list[Any]:
    return _who()


@flow.step(after=third)
def fourth(ctx: Context) -> list[Any]:
    return [*ctx.get("who"), *ctx.results["second"], ctx.results["third"]]


@flow.on_end
def end(ctx: Context) -> None:
    note(ctx.input["key"], state=str(ctx.state), who=_who())
