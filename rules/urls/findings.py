from django.urls import path

from rules.views import findings as views

urlpatterns = [
    path("review/conflicts/", views.conflict_list, name="conflict-list"),
    path("mining/<int:pk>/changes/", views.mining_changes, name="mining-changes"),
    path("mining/<int:pk>/suspects/", views.mining_suspects, name="mining-suspects"),
    path(
        "review/<int:number>/changes/<int:pk>/dismiss/",
        views.instruction_change_dismiss,
        name="instruction-change-dismiss",
    ),
    path(
        "review/<int:number>/proposals/<int:pk>/dismiss/",
        views.instruction_proposal_dismiss,
        name="instruction-proposal-dismiss",
    ),
]
