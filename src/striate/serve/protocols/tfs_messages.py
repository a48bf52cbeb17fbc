"""TensorFlow Serving's messages and the core: what its faces and its logs have in common."""

from striate.serve import protos, tensors
from striate.serve.core import Core, Request, Target
from striate.serve.signatures import Signature, Tensors, TensorSpec, tensor_name
from striate.serve.status import Code, ServingError, invalid

METADATA_FIELD = "signature_def"


def metadata_of(core: Core, request):
    """The GetModelMetadataResponse of a request: every signature, as a SignatureDefMap."""
    target = target_of(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != METADATA_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    version, signatures = core.signatures(target)
    found = protos.get_model_metadata_pb2.SignatureDefMap()
    for signature in signatures.values():
        _fill_signature(found.signature_def[signature.name], signature)
    response = protos.get_model_metadata_pb2.GetModelMetadataResponse()
    fill_spec(response.model_spec, target.model, version, "")
    response.metadata[METADATA_FIELD].Pack(found)
    return response


def status_of(core: Core, request):
    """The GetModelStatusResponse of a request."""
    response = protos.get_model_status_pb2.GetModelStatusResponse()
    for version in core.statuses(target_of(request)):
        status = response.model_version_status.add(version=version.number, state=version.state)
        status.status.error_code = version.code
        status.status.error_message = version.message
    return response


def target_of(request) -> Target:
    """Whom a request's ModelSpec asks; of a version and a label the wire keeps the last one."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return Target(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def predict_request(request, max_bytes: int) -> Request:
    """A PredictRequest as the core takes it."""

    def read(signature: Signature) -> Tensors:
        found = {}
        for name in signature.inputs:
            if name not in request.inputs:
                continue
            try:
                found[name] = tensors.from_proto(request.inputs[name], max_bytes)
            except tensors.TooLarge as error:
                raise ServingError(Code.RESOURCE_EXHAUSTED, f"Input {name}: {error}") from None
            except ValueError:
                raise invalid(f"tensor parsing error: {name}") from None
        return found

    return Request(
        target_of(request),
        request.model_spec.signature_name,
        read,
        names=request.inputs,
        outputs=tuple(request.output_filter),
    )


def examples_request(request) -> Request:
    """A ClassificationRequest or a RegressionRequest as the core takes it."""
    return about_examples(request.input, target_of(request), request.model_spec.signature_name)


def about_examples(given, target: Target, signature: str) -> Request:
    """A request about the examples of an Input."""
    return Request(target, signature, read=lambda _: {"inputs": examples_of(given)})


def examples_of(given):
    """The serialized tf.Examples of an Input; a context is merged into each, by concatenation."""
    context = b""
    examples = given.example_list.examples
    if given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        examples = given.example_list_with_context.examples
    if not examples:
        raise invalid("Input is empty.")
    return tensors.strings([context + example.SerializeToString() for example in examples])


def fill_spec(spec, model: str, version: int, signature: str) -> None:
    """Say in a ModelSpec who answered."""
    spec.name = model
    spec.version.value = version
    spec.signature_name = signature


def fill_classes(result, classifications: list[list[tuple[str, float]]]) -> None:
    """Write labels and scores of every example into a ClassificationResult."""
    for pairs in classifications:
        found = result.classifications.add()
        for label, score in pairs:
            found.classes.add(label=label, score=score)


def fill_values(result, values: list[float]) -> None:
    """Write the value of every example into a RegressionResult."""
    for value in values:
        result.regressions.add(value=value)


def _fill_signature(definition, signature: Signature) -> None:
    if signature.definition is not None:
        definition.CopyFrom(signature.definition)
        definition.ClearField("defaults")  # TensorFlow Serving keeps them to itself
        return
    definition.method_name = signature.method
    for name, spec in signature.inputs.items():
        _fill_info(definition.inputs[name], tensor_name(signature.name, name), spec)
    for name, spec in signature.outputs.items():
        _fill_info(definition.outputs[name], f"{signature.name}_{name}:0", spec)


def _fill_info(info, name: str, spec: TensorSpec) -> None:
    info.name = name
    info.dtype = tensors.data_type(spec.dtype)
    for size in spec.shape or ():
        info.tensor_shape.dim.add(size=size)
