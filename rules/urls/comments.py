from django.urls import path

from rules.views import comments as views

urlpatterns = [
    path("comments/", views.comment_list, name="comments"),
    path("review/<int:number>/comments/", views.instruction_comments, name="instruction-comments"),
    path("review/<int:number>/comments/new/", views.comment_new, name="comment-new"),
    path("review/<int:number>/comments/<int:pk>/answer/", views.comment_answer, name="comment-answer"),
    path("review/<int:number>/comments/<int:pk>/change/", views.comment_change, name="comment-change"),
    path(
        "review/<int:number>/comments/<int:pk>/resolve/",
        views.comment_turn,
        {"turn": "resolve"},
        name="comment-resolve",
    ),
    path(
        "review/<int:number>/comments/<int:pk>/reopen/", views.comment_turn, {"turn": "reopen"}, name="comment-reopen"
    ),
]
