"""How fast electra_fast is beside other libraries."""

OURS = "electra_fast"  # the provider in rows and tables that is us
