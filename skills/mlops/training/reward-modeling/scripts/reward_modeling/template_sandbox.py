"""transformers' sandbox for chat templates, in which all work is paid for. Steps are counted, not seconds: a template is refused on
every machine or on none."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence, Sized
from datetime import datetime
from itertools import chain
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

WORK = 200_000_000
"""Characters for one conversation: a million tokens need a tenth of it."""
TURN, CALL, ELEMENT = 100, 1000, 50
"""The price in characters of a turn of a loop, a call, and a container's element."""
LARGEST_INTEGER = 1_000_000  # bits
TODAY = datetime(2024, 7, 26)
_WIDTHS = frozenset(["center", "indent", "tojson", "batch", "slice", "round"])
"""Filters whose numbers say how much they make."""
_DEEP = frozenset(["tojson", "pprint", "string", "join"])
"""Filters that write all that a value holds."""
_LONG_NUMBER = re.compile(r"\d{6}")


class TooMuchError(Exception):
  """A template went over its budget."""


class Budget:
  left = WORK

  def charge(self, characters: int) -> None:
    self.left -= characters
    if self.left < 0:
      raise TooMuchError("it does more work than a conversation can need: loops without end, or a huge text")

  def weigh(self, value: object, deep: bool = False) -> Any:
    """Pay for a text by its length, a container by its elements, `deep` with all that they hold."""
    if isinstance(value, (str, bytes)):
      self.charge(len(value))
    elif isinstance(value, (list, tuple, dict, set, range)):
      self.charge(ELEMENT * len(value))
      items = () if isinstance(value, range) or not deep else value
      for item in chain(*items.items()) if isinstance(items, dict) else items:
        self.weigh(item, deep)
    return value

  def weigh_integers(self, values: Sequence[object], times: int = 1) -> None:
    self.charge(times * sum(abs(value) for value in values if isinstance(value, int)))


budget = Budget()


def _counted(context: object, values: object) -> Any:
  """Paid before the first turn; an iterator of unknown length pays as it goes."""
  if isinstance(values, Sized):
    budget.charge(TURN * len(values))
    return values
  return (value for value in values if not budget.charge(TURN))


def _weighed(context: object, value: object) -> Any:
  return budget.weigh(value)


def _weighed_deep(context: object, value: object) -> Any:
  return budget.weigh(value, deep=True)


def _check_format(form: str, values: Sequence[object]) -> None:
  """A width makes as many spaces: `'%1000000000d'`, or `'%*d'` and `'{:{}}'` with a number for it."""
  if _LONG_NUMBER.search(form):
    raise TooMuchError("it formats a text with a huge width")
  if "*" in form or ":{" in form:
    budget.weigh_integers(values)


def _filter(name: str, function: Callable) -> Any:
  @functools.wraps(function)  # with the marks that say which filters get the context
  def paying(*args: object, **named: object) -> Any:
    values, before = [*args, *named.values()], budget.left
    for value in values:
      budget.weigh(value, deep=name in _DEEP)
    if name in _WIDTHS:  # indentation is written on every line
      budget.weigh_integers(values, times=1 + before - budget.left if name in ("indent", "tojson") else 1)
    return budget.weigh(function(*_check_growth(name, [*args], values), **named))

  return paying


def _check_growth(name: str, args: list[object], values: list[object]) -> list[object]:
  texts = [value for value in values if isinstance(value, str)]
  if name == "format" and texts:
    _check_format(texts[0], values)
  if name == "replace" and len(texts) > 2:
    budget.charge((texts[0].count(texts[1]) if texts[1] else len(texts[0]) + 1) * len(texts[2]))
  if name == "join":
    place = next((i for i, value in enumerate(args) if hasattr(value, "__next__")), None)
    if place is not None:
      args[place] = list(_counted(None, args[place]))
    sizes = [len(value) for value in args if isinstance(value, (list, tuple, dict, str))]
    budget.charge(max(sizes, default=0) * max(map(len, texts), default=0))
  return args


def _priced(source: nodes.Template) -> nodes.Template:
  def paid(node: nodes.Expr, how: Callable) -> nodes.Filter:
    return nodes.Filter(node, how.__name__, [], [], None, None, lineno=node.lineno)

  # Lists, since a price changes what is searched.
  for loop in list(source.find_all(nodes.For)):
    loop.iter = paid(loop.iter, _counted)
  for part in list(source.find_all(nodes.Getitem)):
    if isinstance(part.arg, nodes.Slice):
      part.node = paid(part.node, _weighed)
  for operand in list(source.find_all(nodes.Operand)):
    if operand.op in ("in", "notin"):
      operand.expr = paid(operand.expr, _weighed)
  for joined in list(source.find_all(nodes.Concat)):
    joined.nodes = [paid(node, _weighed_deep) for node in joined.nodes]
  return source


class Bounded(ImmutableSandboxedEnvironment):
  intercepted_binops = frozenset(("*", "**", "%", "+"))

  def _generate(self, source: nodes.Template, *args: object, **named: object) -> str:
    return super()._generate(_priced(source).set_environment(self), *args, **named)

  def concat(self, parts: Iterable[str]) -> str:
    return "".join(part for part in parts if not budget.charge(len(part) + 1))

  def call(self, context: object, called: Callable, *args: object, **named: object) -> Any:
    values, owner = [*args, *named.values()], getattr(called, "__self__", None)
    budget.charge(CALL)
    for value in (owner, *values):
      budget.weigh(value)
    if isinstance(owner, (str, bytes, int, float)):
      budget.weigh_integers(values)
      name = getattr(called, "__name__", "")
      if name in ("replace", "join"):
        args = _check_growth(name, [*args], [owner, *args] if name == "replace" else [*args, owner])
    return budget.weigh(super().call(context, called, *args, **named))

  def wrap_str_format(self, value: object) -> Any:
    wrapped = super().wrap_str_format(value)

    def checked(*args: object, **named: object) -> str:
      _check_format(str(value.__self__), [*args, *named.values()])
      return wrapped(*args, **named)

    return wrapped and checked

  def call_binop(self, context: object, operator: str, left: object, right: object) -> Any:
    if operator == "%" and isinstance(left, str):
      _check_format(left, right if isinstance(right, tuple) else [right])
    if isinstance(left, int) and isinstance(right, int):
      bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
      if bits > LARGEST_INTEGER:
        raise TooMuchError("it computes a huge number")
    elif operator == "*":
      number, sized = (left, right) if isinstance(left, int) else (right, left)
      if isinstance(number, int) and isinstance(sized, Sized):
        budget.charge(max(number, 0) * len(sized) * (1 if isinstance(sized, str) else ELEMENT))
    else:
      budget.weigh(left)
      budget.weigh(right)
    return super().call_binop(context, operator, left, right)


@functools.cache
def environment() -> Bounded:
  """transformers' own sandbox with prices; random filters and `lipsum` are gone."""
  from transformers.utils import chat_template_utils

  theirs = chat_template_utils._compile_jinja_template("").environment
  made = Bounded(
    trim_blocks=theirs.trim_blocks,
    lstrip_blocks=theirs.lstrip_blocks,
    extensions=[type(extension) for extension in theirs.extensions.values()],
    finalize=lambda value: value if isinstance(value, str) else budget.weigh(value, deep=True),
  )

  def random(*args: object) -> None:
    raise jinja2.TemplateError("it draws at random, so that no score could be repeated")

  made.globals.update(
    theirs.globals, lipsum=random, strftime_now=lambda form: TODAY.strftime(budget.weigh(str(form)[:200]))
  )
  made.filters.update({name: _filter(name, function) for name, function in theirs.filters.items()}, random=random)
  for priced in (_counted, _weighed, _weighed_deep):  # with the context, or they would be run while compiling
    made.filters[priced.__name__] = jinja2.pass_context(priced)
  made.tests["in"] = _filter("in", made.tests["in"])
  return made


@functools.lru_cache(maxsize=64)
def compiled(template: str) -> jinja2.Template:
  return environment().from_string(template)
