from django.urls import path

from rules.views import bulk
from rules.views import review as views
from rules.views import review_assign as assign
from rules.views import review_hands as hands
from rules.views import review_similar as similar
from rules.views import saved_views as saved

urlpatterns = [
    path("review/", views.review_queue, name="review-queue"),
    path("review/views/new/", saved.saved_view_new, name="saved-view-new"),
    path("review/views/<slug:view>/", saved.saved_view, name="saved-view"),
    path("review/views/<slug:view>/delete/", saved.saved_view_delete, name="saved-view-delete"),
    path("review/bulk/", bulk.review_bulk, name="review-bulk"),
    path("review/batches/", bulk.batch_list, name="batch-list"),
    path("review/batches/<int:pk>/", bulk.batch_detail, name="batch-detail"),
    path("review/batches/<int:pk>/undo/", bulk.batch_undo, name="batch-undo"),
    path("review/<int:number>/tags/", bulk.review_tag, name="review-tag"),
    path("review/<int:number>/similar/<int:other>/keep/", similar.pair_keep, name="review-pair-keep"),
    path("review/<int:number>/assignment/", assign.assignment, name="assignment"),
    path("review/next/", hands.review_next, name="review-next"),
    path("review/<int:number>/ping/", hands.review_ping, name="review-ping"),
    path("review/<int:number>/release/", hands.review_release, name="review-release"),
    path("review/<int:number>/take-over/", hands.review_take_over, name="review-take-over"),
    path("review/<int:number>/draft/", hands.review_draft, name="review-draft"),
    path("review/<int:number>/draft/discard/", hands.review_draft_discard, name="review-draft-discard"),
    path("review/<int:number>/", views.instruction_detail, name="instruction-detail"),
    path("review/<int:number>/traces/", views.instruction_traces, name="instruction-traces"),
    path("review/<int:number>/approve/", views.instruction_approve, name="instruction-approve"),
    path("review/<int:number>/edit/", views.instruction_edit, name="instruction-edit"),
    path("review/<int:number>/reject/", views.instruction_reject, name="instruction-reject"),
    path("review/<int:number>/defer/", views.instruction_defer, name="instruction-defer"),
    path("review/<int:number>/send-back/", views.instruction_send_back, name="instruction-send-back"),
    path("review/<int:number>/reopen/", views.instruction_reopen, name="instruction-reopen"),
    path("review/<int:number>/undo/", views.instruction_undo, name="instruction-undo"),
]
