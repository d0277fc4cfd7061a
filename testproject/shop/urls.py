from django.urls import path

from shop import views

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("start/<slug:action>/", views.start, name="start"),
    path("tasks/", views.followed, name="followed"),
    path("tasks/<str:task_id>/", views.task, name="task"),
    path("tasks/<str:task_id>/cancel/", views.cancel, name="cancel"),
]
