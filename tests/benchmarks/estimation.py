"""How wrong is `edge estimate` with one model left out, and with a whole family? See README.md in this folder."""

import math
import sys
from statistics import median

from device_profiles.published.language_models import WEIGHT_CLASSES
from device_profiles.published.latency import published_latencies
from edge.estimation.edge_tpu import fit_edge_tpu
from edge.estimation.estimate import MAX_FAMILY_ERROR, MAX_MODEL_ERROR, SystemFit, estimable, fit_system
from edge.estimation.language_model import bandwidth_share
from edge.estimation.regression import band, median_error

LEAST_INSIDE, MAX_INSIDE = 0.85, 0.95


def inside(errors: list[float]) -> list[bool]:
    """Return whether each error is inside the band computed from the others."""
    bands = [band(errors[:place] + errors[place + 1 :]) for place in range(len(errors))]
    pairs = zip(errors, bands, strict=True)
    return [abs(error) <= math.log(factor) for error, factor in pairs if factor is not None]


def line(one: SystemFit) -> str:
    system = one.system
    engine = f"{system.engine} {system.engine_version}".strip()
    words = (system.device, system.processor, engine, system.precision, str(one.models))
    figures = (f"{one.model_error:.1%}", f"{one.family_error:.1%}", f"×{one.model_band:.2f}", f"×{one.family_band:.2f}")
    shown = "yes" if estimable(one) else "no"
    return f"| {' | '.join((*words, *figures, shown))} |"


def edge_tpu() -> bool:
    """Print the errors behind each host of an Edge TPU, and return whether all claims hold."""
    fit = fit_edge_tpu()
    print("\nEdge TPU:\n\n| host | models | times a desktop's latency | error, model | family |")
    print("|---|---:|---:|---:|---:|")
    for host, factor in fit.factors.items():
        own = [place for place, row in enumerate(fit.rows) if row.host == host]
        errors = [median_error([found[place] for place in own]) for found in (fit.model_errors, fit.family_errors)]
        print(f"| {host} | {len(own)} | {factor:.2f} | {errors[0]:.1%} | {errors[1]:.1%} |")
    found = (list(fit.model_errors), list(fit.family_errors))
    errors, bands = [median_error(one) for one in found], [band(one) for one in found]
    shares = [sum(inside(one)) / len(one) for one in found]
    print(
        f"\n{fit.models} models, {len(fit.rows)} latencies: median error {errors[0]:.1%} with one model left out, "
        f"{errors[1]:.1%} with a family; bands ×{bands[0]:.2f} and ×{bands[1]:.2f}; "
        f"{shares[0]:.0%} and {shares[1]:.0%} of the latencies are inside the band"
    )
    holds = errors[0] <= MAX_MODEL_ERROR and errors[1] <= MAX_FAMILY_ERROR
    return holds and all(LEAST_INSIDE <= share <= MAX_INSIDE for share in shares)


def main() -> int:
    found = [fit_system(system, rows) for system, rows in published_latencies().items()]
    known = [one for one in found if one is not None]
    print("| device | processor | engine | precision | models | error, model | family | band, model | family | shown |")
    print("|---|---|---|---|---:|---:|---:|---:|---:|---|")
    print("\n".join(line(one) for one in known))
    shown = [one for one in known if estimable(one)]
    of_models = [hit for one in shown for hit in inside(one.fit.model_errors)]
    of_families = [hit for one in shown for hit in inside(one.fit.family_errors)]
    shares = [sum(hits) / len(hits) for hits in (of_models, of_families)]
    errors = [median(getattr(one, key) for one in shown) for key in ("model_error", "family_error")]
    print(
        f"\n{len(shown)} of {len(found)} systems are shown: median error {errors[0]:.1%} with one model left out, "
        f"{errors[1]:.1%} with a family; {shares[0]:.0%} and {shares[1]:.0%} of {len(of_models)} published latencies "
        "are inside the band"
    )
    edge_tpu_holds = edge_tpu()
    print("\nlanguage models:\n\n| weights | rows | devices | share of the bandwidth | median error | band |")
    print("|---|---:|---:|---:|---:|---:|")
    for bits in WEIGHT_CLASSES:
        basis = bandwidth_share(bits)
        rows = f"| {bits} bits | {basis.rows} | {basis.devices} |"
        print(f"{rows} {basis.share:.0%} | {basis.error:.0%} | ×{basis.band:.2f} |")
    holds = all(one.model_error <= MAX_MODEL_ERROR and one.family_error <= MAX_FAMILY_ERROR for one in shown)
    return 0 if holds and edge_tpu_holds and all(LEAST_INSIDE <= share <= MAX_INSIDE for share in shares) else 1


if __name__ == "__main__":
    sys.exit(main())
