"""The schemas of the document: pydantic makes them from the very classes that check requests and type answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter, WithJsonSchema, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from recognizer.api.answers import Problem
from recognizer.api.meanings import MEANINGS
from recognizer.api.operations import Operation
from recognizer.api.takes import Body, Images
from recognizer.api.uploads import OTHER, Options
from recognizer.config import Settings

REFERENCE = "#/components/schemas/{model}"
FILE = {"type": "string", "format": "binary"}
BASE64 = {"type": "string", "contentEncoding": "base64"}

Kind = Literal["json", "form", "answer"]


class Written(GenerateJsonSchema):
    """Schemas as a request is written: words with commas; without titles, which only repeat the names."""

    def encode_default(self, dft: object) -> object:
        """A default as it would be sent."""
        return ",".join(sorted(dft)) if isinstance(dft, frozenset) else super().encode_default(dft)

    def field_title_should_be_set(self, schema: object) -> bool:
        """No."""
        return False


class Schemas:
    """Every schema that the operations need; `components` has them by name."""

    def __init__(self, operations: Iterable[Operation], settings: Settings) -> None:
        self._settings = settings
        wanted: dict[tuple[Kind, Any], Any] = {("answer", Problem): Problem}
        for operation in operations:
            wanted.update(self._wanted(operation))
        inputs: list[Any] = [
            (key, "serialization" if key[0] == "answer" else "validation", TypeAdapter(of))
            for key, of in wanted.items()
        ]
        found, definitions = TypeAdapter.json_schemas(inputs, ref_template=REFERENCE, schema_generator=Written)
        self._references = {key: schema for (key, _), schema in found.items()}
        self.components: dict[str, dict[str, Any]] = definitions.get("$defs", {})
        for kind, of in wanted:
            if kind != "answer":
                explain(self._resolved(self._references[kind, of]))
            if isinstance(of, Images):
                self._write_beside_a_query(kind, self._resolved(self._references[kind, of]))

    def of(self, options: type[Options]) -> dict[str, Any]:
        """The schema of the options of a query string."""
        return explain(options.model_json_schema(ref_template=REFERENCE, schema_generator=Written))

    def answer(self, of: Any) -> dict[str, Any]:
        """The reference to an answer's schema."""
        return self._references["answer", of]

    def body(self, takes: Body | Images) -> dict[str, Any]:
        """The ways to send a request's body."""
        json = {"schema": self._references["json", takes]}
        if isinstance(takes, Body):
            return {"required": not takes.optional, "content": {"application/json": json}}
        form = {"schema": self._references["form", takes]}
        content = {"multipart/form-data": form, "image/*": {"schema": FILE}, "application/json": json}
        return {"required": True, "content": content}

    def _wanted(self, operation: Operation) -> Iterator[tuple[tuple[Kind, Any], Any]]:
        takes = operation.takes
        if isinstance(takes, Body):
            yield ("json", takes), takes.options
        if isinstance(takes, Images):
            yield ("json", takes), self._with_images(takes, "Json")
            yield ("form", takes), self._with_images(takes, "Form")
        for answer in operation.answers.values():
            for each in answer if isinstance(answer, tuple) else (answer,):
                if isinstance(each, type):
                    yield ("answer", each), each

    @staticmethod
    def _mode(kind: Kind) -> JsonSchemaMode:
        return "serialization" if kind == "answer" else "validation"

    def _with_images(self, takes: Images, way: Literal["Json", "Form"]) -> type[Options]:
        """The options and the images beside them, as they are written in a form or in JSON."""
        most = takes.most(self._settings)
        schema: dict[str, Any]
        schema = one = FILE if way == "Form" else BASE64
        name = "image"
        if most > 1:
            name = "image" if way == "Form" else "images"
            schema = {"type": "array", "items": schema, "minItems": max(takes.at_least, 1), "maxItems": most}
        image = Annotated[Any, WithJsonSchema(schema)]
        field: Any = (image, ... if takes.at_least else Field(default_factory=str))
        title = takes.options.__name__.removesuffix("Options") + way
        fields = {name: field}
        if takes.with_other:
            fields[OTHER] = (Annotated[Any, WithJsonSchema(one)], Field(default_factory=str))
        model: Any = create_model(title, __base__=takes.options, **fields)
        return cast(type[Options], model)

    @staticmethod
    def _write_beside_a_query(kind: Kind, schema: dict[str, Any]) -> None:
        """A default stands in the query alone: a client that sent it in the body would overrule what the query says.

        In a form all but the files is text; an object is JSON text, as OpenAPI has it of forms.
        """
        properties = schema["properties"]
        for name in [*properties]:
            properties[name].pop("default", None)
            if kind == "form" and name not in ("image", OTHER):
                properties[name] = in_text(properties[name], objects=True)
        schema["properties"] = {name: of for name, of in properties.items() if of is not None}

    def _resolved(self, reference: dict[str, Any]) -> dict[str, Any]:
        name = reference.get("$ref", "").rpartition("/")[2]
        return self.components[name] if name else reference


def explain(options: dict[str, Any]) -> dict[str, Any]:
    """Add to the schema of options what each of them means."""
    for name, schema in options.get("properties", {}).items():
        if name in MEANINGS:
            schema["description"] = MEANINGS[name]
    return options


def in_text(schema: dict[str, Any], *, objects: bool = False) -> dict[str, Any] | None:
    """The schema of an option where all is text: without null, and None where nothing is left."""
    barred = {"null", "array"} if objects else {"null", "array", "object"}
    kept = {name: value for name, value in schema.items() if name != "anyOf" and (name, value) != ("default", None)}
    if "anyOf" not in schema:
        return kept if schema.get("type") not in barred else None
    choices = [each for each in schema["anyOf"] if each.get("type") not in barred]
    if len(choices) == 1:
        return {**choices[0], **kept}
    return {**kept, "anyOf": choices} if choices else None
