"""The management calls of a simulated neuron, except for loading.

Each function returns the value to be sent as JSON, or raises NeuronError. `/v1/models` lets the
same simulator play any OpenAI-compatible server. Nothing here waits, nothing writes to a client.
"""

import time

import msgspec

from cortexd.demo.errors import NeuronError, management_error
from cortexd.demo.hardware import Device, Resident
from cortexd.demo.machine import Machine

Json = dict[str, object]


class _UnloadBody(msgspec.Struct, frozen=True):
    model_id: str


def version(machine: Machine) -> Json:
    """GET /version."""
    return {
        "package_version": "0.0.0-simulated",
        "git_sha": "unknown",
        "git_dirty": False,
        "profile": "demo",
        "features": ["simulated"],
    }


def discovery(machine: Machine) -> Json:
    """GET /discovery: what this neuron is made of."""
    contexts = [model.context for model in machine.rack.known.values()]
    found: Json = {
        "hostname": machine.name,
        "os": "linux",
        "kernel": "simulated",
        "cuda_version": "12.8",
        "driver_version": "570.00",
        "devices": [_discovered(device) for device in machine.rack.devices],
        "harnesses": sorted({model.harness for model in machine.rack.known.values()}) or ["candle"],
        "max_prompt_tokens": max(contexts, default=0),
    }
    if machine.switches.cuda_unavailable is not None:
        found["cuda_unavailable_reason"] = machine.switches.cuda_unavailable
    return found


def health(machine: Machine) -> Json:
    """GET /health: devices, activation and the load on each resident model."""
    loading = [m for m, r in machine.rack.resident.items() if r.status == "loading"]
    return {
        "uptime_secs": int(time.monotonic() - machine.started_seconds),
        "devices": [_device_health(machine, device) for device in machine.rack.devices],
        "activation": {
            "state": "pre_warming" if machine.switches.pre_warming else "ready",
            "pending": loading[1:],
            "in_progress": loading[0] if loading else None,
            "completed": list(machine.completed_loads),
            "failed": [],
        },
        "models": [_model_load(machine, model_id) for model_id in machine.lines],
    }


def models(machine: Machine) -> list[Json]:
    """GET /models: what is resident, as a bare array."""
    show_loading = machine.switches.show_loading
    return [_model(resident) for resident in _shown(machine, loading=show_loading)]


def openai_models(machine: Machine) -> Json:
    """GET /v1/models, as OpenAI has it, with vLLM's `max_model_len`."""
    data = [
        {
            "id": resident.model.id,
            "object": "model",
            "created": 0,
            "owned_by": machine.name,
            "max_model_len": resident.model.context,
        }
        for resident in _shown(machine, loading=False)
    ]
    return {"object": "list", "data": data}


def unload(machine: Machine, body: bytes) -> Json:
    """POST /models/unload. Requests under way on the model are not cut off."""
    try:
        model_id = msgspec.json.decode(body, type=_UnloadBody).model_id
    except msgspec.DecodeError:
        raise NeuronError(management_error(400, "missing model_id")) from None
    resident = machine.rack.resident.get(model_id)
    if resident is None or resident.status == "loading":
        raise NeuronError(management_error(404, f"model {model_id} not loaded"))
    machine.rack.take_out(model_id)
    machine.lines.pop(model_id, None)
    machine.speeds.pop(model_id, None)
    return {"status": "unloaded"}


def endpoint(machine: Machine, model_id: str, port: int) -> Json:
    """GET /models/{id}/endpoint: a loopback address, as real neurons give it."""
    if model_id not in machine.lines:
        raise NeuronError(management_error(404, f"model {model_id} not loaded"))
    return {"url": f"http://localhost:{port}"}


def capabilities(machine: Machine, model_id: str) -> Json:
    """GET /models/{id}/capabilities: also of models whose weights are only cached."""
    model = machine.rack.known.get(model_id)
    if model is None:
        raise NeuronError(management_error(404, f"this node cannot tell about {model_id}"))
    return {"capabilities": list(model.capabilities)}


def _shown(machine: Machine, *, loading: bool) -> list[Resident]:
    return [r for r in machine.rack.resident.values() if loading or r.status != "loading"]


def _model(resident: Resident) -> Json:
    model = resident.model
    shown: Json = {
        "id": model.id,
        "harness": model.harness,
        "status": resident.status,
        "devices": list(resident.devices),
        "vram_used_mb": model.vram_mb,
        "capabilities": list(model.capabilities),
        "limit": {"context": model.context, "output": model.output},
        "tool_call": model.tool_call,
        "reasoning": model.reasoning,
    }
    if model.cost is not None:
        shown["cost"] = model.cost
    if resident.servable is not None:
        shown["servable"] = resident.servable
    return shown


def _model_load(machine: Machine, model_id: str) -> Json:
    line, speed = machine.lines[model_id], machine.speeds[model_id]
    rejected = line.rejected
    return {
        "id": model_id,
        "in_flight": line.in_flight,
        "queue_depth": line.queue_depth,
        "max_in_flight": line.limits.max_in_flight,
        "max_queue_depth": line.limits.max_queue_depth,
        "rejected_queue_full": rejected["queue_full"],
        "rejected_timeout": rejected["timeout"],
        "rejected_per_principal": rejected["per_principal"],
        "tok_s_prefill": speed.prefill,
        "tok_s_decode": speed.decode,
    }


def _discovered(device: Device) -> Json:
    return msgspec.to_builtins(device)  # type: ignore[no-any-return]  # a struct becomes a dict


def _device_health(machine: Machine, device: Device) -> Json:
    free_mb = machine.rack.free_mb(device.index)
    busy = sum(
        machine.lines[resident.model.id].in_flight
        for resident in machine.rack.resident.values()
        if device.index in resident.devices and resident.model.id in machine.lines
    )
    return {
        "index": device.index,
        "vram_used_mb": device.vram_total_mb - free_mb,
        "vram_free_mb": free_mb,
        "utilization_pct": min(100, 45 * busy),
        "temp_c": 38 + min(40, 12 * busy),
    }
