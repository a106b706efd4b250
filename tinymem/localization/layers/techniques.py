"""The techniques of localization by layer, by name."""

from __future__ import annotations

from dataclasses import dataclass

from tinymem.localization.layers.centroids import centroid_analysis
from tinymem.localization.layers.findings import Finding
from tinymem.localization.layers.gradients import GradientOptions, forgetting_gradients
from tinymem.localization.layers.probe import ProbeOptions
from tinymem.localization.layers.probing import label_probes, noise_probes
from tinymem.localization.layers.retraining import RetrainingOptions, layer_retraining
from tinymem.localization.layers.subject import LayerSubject
from tinymem.localization.layers.swapping import layer_swapping
from tinymem.recipe.layers import LayersRecipe, Technique
from tinymem.runtime.progress import Bar


@dataclass(frozen=True)
class Options:
    """The options of all techniques."""

    retraining: RetrainingOptions
    gradients: GradientOptions
    probes: ProbeOptions

    @staticmethod
    def of(recipe: LayersRecipe, learning_rate: float) -> Options:
        """A recipe's options; `learning_rate`: of retraining where it names none."""
        given = recipe.retraining
        retraining = RetrainingOptions(
            given.epochs, given.learning_rate or learning_rate, given.batch_size, given.weight_decay, recipe.seed
        )
        return Options(
            retraining, GradientOptions(recipe.objective, retraining), ProbeOptions(**recipe.probes.model_dump(), seed=recipe.seed)
        )


def findings(technique: Technique, subject: LayerSubject, options: Options, bar: Bar) -> list[Finding]:
    """The results of one technique; the models are left as they were.

    Raises:
        UserError: label probes on too few decisions between common targets.
    """
    if technique == "layer-swapping":
        return layer_swapping(subject, bar)
    if technique == "layer-retraining":
        return layer_retraining(subject, options.retraining, bar)
    if technique == "forgetting-gradients":
        return forgetting_gradients(subject, options.gradients, bar)
    if technique == "noise-probes":
        return noise_probes(subject, options.probes, bar)
    if technique == "label-probes":
        return label_probes(subject, options.probes, bar)
    return centroid_analysis(subject, bar)
