"""ELECTRA for JAX: the `FlaxElectra*` classes of transformers 4, on jax alone.

Raises:
    ImportError: jax is not installed.
"""

try:
    import jax  # noqa: F401
except ImportError as error:
    raise ImportError("the FlaxElectra classes need jax: pip install 'electra_fast[jax]'") from error
