"""What neurons last said of themselves, as they said it: gauges made for one scrape."""

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from cortexd.fleet.view import FleetView

_MODEL_GAUGES = {
    "cortex_model_in_flight": ("in_flight", "Requests that the neuron is working on"),
    "cortex_model_queue_depth": ("queue_depth", "Requests that wait at the neuron"),
    "cortex_model_max_in_flight": ("max_in_flight", "Most requests at work (0: unknown)"),
    "cortex_model_max_queue_depth": ("max_queue_depth", "Most requests waiting (0: unknown)"),
    "cortex_model_tok_s_prefill": ("tok_s_prefill", "Prompt tokens per second"),
    "cortex_model_tok_s_decode": ("tok_s_decode", "Completion tokens per second"),
}
_DEVICE_GAUGES = {
    "cortex_device_vram_used_mb": ("vram_used_mb", "Memory in use"),
    "cortex_device_vram_free_mb": ("vram_free_mb", "Memory free"),
    "cortex_device_utilization_pct": ("utilization_pct", "Utilization"),
    "cortex_device_temp_c": ("temp_c", "Temperature"),
}
_REJECTIONS = (
    "queue_full",
    "timeout",
    "per_principal",
    "anon_yield",
    "kv_timeout",
    "kv_unservable",
)


def fleet_gauges(view: FleetView) -> list[Metric]:
    """What neurons last said of themselves, as they said it."""
    up = GaugeMetricFamily("cortex_neuron_up", "Whether the neuron is healthy", labels=("node",))
    for neuron in view.neurons.values():
        up.add_metric((neuron.name,), neuron.healthy)
    return [up, *_model_gauges(view), _rejections(view), *_device_gauges(view)]


def _model_gauges(view: FleetView) -> list[Metric]:
    families: list[Metric] = []
    for name, (field, text) in _MODEL_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=("node", "model"))
        for neuron in view.neurons.values():
            for model in neuron.models.values():
                family.add_metric((neuron.name, model.id), getattr(model.load, field))
        families.append(family)
    return families


def _rejections(view: FleetView) -> Metric:
    family = CounterMetricFamily(
        "cortex_model_rejections_total",
        "Requests that the neuron turned away since it loaded the model",
        labels=("node", "model", "reason"),
    )
    for neuron in view.neurons.values():
        for model in neuron.models.values():
            for reason in _REJECTIONS:
                count = getattr(model.load, f"rejected_{reason}")
                family.add_metric((neuron.name, model.id, reason), count)
    return family


def _device_gauges(view: FleetView) -> list[Metric]:
    families: list[Metric] = []
    for name, (field, text) in _DEVICE_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=("node", "device"))
        for neuron in view.neurons.values():
            for device in neuron.devices:
                value = getattr(device, field)
                if value is not None:
                    family.add_metric((neuron.name, str(device.index)), value)
        families.append(family)
    return families
