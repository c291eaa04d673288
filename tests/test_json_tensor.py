"""JSON <-> tensors by TF Serving's rules: exact texts, exact messages, and round trips of anything."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasformer.serving import json_tensor
from kerasformer.serving.status import ServingError

DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}


def tensors(dtype: str, **shape: int) -> st.SearchStrategy[np.ndarray]:
    elements = st.binary(max_size=8) if dtype == "string" else None
    return hnp.arrays(DTYPES[dtype], hnp.array_shapes(max_dims=3, max_side=3, **shape), elements=elements)


def named_tensors(**shape: int) -> st.SearchStrategy[tuple[dict[str, str], dict[str, np.ndarray]]]:
    """(name -> type, name -> tensor) of one to three inputs, some of which are bytes."""
    names = st.lists(st.sampled_from(["a", "b_bytes", "é"]), min_size=1, unique=True)
    dtypes = names.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, st.sampled_from(list(DTYPES)))))
    return dtypes.flatmap(
        lambda dtypes: st.tuples(
            st.just(dtypes),
            st.fixed_dictionaries({name: tensors(dtype, **shape) for name, dtype in dtypes.items()}),
        )
    )


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype
        np.testing.assert_array_equal(actual[name], tensor)


@given(named_tensors(min_dims=0))
def test_columns_round_trip(case):
    dtypes, sent = case
    document = json_tensor.parse(json_tensor.to_columns(sent))
    assert_same(json_tensor.from_columns(document["outputs"], dtypes), sent)


@given(named_tensors(min_dims=1), st.integers(1, 3))
def test_rows_round_trip(case, batch_size):
    dtypes, sent = case
    sent = {name: np.stack([tensor] * batch_size) for name, tensor in sent.items()}
    document = json_tensor.parse(json_tensor.to_rows(sent))
    assert len(document["predictions"]) == batch_size
    assert_same(json_tensor.from_rows(document["predictions"], dtypes), sent)


@given(st.sampled_from(["float", "double"]).flatmap(lambda dtype: tensors(dtype, min_dims=1)))
def test_a_float_is_never_mistaken_for_an_integer(tensor):
    for text in json_tensor.encode_floats(tensor.reshape(-1)):
        assert isinstance(json.loads(text), float)


@pytest.mark.parametrize(
    "value, dtype, text",
    [
        (0.1, np.float32, "0.1"),
        (1 / 3, np.float32, "0.333333343"),
        (1 / 3, np.float64, "0.33333333333333331"),
        (0.1, np.float64, "0.1"),
        (2, np.float32, "2.0"),
        (-0.0, np.float32, "-0.0"),
        (1e6, np.float32, "1e+06"),
        (123456789, np.float64, "123456789.0"),
        (3e-5, np.float32, "3e-05"),
        (float("nan"), np.float32, "NaN"),
        (float("inf"), np.float32, "Infinity"),
        (float("-inf"), np.float64, "-Infinity"),
    ],
)
def test_floats_are_printed_as_tf_serving_prints_them(value, dtype, text):
    assert json_tensor.encode_floats(np.array([value], dtype)) == [text]


@pytest.mark.parametrize(
    "value, dtype, expected",
    [
        ([1, 2.5], "float", np.array([1, 2.5], np.float32)),
        ([1e300], "float", np.array([np.inf], np.float32)),
        ([], "int32", np.zeros([0], np.int32)),
        ([[], []], "float", np.zeros([2, 0], np.float32)),
        (True, "bool", np.array(True)),
        (2**64 - 1, "uint64", np.array(2**64 - 1, np.uint64)),
        ({"b64": "AAE="}, "string", np.array(b"\0\1", object)),
        ([{"b64": "AAE"}, "é"], "string", np.array([b"\0\1", "é".encode()], object)),
        ({"x": ["b64"]}, "string", np.array([b"b64"], object)),
    ],
)
def test_values_become_tensors(value, dtype, expected):
    assert_same(json_tensor.from_columns(value, {"x": dtype}), {"x": expected})


@pytest.mark.parametrize(
    "value, dtype, message",
    [
        (1.0, "int32", "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        (2**31, "int32", "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        (-1, "uint8", "JSON Value: -1 Type: Number is not of expected type: uint8"),
        (True, "int64", "JSON Value: true Type: True is not of expected type: int64"),
        (False, "float", "JSON Value: false Type: False is not of expected type: float"),
        (1, "bool", "JSON Value: 1 Type: Number is not of expected type: bool"),
        (None, "float", "JSON Value: null Type: Null is not of expected type: float"),
        ("x", "float", 'JSON Value: "x" Type: String is not of expected type: float'),
        (1, "string", "JSON Value: 1 Type: Number is not of expected type: string"),
        ([{"a": 1}], "float", 'JSON Value: {"a": 1} Type: Object is not of expected type: float'),
        ([{"a": 1}], "string", 'JSON Value: {"a": 1} not formatted correctly for base64 data'),
        ({"b64": "A"}, "string", "Unable to base64 decode"),
        ({"b64": "AA=A"}, "string", "Unable to base64 decode"),
        ({"b64": "é"}, "string", "Unable to base64 decode"),
        ("\ud800", "string", "JSON Parse error: The surrogate pair in string is invalid."),
        ([10**400], "float", "JSON Parse error: Number too big to be stored in double."),
        ([[1, 2], [3]], "int32", "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([[1], 2], "int32", "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ([1, [2]], "int32", "Encountered list at unexpected level: 1 expected < 1"),
        (json.loads("[" * 80 + "]" * 80), "int32", "Tensor has 80 dimensions, expected at most 64"),
        ("x" * 999, "float", f'JSON Value: "{"x" * 255} Type: String is not of expected type: float'),
    ],
)
def test_values_of_another_type_or_shape_are_refused(value, dtype, message):
    with pytest.raises(ServingError) as caught:
        json_tensor.from_columns(value, {"x": dtype})
    assert (caught.value.code, caught.value.message) == ("INVALID_ARGUMENT", message)


@pytest.mark.parametrize("dtype", ["half", "bfloat16", "uint16", "complex64"])
def test_types_that_json_cannot_carry_are_refused(dtype):
    with pytest.raises(ServingError, match=f"^UNIMPLEMENTED: Conversion of JSON Value: 1 to type: {dtype}$"):
        json_tensor.from_columns(1, {"x": dtype})


@pytest.mark.parametrize(
    "instances, dtypes, message",
    [
        (
            [[1], [1, 2]],
            {"x": "int32"},
            "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size",
        ),
        ([[[1, 2]], [[1], [2]]], {"x": "int32"}, "Expecting shape [1,2] but got: [2,1]"),
        ([1, "x"], {"x": "int32"}, "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"x\""),
        ([1], {"x": "half"}, "element: 0 of 'instances' list. Error: UNIMPLEMENTED: Conversion of JSON Value: 1"),
        ([{"x": "a"}], {"x": "int32"}, "element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: JSON Value"),
        (
            [{"y": 1}],
            {"x": "int32"},
            "element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does",
        ),
        ([{"x": 1}], {"x": "int32", "z": "int32"}, 'JSON object: {"x": 1} keys must be equal to: x,z'),
        ([1], {"x": "int32", "z": "int32"}, "instances is a plain list, but expecting list of objects as multiple"),
        ([{"x": 1}, 2], {"x": "int32"}, "Expecting object but got list at item 1 of input list"),
        ([1, {"x": 2}], {"x": "int32"}, "Expecting value/list but got object at item 1 of input list"),
    ],
)
def test_rows_of_another_form_are_refused(instances, dtypes, message):
    with pytest.raises(ServingError) as caught:
        json_tensor.from_rows(instances, dtypes)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert message in caught.value.message


@pytest.mark.parametrize(
    "value, message",
    [
        ([1], "inputs is a plain value/list, but expecting an object as multiple input tensors required as per"),
        ({"x": 1}, "Missing named input: z in 'inputs' object."),
    ],
)
def test_columns_need_every_input(value, message):
    with pytest.raises(ServingError, match=message):
        json_tensor.from_columns(value, {"x": "int32", "z": "int32"})


def test_columns_ignore_what_is_no_input():
    assert_same(json_tensor.from_columns({"x": 1, "y": 2}, {"x": "int32"}), {"x": np.array(1, np.int32)})


@pytest.mark.parametrize(
    "tensors, text",
    [
        ({"y": np.array([b"a", b"\xff"], object)}, b'["a", "\xff"]'),
        ({"y_bytes": np.array([b"a"], object)}, b'[{"b64": "YQ=="}]'),
        ({"y_bytes": np.array([1], np.int64)}, b"[1]"),
        ({"a": np.array([[1]], np.int32), "b": np.array([True])}, b'[{"a": [1], "b": true}]'),
        ({"y": np.zeros([2, 0], np.float32)}, b"[[], []]"),
        ({"y": np.zeros([0], np.float32)}, b"[]"),
    ],
)
def test_rows_are_written(tensors, text):
    assert json_tensor.to_rows(tensors) == b'{"predictions": ' + text + b"}\n"


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"y": np.float32(1)}, "Tensor name: y has no shape information "),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(1, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({"y": np.zeros(1, np.uint16)}, "Failed to write JSON value for tensor type: uint16"),
    ],
)
def test_tensors_that_rows_cannot_carry_are_refused(tensors, message):
    with pytest.raises(ServingError) as caught:
        json_tensor.to_rows(tensors)
    assert (caught.value.code, caught.value.message) == ("INVALID_ARGUMENT", message)


@pytest.mark.parametrize(
    "body, message",
    [
        (b"", "JSON Parse error: The document is empty"),
        (b" \n", "JSON Parse error: The document is empty"),
        (b'{"a": }', "JSON Parse error: Expecting value at offset: 6"),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON Parse error: Number too big to be stored in double."),
        (b"[" * 100_000, "JSON Parse error: Nested too deeply."),
    ],
)
def test_bodies_that_are_no_json_object_are_refused(body, message):
    with pytest.raises(ServingError) as caught:
        json_tensor.parse(body)
    assert (caught.value.code, caught.value.message) == ("INVALID_ARGUMENT", message)


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf {"a": 1}', b'{"a": 1} and more', b'\r\n\t{"a": 1}'])
def test_what_surrounds_the_document_is_ignored(body):
    assert json_tensor.parse(body) == {"a": 1}


@given(st.binary() | st.text().map(str.encode))
def test_any_body_is_parsed_or_refused(body):
    try:
        assert isinstance(json_tensor.parse(body), dict)
    except ServingError as error:
        assert error.code == "INVALID_ARGUMENT"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["x", "z", "b64"]), values),
)


@given(st.lists(JSON_VALUES, min_size=1), st.lists(st.sampled_from(list(DTYPES)), min_size=1, max_size=2))
def test_any_value_becomes_tensors_or_is_refused(values, dtypes):
    dtypes = dict(zip(["x", "z"], dtypes, strict=False))
    for read, value in ((json_tensor.from_rows, values), (json_tensor.from_columns, values[0])):
        try:
            result = read(value, dtypes)
        except ServingError as error:
            assert error.code == "INVALID_ARGUMENT"
        else:
            assert {name: tensor.dtype for name, tensor in result.items()} == {n: DTYPES[d] for n, d in dtypes.items()}
