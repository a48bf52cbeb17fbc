"""TensorFlow Serving's messages and the core: what its gRPC and its REST face have in common."""

from striate.serve import protos, tensors
from striate.serve.core import Core, Target
from striate.serve.signatures import Signature, TensorSpec, tensor_name
from striate.serve.status import invalid

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


def _fill_signature(definition, signature: Signature) -> None:
    definition.method_name = signature.method
    for name, spec in signature.inputs.items():
        _fill_info(definition.inputs[name], tensor_name(signature.name, name), spec)
    for name, spec in signature.outputs.items():
        _fill_info(definition.outputs[name], f"{signature.name}_{name}:0", spec)


def _fill_info(info, name: str, spec: TensorSpec) -> None:
    info.name = name
    info.dtype = tensors.data_type(spec.dtype)
    for size in spec.shape:
        info.tensor_shape.dim.add(size=size)
