from django.urls import path

from rules.views import review_guard

urlpatterns = [
    path("review/notice/", review_guard.bias_notice, name="bias-notice"),
    path("review/<int:number>/figures/", review_guard.instruction_insight, name="instruction-insight"),
    path("review/<int:number>/evidence/", review_guard.instruction_evidence, name="instruction-evidence"),
    path("review/<int:number>/visible/", review_guard.instruction_visible, name="instruction-visible"),
    path("review/<int:number>/opinions/", review_guard.instruction_opinions, name="instruction-opinions"),
]
