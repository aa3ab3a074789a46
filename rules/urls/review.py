from django.urls import path

from rules.views import review as views

urlpatterns = [
    path("review/", views.review_queue, name="review-queue"),
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
