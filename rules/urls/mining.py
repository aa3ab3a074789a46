from django.urls import path

from rules.views import mining as views
from rules.views import mining_budget
from rules.views.mining_map import mining_map

urlpatterns = [
    path("mining/", views.mining_list, name="mining-list"),
    path("mining/new/", views.mining_new, name="mining-new"),
    path("mining/<int:pk>/", views.mining_detail, name="mining-detail"),
    path("mining/<int:pk>/map/", mining_map, name="mining-map"),
    path("mining/<int:pk>/release/", mining_budget.mining_release, name="mining-release"),
    path("mining/<int:pk>/cancel/", views.mining_cancel, name="mining-cancel"),
]
