from django.urls import path

from rules.views import bundles, compare
from rules.views import rulesets as views

urlpatterns = [
    path("rulesets/", views.ruleset_list, name="ruleset-list"),
    path("rulesets/compare/", compare.ruleset_compare, name="ruleset-compare"),
    path("rulesets/compare/<str:old>/<str:new>.json", compare.ruleset_compare_export, name="ruleset-compare-export"),
    path("rulesets/new/", views.ruleset_new, name="ruleset-new"),
    path("rulesets/<int:number>/", views.ruleset_detail, name="ruleset-detail"),
    path("rulesets/<int:number>/items/add/", views.item_add, name="ruleset-item-add"),
    path("rulesets/<int:number>/items/<int:item>/move/", views.item_move, name="ruleset-item-move"),
    path("rulesets/<int:number>/items/<int:item>/remove/", views.item_remove, name="ruleset-item-remove"),
    path("rulesets/<int:number>/refresh/", views.ruleset_refresh, name="ruleset-refresh"),
    path("rulesets/<int:number>/freeze/", views.ruleset_freeze, name="ruleset-freeze"),
    path("rulesets/<int:number>/read/<int:rule>/", views.ruleset_rule_read, name="ruleset-rule-read"),
    path("rulesets/<int:number>/sign/", views.ruleset_sign_view, name="ruleset-sign"),
    path("rulesets/<int:number>/withdraw/", views.ruleset_withdraw_view, name="ruleset-withdraw"),
    path("rulesets/<int:number>/release/", views.ruleset_release, name="ruleset-release"),
    path("rulesets/<int:number>/export.<str:kind>", views.ruleset_export_view, name="ruleset-export"),
    path("rulesets/<int:number>/bundles/", bundles.bundle_list, name="bundles"),
    path("rulesets/<int:number>/bundles/request/", bundles.bundle_request_view, name="bundle-request"),
    path("rulesets/<int:number>/bundles/<int:pk>/", bundles.bundle_detail, name="bundle-detail"),
    path("rulesets/<int:number>/bundles/<int:pk>/bundle.zip", bundles.bundle_download_view, name="bundle-download"),
]
