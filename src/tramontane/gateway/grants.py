"""What a key may call, if its verified claims say: the list ``models``. Pure.

A key without that claim is for every model of its project. Matching is all that Envoy needs for a
model asked for by name; the catalogue is another matter, since every list of names has one of its
own. That one, Envoy puts together itself, by a few lines of Lua that run for this question alone.
Called by ``gateway.inference``, ``gateway.services`` and ``gateway.listeners``.
"""

from collections.abc import Iterable

from tramontane.gateway.descriptors import Json, typed

JWT_METADATA = "envoy.filters.http.jwt_authn"
"""Where the verified claims of a key are found, under ``key``."""

LUA_FILTER = "envoy.filters.http.lua"
LUA_TYPE = "envoy.extensions.filters.http.lua.v3"

LISTING = """
function envoy_on_request(handle)
  local models = handle:metadata():get("models")
  if models == nil then
    return
  end
  local key = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")["key"]
  local granted, shown = {}, {}
  for _, name in ipairs(key["models"]) do
    granted[name] = true
  end
  for _, model in ipairs(models) do
    if granted[model["id"]] then
      shown[#shown + 1] = model["text"]
    end
  end
  local body = '{"object": "list", "data": [' .. table.concat(shown, ", ") .. "]}"
  handle:respond({[":status"] = "200", ["content-type"] = "application/json"}, body)
end
"""
"""Answers with those models of the route that the key names; each comes with its JSON text. A
route without models is one for all keys, and answers by itself."""

LISTED: Json = {LUA_FILTER: typed("envoy.config.route.v3.FilterConfig", config={})}
"""Turns the filter on. Envoy decides it by the route that a request has before its key is read, so
every route of the path must have it."""

RESTRICTED: Json = {
    "filter": JWT_METADATA,
    "path": [{"key": "key"}, {"key": "models"}],
    "value": {"present_match": True},
}
"""Matches keys that are for some models only."""


def refused(model: str) -> list[Json]:
    """Return matches that hold together for keys that are for other models than this one."""
    named = {"list_match": {"one_of": {"string_match": {"exact": model}}}}
    return [RESTRICTED, {**RESTRICTED, "value": named, "invert": True}]


def make_listing_filter() -> Json:
    """Return the filter that lists models by a key's names, where a route turns it on."""
    return typed(f"{LUA_TYPE}.Lua", default_source_code={"inline_string": LISTING})


def make_shown(models: Iterable[tuple[str, str]]) -> Json:
    """Return the metadata of a route: ids and JSON texts of the models that it may show."""
    shown = [{"id": model, "text": text} for model, text in models]
    return {"metadata": {"filter_metadata": {LUA_FILTER: {"models": shown}}}}
