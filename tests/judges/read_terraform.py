"""Prints a Terraform module as one JSON object: its blocks by name, with the literals of strings, and whatever
`jsonencode` is given as the object that it is. Expressions stay the text that they are.

usage: read_terraform.py DIRECTORY
"""

import json
import pathlib
import re
import sys

import hcl2

META = {"__is_block__", "__comments__", "__inline_comments__"}
ENCODED = re.compile(r"^\$\{jsonencode\((.*)\)\}$", re.DOTALL)


def plain(value):
    """`value` without what the parser adds."""
    if isinstance(value, dict):
        return {bare(key): plain(each) for key, each in value.items() if key not in META}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, str):
        return value
    encoded = ENCODED.match(value)
    if encoded:
        return {"jsonencode": plain(hcl2.loads(f"value = {encoded.group(1)}\n")["value"])}
    return bare(value)


def bare(text):
    """`text` without the quotes around a string."""
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted else text


def main():
    """Reads every file of the directory."""
    module = {}
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tf")):
        for kind, blocks in hcl2.loads(path.read_text(encoding="utf-8")).items():
            if kind in META:
                continue
            for block in plain(blocks):
                merge(module.setdefault(kind, {}), block, f"{path}: {kind}")
    json.dump(module, sys.stdout)


def merge(into, block, where):
    """Adds `block` to the blocks of its kind, by type and name."""
    for key, value in block.items():
        if key in into and isinstance(into[key], dict) and isinstance(value, dict):
            merge(into[key], value, f"{where} {key}")
        elif key in into:
            sys.exit(f"{where} {key} is there twice")
        else:
            into[key] = value


main()
