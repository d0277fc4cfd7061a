"""The project's own tests: `python manage.py test --keepdb`. Tasks run with `sync=True`, so no cluster is needed."""

from decimal import Decimal

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.test import TestCase, override_settings
from django_q.models import Schedule, Task

from customers.models import Customer
from shop.models import Line, Order, Payment, Report
from shop.workflows import order as order_workflow
from shop.workflows import pick
from tenant_q import policies
from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import Context


def setUpModule():
    # Outside the tests' transactions: with --keepdb the two schemas are there the next time.
    call_command("setupdata", "testone", "testtwo", verbosity=0)


def forget(broker):
    """Leave nothing of a cluster that only a test has used."""
    for key in broker.client.scan_iter(f"{broker.tag}:*"):
        broker.client.delete(key)


class InTenant(TestCase):
    """Each test runs in testone; testtwo is the neighbour who must not notice."""

    def setUp(self):
        connection.set_tenant(Customer.objects.get(schema_name="testone"))
        self.addCleanup(connection.set_schema_to_public)


class TaskTests(InTenant):
    def test_a_report_is_made_of_the_tenants_own_orders(self):
        with in_schema("testtwo"):
            Order.objects.all().delete()
        task_id = QUtilities.add_async_task("shop.tasks.revenue_report", "Yearly", sync=True)

        result = QUtilities.get_result(task_id)
        self.assertEqual(result["schema"], "testone")
        self.assertEqual(result["orders"], Order.objects.count())
        self.assertEqual(Report.objects.get().made_in, "testone")
        with in_schema("testtwo"):
            self.assertFalse(Report.objects.exists())
            self.assertFalse(Task.objects.exists())
            self.assertIsNone(QUtilities.get_result(task_id))

    def test_another_tenant_is_addressed_by_its_schema_name(self):
        task_id = QUtilities.add_async_task("shop.tasks.revenue_report", sync=True, schema_name="testtwo")

        self.assertIsNone(QUtilities.get_result(task_id))
        self.assertEqual(QUtilities.get_result(task_id, schema_name="testtwo")["schema"], "testtwo")

    def test_a_chain_ships_an_order(self):
        order = Order.objects.first()
        links = [(f"shop.tasks.{step}", (order.pk,)) for step in ("pick", "pack", "ship")]
        group = QUtilities.create_async_tasks_chain(links, sync=True)

        order.refresh_from_db()
        self.assertEqual(order.status, Order.Status.SHIPPED)
        self.assertEqual(QUtilities.get_group_count(group), 3)

    def test_an_iter_answers_in_the_order_of_its_arguments(self):
        orders = list(Order.objects.order_by("-id"))
        iter_id = QUtilities.add_async_tasks_from_iter(
            "shop.tasks.total_with_tax", [order.pk for order in orders], sync=True
        )

        self.assertEqual(QUtilities.get_result(iter_id), [round(order.amount * Decimal("1.20"), 2) for order in orders])


class WorkflowTests(InTenant):
    def setUp(self):
        super().setUp()
        self.order = Order.objects.create(number="testone-bought", buyer="Ada", amount="250.00")
        self.lines = [Line.objects.create(order=self.order, article=article) for article in ("chair", "lamp")]

    def run_order(self):
        run = order_workflow.run_here({"order": self.order.pk})
        self.order.refresh_from_db()
        return run

    def test_an_order_is_paid_picked_and_shipped_once(self):
        run = self.run_order()

        self.assertEqual(run.state, "succeeded", run.error)
        self.assertEqual(self.order.status, Order.Status.SHIPPED)
        self.assertEqual([line.picked for line in self.order.lines.all()], [1, 1])
        self.assertEqual(run.context["shipped"], ["chair", "lamp"])
        self.assertEqual(Payment.objects.get().key, run.results["charge"])
        self.assertIn("is shipped", self.order.message)
        with in_schema("testtwo"):
            self.assertEqual(order_workflow.runs(), [])
            self.assertFalse(Payment.objects.exists())

    def test_a_line_that_is_sold_out_gives_the_money_back(self):
        Line.objects.filter(pk=self.lines[1].pk).update(is_sold_out=True)
        run = self.run_order()

        self.assertEqual(run.state, "failed")
        self.assertIn("No lamp is left.", run.error)
        self.assertEqual(run.results["undo"], "refunded 250.00")
        self.assertTrue(Payment.objects.get().is_refunded)
        self.assertEqual({line.status for line in self.order.lines.all()}, {Line.Status.ORDERED})
        self.assertIn("is cancelled", self.order.message)

    def test_a_tenant_has_a_limit_of_its_own(self):
        policies.configure("testone", actor="Ada", limits={"order_amount": 100})
        run = self.run_order()

        self.assertIn("the limit is 100", run.error)
        self.assertEqual(run.results["undo"], "refunded 0")
        with in_schema("testtwo"):
            order = Order.objects.first()
            self.assertEqual(order_workflow.run_here({"order": order.pk}).state, "succeeded")

    def test_a_step_is_a_function(self):
        self.assertEqual(pick(Context.of(item=self.lines[0].pk)), "chair")
        self.assertEqual(Line.objects.get(pk=self.lines[0].pk).picked, 1)


class PageTests(InTenant):
    def setUp(self):
        super().setUp()
        self.client.defaults["HTTP_HOST"] = "testone.localhost"

    def log_in(self):
        self.client.force_login(get_user_model().objects.get(username="admin"))

    def test_a_visitor_is_asked_to_log_in(self):
        self.assertRedirects(self.client.get("/"), "/admin/login/?next=/")

    def test_a_button_starts_a_task_and_the_page_shows_it(self):
        self.log_in()
        with override_settings(Q_CLUSTER=settings.Q_CLUSTER | {"sync": True}):
            self.client.post("/start/report/")

        task = Task.objects.get()
        self.assertContains(self.client.get("/"), "revenue report")
        self.assertContains(self.client.get(f"/tasks/{task.pk}/"), "testone")
        with in_schema("testtwo"):
            self.assertFalse(Task.objects.exists())

    def test_a_started_task_is_followed_and_cancelled(self):
        self.log_in()
        self.addCleanup(forget, get_broker())  # the tests' own: its name carries the test database's
        self.client.post("/start/slow/")
        (task_id,) = self.client.session["followed"]
        self.assertContains(self.client.get("/"), f'data-task="{task_id}"')
        self.assertContains(self.client.get(f"/tasks/{task_id}/"), "queued")
        (shown,) = self.client.get("/tasks/", {"id": [task_id, "none"]}).json()["tasks"]
        self.assertEqual(shown, {"id": task_id, "state": "queued", "fraction": 0, "text": "", "finished": False})

        with in_schema("testtwo"):
            self.assertEqual(QUtilities.get_status(task_id), "unknown")
            self.assertFalse(QUtilities.cancel(task_id))

        self.assertContains(self.client.post(f"/tasks/{task_id}/cancel/", follow=True), "is cancelled")
        self.assertTrue(self.client.get("/tasks/", {"id": task_id}).json()["tasks"][0]["finished"])
        self.assertContains(self.client.get("/"), "data-finished")

    def test_what_has_ended_is_not_cancelled(self):
        self.log_in()
        task_id = QUtilities.add_async_task("shop.tasks.import_catalogue", seconds=0, sync=True)
        self.assertContains(self.client.post(f"/tasks/{task_id}/cancel/", follow=True), "nothing to cancel")
        (shown,) = self.client.get("/tasks/", {"id": task_id}).json()["tasks"]
        self.assertEqual((shown["state"], shown["fraction"]), ("success", 1))

    def test_a_button_starts_a_workflow_once_for_an_order(self):
        self.log_in()
        self.addCleanup(forget, get_broker())
        self.client.post("/start/workflow/")
        self.client.post("/start/workflow/")

        (run,) = order_workflow.runs()
        self.assertEqual(run.row.by, "admin")
        self.assertContains(self.client.get("/?figures"), run.key)
        self.assertContains(self.client.get("/?figures"), "0 of 5 steps")
        with in_schema("testtwo"):
            self.assertEqual(order_workflow.runs(), [])

    def test_a_schedule_is_made_once(self):
        self.log_in()
        self.client.post("/start/schedule/")
        self.client.post("/start/schedule/")

        self.assertEqual(Schedule.objects.count(), 1)
        self.assertContains(self.client.get("/?figures"), "report each minute")

    def test_the_admin_shows_the_tenants_tasks_and_schedules(self):
        self.log_in()
        for page in ("success", "failure", "schedule"):
            self.assertEqual(self.client.get(f"/admin/django_q/{page}/").status_code, 200, page)

    def test_an_unknown_task_or_action_is_not_found(self):
        self.log_in()
        with self.assertLogs("django.request"):
            self.assertEqual(self.client.get("/tasks/none/").status_code, 404)
            self.assertEqual(self.client.post("/start/none/").status_code, 404)

    def test_the_public_page_lists_the_tenants(self):
        self.assertContains(self.client.get("/", HTTP_HOST="localhost"), "http://testtwo.localhost:80/admin/")
