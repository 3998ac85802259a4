"""The commands of ``python -m anyio_mmsg``: programs, which `__main__` alone imports.

They use the library as other programs do, by its public names; `report` alone looks inside. What
draws live tables is an extra of the package, ``anyio-mmsg[tools]``, imported where it is used.
"""
