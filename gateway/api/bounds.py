"""What a body may ask for, model by model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from network.units import ModelId
from network.wire.limits import Limits
from network.wire.messages import TextToImageRequest, check_limits, parse_request


@dataclass(frozen=True, slots=True)
class Bounds:
    """The default model, and the limits of every model."""

    default_model: ModelId
    limits: Limits = field(default_factory=Limits)
    overrides: Mapping[ModelId, Limits] = field(default_factory=dict)

    def of(self, model: ModelId) -> Limits:
        return self.overrides.get(model, self.limits)

    def parse(self, body: bytes) -> TextToImageRequest:
        """A request within its model's limits, the model named. Raises ProblemError 400 or 422."""
        return self.check(parse_request(body))

    def check(self, request: TextToImageRequest) -> TextToImageRequest:
        """The same for a request that was parsed elsewhere."""
        if not request.model_id:
            request = request.model_copy(update={"model_id": self.default_model})
        check_limits(request, self.of(ModelId(request.model_id)))
        return request
