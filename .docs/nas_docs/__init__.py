"""The documentation site: pages are generated from registries and docstrings, so that none can drift from the code.

``python -m nas_docs --out build/docs`` builds it. Every kind of page is a file with a function `pages`.
"""
