"""The page of a device: what the networks of a study score there, how long they take, and which to ship."""

from collections.abc import Iterable, Mapping
from typing import Any

from posequant.base.markdown import decibels, figure_or_dash, table
from posequant.base.measures import measure_in
from posequant.certify.page import near, stated
from posequant.devices.choice import loss_of


def render(result: Mapping[str, Any], study: str) -> str:
    """Return the page.

    Args:
        result: from `device_result`; and `emulated`, the core that was emulated, None or missing for a device.
        study: name of the study.
    """
    facts, confidence = result["facts"], f"{100 * result['bootstrap']['confidence']:g}%"
    parts = [f"# Device {result['device']}, {study}", _emulated(result) if result.get("emulated") else _device(facts)]
    for name, model in result["models"].items():
        parts.append(measure_in(model).said("\n\n".join(_model(name, model, result["tolerance"], confidence))))
    chosen = result["chosen"]
    subset = f", of images chosen at random (seed {chosen['seed']})" if chosen else ""
    parts += [
        "## How it was measured",
        f"{result['people']} people in {result['images']} images{subset}; AP over so few people is a rough figure, the "
        "difference to FP32 on the same people less so. The device got their crops and gave back the networks' "
        "outputs, which were decoded and scored here. No flip test.",
    ]
    if any(model["timing"]["rounds"] for model in result["models"].values()):
        parts.append(
            "Times are of one crop. In every round each network was run once with each number of threads, in an order "
            "that changes from round to round, each right after a run of the same network that was not timed; median, "
            "and in brackets the 95th percentile. Against FP32: the median over the rounds of FP32's time by the "
            "row's, with as many threads; above 1 the row is faster."
        )
    parts.append(f"{_versions(facts['versions'])} there, {_versions(result['versions'])} here.")
    return "\n\n".join(parts) + "\n"


def sentence(model: Mapping[str, Any], tolerance: Mapping[str, float]) -> str:
    """Return which row of a model to ship for the device, and why."""
    choice, rows = model["choice"], model["rows"]
    if choice is None:
        return "Nothing was timed beside FP32, so nothing says which row to ship."
    row = rows[choice["row"]]
    loss = loss_of(row)
    took = f"{choice['milliseconds']:.1f} ms with {choice['setting']}"
    if loss is None:
        why = f"{took}, and no other is faster and near enough to it"
    else:
        between = near({"value": loss, "interval": _turned(row["to_fp32"]["oks"]["interval"])})
        ratio = row["latency"][choice["setting"]]["against_fp32"]
        limit = f"{tolerance['oks_loss']:g} tolerated"
        why = f"{took}, {ratio:.2f} times as fast as FP32, at an OKS loss of {between} ({limit})"
    others = "; ".join(f"{name}: {reason}" for name, reason in choice["others"].items())
    return f"**Ship {choice['row']}**: {why}. " + (f"Not {others}." if others else "")


def _turned(interval: list[float] | None) -> list[float] | None:
    return None if interval is None else [1 - interval[1], 1 - interval[0]]


def _model(name: str, model: Mapping[str, Any], tolerance: Mapping[str, float], confidence: str) -> Iterable[str]:
    rows, timing = model["rows"], model["timing"]
    yield f"## {name}, {'x'.join(map(str, model['input_size']))}"
    yield sentence(model, tolerance)
    yield table(_accuracy(row, of, model, confidence) for row, of in rows.items())
    yield (
        "OKS to FP32: with the poses of FP32 on the device in the place of the truth. To the same row here: with the "
        "poses that the same files give on this machine; INT8 may round otherwise on another processor."
    )
    if timing["rounds"]:
        yield table(_times(row, of) for row, of in rows.items())
        yield _circumstances(timing)


def _accuracy(name: str, row: Mapping[str, Any], model: Mapping[str, Any], confidence: str) -> dict[str, str]:
    load = row["load"]
    if "failed" in load:
        return {"Row": name, "AP": f"does not run: {load['failed']}"}
    compared, here = row.get("to_fp32"), row["to_here"]
    return {
        "Row": name,
        "AP": figure_or_dash(row["statistics"][measure_in(model).score]),
        f"Difference to FP32 [{confidence} interval]": stated(compared["score"]) if compared else "-",
        f"OKS to FP32 [{confidence} interval]": near(compared["oks"]) if compared else "-",
        "OKS to the same row here": figure_or_dash(here["oks"]),
        "Outputs to here": "equal" if here["sqnr_db"] is None else decibels(here["sqnr_db"]),
    }


def _times(name: str, row: Mapping[str, Any]) -> dict[str, str]:
    load = row["load"]
    if "failed" in load:
        return {"Row": name}
    found = {"Row": name}
    for setting, time in row["latency"].items():
        found[setting] = f"{time['median_ms']:.2f} ms ({time['p95_ms']:.2f})"
        if time["against_fp32"] is not None:
            found[f"against FP32, {setting}"] = f"{time['against_fp32']:.2f}"
    return found | {
        "Load": f"{1000 * load['seconds']:.0f} ms",
        "Memory": f"{load['memory_mb']:.0f} MB",
        "Weights": f"{load['bytes'] / 1e6:.1f} MB",
    }


def _circumstances(timing: Mapping[str, Any]) -> str:
    warm, speed, permitted = timing["celsius"], timing["mhz"], timing["permitted_mhz"]
    said = [f"{timing['rounds']} rounds; {timing['waited_s']:.0f} s between them were waited for the device to cool"]
    said.append(f"{warm[0]:.0f} to {warm[1]:.0f} °C" if warm else "the device tells no temperature")
    said.append(f"fastest core at {speed[0]:.0f} to {speed[1]:.0f} MHz" if speed else "it tells no frequency")
    if permitted and permitted[0] < permitted[1]:
        said.append("**it was slowed down at times: the frequency that it permits changed**")
    return "; ".join(said) + "."


def _emulated(result: Mapping[str, Any]) -> str:
    features = ", ".join(result["facts"]["features"])
    return (
        f"**Emulated: a {result['emulated']} ({features}), by qemu on this machine.** Nothing was timed: an emulated "
        "core has no speed."
    )


def _device(facts: Mapping[str, Any]) -> str:
    kinds: dict[str, int] = {}
    for core in facts["cores"]:
        speed = f" up to {core['max_mhz']:.0f} MHz" if core["max_mhz"] else ""
        kind = (core["type"] or ", ".join(facts["cpu"])) + speed
        kinds[kind] = kinds.get(kind, 0) + 1
    governors = sorted({core["governor"] for core in facts["cores"] if core["governor"]})
    lines = {
        "Board": facts["board"] or "-",
        "Cores": ", ".join(f"{count} x {kind}" for kind, count in kinds.items()),
        "Features": ", ".join(facts["features"]) or "none that matter to reduced precision",
        "Governor": ", ".join(governors) or "not told",
        "Memory": f"{facts['memory_mb']:,} MB, {facts['free_memory_mb']:,} MB free" if facts["memory_mb"] else "-",
        "System": f"{facts['system']}, Linux {facts['kernel']}, {facts['architecture']}, Python {facts['python']}",
        "Measured": facts["time"],
    }
    return table({"": key, " ": value} for key, value in lines.items())


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()) if name != "posequant")
