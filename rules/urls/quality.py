from django.urls import path

from rules.views import oversight, quality, review_guard

urlpatterns = [
    path("review/policy/", quality.review_policy, name="review-policy"),
    path("review/policy/change/", quality.review_policy_change, name="review-policy-change"),
    path("review/quality/", quality.review_quality, name="review-quality"),
    path("review/quality.csv", quality.review_quality_export, name="review-quality-export"),
    path("review/oversight/", oversight.oversight, name="oversight"),
    path("review/oversight/<str:month>.csv", oversight.oversight_export, name="oversight-export"),
    path("review/oversight/<str:month>/", oversight.oversight_report, name="oversight-report"),
    path("review/session/", quality.review_session, name="review-session"),
    path("review/seeds/", quality.review_seeds, name="review-seeds"),
    path("review/seeds/make/", quality.seeds_make, name="seeds-make"),
    path("review/seeds/<int:pk>/retire/", quality.seed_retire, name="seed-retire"),
    path("review/pauses/<int:pk>/lift/", quality.pause_lift, name="review-pause-lift"),
    path("review/notice/", review_guard.bias_notice, name="bias-notice"),
    path("review/<int:number>/figures/", review_guard.instruction_insight, name="instruction-insight"),
    path("review/<int:number>/evidence/", review_guard.instruction_evidence, name="instruction-evidence"),
    path("review/<int:number>/visible/", review_guard.instruction_visible, name="instruction-visible"),
    path("review/<int:number>/opinions/", review_guard.instruction_opinions, name="instruction-opinions"),
]
