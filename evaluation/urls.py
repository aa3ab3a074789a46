from django.urls import include, path

from evaluation.api import api
from evaluation.views import ablations, datasets, drift, groups, loops, runs

_pages = [
    path("", runs.evaluation_list, name="evaluation-list"),
    path("new/", runs.evaluation_new, name="evaluation-new"),
    path("compare/", runs.evaluation_compare, name="evaluation-compare"),
    path("comparisons/", groups.group_list, name="evaluation-groups"),
    path("comparisons/new/", groups.group_new, name="evaluation-group-new"),
    path("comparisons/<int:number>/", groups.group_detail, name="evaluation-group"),
    path("releases/", groups.release_figures, name="evaluation-releases"),
    path("drift/", drift.drift, name="evaluation-drift"),
    path("drift/plan/", drift.plan_save, name="evaluation-plan"),
    path("releases/<int:version>/again/", drift.reevaluate, name="evaluation-reevaluate"),
    path("datasets/", datasets.dataset_list, name="evaluation-datasets"),
    path("datasets/new/", datasets.dataset_new, name="evaluation-dataset-new"),
    path("datasets/<int:number>/", datasets.dataset_detail, name="evaluation-dataset"),
    path("ablations/", ablations.ablation_list, name="evaluation-ablations"),
    path("ablations/new/", ablations.ablation_new, name="evaluation-ablation-new"),
    path("ablations/<int:number>/", ablations.ablation_detail, name="evaluation-ablation"),
    path("ablations/<int:number>/cancel/", ablations.ablation_cancel, name="evaluation-ablation-cancel"),
    path("ablations/<int:number>/raise/", ablations.ablation_raise, name="evaluation-ablation-raise"),
    path("ablations/<int:number>/export.<str:kind>", ablations.ablation_export, name="evaluation-ablation-export"),
    path("loops/", loops.loop_list, name="evaluation-loops"),
    path("loops/new/", loops.loop_new, name="evaluation-loop-new"),
    path("loops/<int:number>/", loops.loop_detail, name="evaluation-loop"),
    path("loops/<int:number>/next/", loops.loop_next, name="evaluation-loop-next"),
    path("loops/<int:number>/cancel/", loops.loop_cancel, name="evaluation-loop-cancel"),
    path("loops/<int:number>/budget/", loops.loop_budget, name="evaluation-loop-budget"),
    path("loops/<int:number>/groups/<int:pk>/", loops.loop_group, name="evaluation-loop-group"),
    path("template/", datasets.input_template, name="evaluation-template"),
    path("template/save/", datasets.input_template_new, name="evaluation-template-save"),
    path("<int:number>/", runs.evaluation_detail, name="evaluation-detail"),
    path("<int:number>/cancel/", runs.evaluation_cancel, name="evaluation-cancel"),
    path("<int:number>/rerun/", runs.evaluation_rerun, name="evaluation-rerun"),
    path("<int:number>/export.<str:kind>", runs.evaluation_export, name="evaluation-export"),
]

urlpatterns = [
    path("tasks/<slug:slug>/evaluation/", include(_pages)),
    path("api/v1/evaluation/", api.urls),
]
