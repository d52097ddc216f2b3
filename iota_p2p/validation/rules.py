"""A run's scoring rules, from its spec and the shape of its stages."""

from iota_p2p.model.run_figures import RunFigures
from iota_p2p.run.spec import ValidationSpec
from iota_p2p_protocols.scoring.combination import ScoringRules
from iota_p2p_protocols.scoring.fast_checks import PPM


def scoring_rules(spec: ValidationSpec, figures: RunFigures) -> ScoringRules:
    """Return the rules, in which every stage costs its share of the model's floating-point operations."""
    flops = [stage.figures.flops_per_token for stage in figures.stages]
    return ScoringRules(
        costs_ppm=tuple(PPM * one // sum(flops) for one in flops),
        seats=spec.seats,
        pot=spec.pot,
        clasp_tolerance_ppm=spec.clasp_tolerance_ppm,
        clasp_ruin_ppm=spec.clasp_ruin_ppm,
        least_records=spec.least_records,
        warmup_epochs=spec.warmup_epochs,
        pair_every=spec.pair_every,
    )
