"""The tenant's own page: buttons that put tasks on the queue, and what became of them.

Nothing here names the tenant. The middleware has chosen its schema by the host name, and QUtilities enqueues for the
schema that is current.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django_q.models import Schedule, Task

from shop.models import Order, Report
from shop.workflows import order as order_workflow
from tenant_q.utils import QUtilities
from tenant_q.workflows import Run

SHOWN = 12
FOLLOWED = 5


def follow(request: HttpRequest, task_id: str) -> None:
    """Show the task on this visitor's page from now on, with those they started last."""
    request.session["followed"] = [task_id, *request.session.get("followed", [])][:FOLLOWED]


def standing(task_id: str) -> dict[str, Any]:
    """What has become of a task of this tenant, as the page's script reads it."""
    state, progress = QUtilities.get_status(task_id), QUtilities.get_progress(task_id)
    waits = state in ("queued", "delayed")
    return {
        "id": task_id,
        "state": state,
        # None: it runs and has not told how far it is.
        "fraction": progress.fraction if progress else 0 if waits else 1 if state.is_finished else None,
        "text": progress.text if progress else "",
        "finished": state.is_finished,
    }


def report(request: HttpRequest) -> str:
    QUtilities.add_async_task("shop.tasks.revenue_report", "Revenue", task_name="revenue report")
    return "A report is on the queue."


def slow(request: HttpRequest) -> str:
    follow(request, QUtilities.add_async_task("shop.tasks.import_catalogue", seconds=10, task_name="catalogue import"))
    return "The import is on the queue; it takes 10 seconds."


def failing(request: HttpRequest) -> str:
    QUtilities.add_async_task("shop.tasks.charge_card", Order.objects.earliest("id").pk)
    return "The payment is on the queue; the bank will decline it."


def chain(request: HttpRequest) -> str:
    order = Order.objects.filter(status=Order.Status.NEW).first()
    if order is None:
        return "Every order is shipped already."
    links = [(f"shop.tasks.{step}", (order.pk,)) for step in ("pick", "pack", "ship")]
    QUtilities.create_async_tasks_chain(links)
    return f"A chain of three tasks ships order {order.number}."


def fulfil(request: HttpRequest) -> str:
    order = Order.objects.filter(status=Order.Status.NEW, lines__isnull=False).first()
    if order is None:
        return "Every order is shipped already."
    # The key: a second click on the button, before the order's status has changed, finds the same run.
    order_workflow.start({"order": order.pk}, key=f"order-{order.pk}", by=request.user.get_username())
    return f"A workflow reserves, charges, picks and ships order {order.number}."


def iterate(request: HttpRequest) -> str:
    orders = list(Order.objects.values_list("pk", flat=True))
    QUtilities.add_async_tasks_from_iter("shop.tasks.total_with_tax", orders)
    return f"One task for each of {len(orders)} orders is on the queue."


def schedule(request: HttpRequest) -> str:
    if Schedule.objects.filter(name="report each minute").exists():
        return "The schedule is there already; the admin can change it."
    QUtilities.create_schedule(
        "shop.tasks.revenue_report", "Each minute", name="report each minute", schedule_type=Schedule.MINUTES, minutes=1
    )
    return "A report is made each minute from now on."


ACTIONS: dict[str, tuple[str, Callable[[HttpRequest], str]]] = {
    "report": ("Make a report", report),
    "slow": ("Import the catalogue (slow)", slow),
    "failing": ("Charge a card (fails)", failing),
    "chain": ("Ship an order (chain)", chain),
    "workflow": ("Fulfil an order (workflow)", fulfil),
    "iter": ("Tax of every order (iter)", iterate),
    "schedule": ("A report each minute (schedule)", schedule),
}


@login_required
def dashboard(request: HttpRequest) -> HttpResponse:
    # The page asks for its figures alone, once a second.
    template = "shop/figures.html" if "figures" in request.GET else "shop/dashboard.html"
    return render(
        request,
        template,
        {
            "actions": [(name, label) for name, (label, _) in ACTIONS.items()],
            "followed": known(request.session.get("followed", [])),
            "queued": QUtilities.get_queue_size(),
            "tasks": Task.objects.order_by("-stopped")[:SHOWN],
            "succeeded": Task.objects.filter(success=True).count(),
            "failed": Task.objects.filter(success=False).count(),
            "schedules": Schedule.objects.order_by("next_run")[:SHOWN],
            "runs": Run.of(limit=5),
            "orders": Order.objects.all()[:SHOWN],
            "reports": Report.objects.all()[:5],
        },
    )


@login_required
@require_POST
def start(request: HttpRequest, action: str) -> HttpResponse:
    if action not in ACTIONS:
        raise Http404(f"No action is called {action!r}.")
    _, act = ACTIONS[action]
    messages.info(request, act(request))
    return redirect("dashboard")


@login_required
def task(request: HttpRequest, task_id: str) -> HttpResponse:
    found = QUtilities.fetch_task(task_id)
    followed = [] if found else known([task_id])
    if not found and not followed:
        raise Http404("This tenant has no such task.")
    return render(request, "shop/task.html", {"task": found, "followed": followed})


@login_required
def followed(request: HttpRequest) -> JsonResponse:
    """What the page asks for once a second, for each task that it shows and that has not ended."""
    return JsonResponse({"tasks": known(request.GET.getlist("id")[:FOLLOWED])})


@login_required
@require_POST
def cancel(request: HttpRequest, task_id: str) -> HttpResponse:
    if QUtilities.cancel(task_id, by=request.user.get_username()):
        messages.info(request, "The task is cancelled. One that runs ends in a second or so.")
    else:
        messages.info(request, "There was nothing to cancel: the task has ended.")
    return redirect("dashboard")


def known(task_ids: Iterable[str]) -> list[dict[str, Any]]:
    return [one for one in map(standing, task_ids) if one["state"] != "unknown"]
