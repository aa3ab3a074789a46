from django.urls import path

from rules.views import publishing as views

urlpatterns = [
    path("releases/", views.releases, name="releases"),
    path("releases/publish/", views.publish, name="release-publish"),
    path("releases/roll-back/", views.rollback, name="release-rollback"),
    path("releases/<int:version>/", views.release_detail, name="release-detail"),
    path("releases/<int:version>/download.<str:kind>", views.release_download, name="release-download"),
    path("tokens/", views.tokens, name="tokens"),
    path("tokens/new/", views.token_new, name="token-new"),
    path("tokens/<int:pk>/revoke/", views.token_revoke, name="token-revoke"),
]
