#!/usr/bin/env python3
"""Prints the licences of every crate that is linked into respaldo for a target, with their texts.

Usage: third_party.py TARGET
"""
import json
import pathlib
import subprocess
import sys

NAMES = ("licen", "copying", "notice", "copyright", "unlicense")


def linked(metadata):
    """Packages that the binary is made of: behind no development dependency."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return found


def texts(folder):
    """Licence files of a crate, and of the C sources inside it."""
    for path in sorted(folder.rglob("*")):
        shallow = len(path.relative_to(folder).parts) <= 3
        if shallow and path.is_file() and path.name.lower().startswith(NAMES):
            if path.suffix.lower() not in (".rs", ".c", ".h", ".py"):
                yield path


def main():
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", sys.argv[1]]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    wanted = linked(metadata)
    packages = [p for p in metadata["packages"] if p["id"] in wanted and p["source"]]
    if len(packages) < 100:
        sys.exit(f"third_party: only {len(packages)} crates were found")
    print("respaldo is made with the crates below, each under its own licence, and with musl (MIT).")
    known = {}
    for package in sorted(packages, key=lambda p: (p["name"], p["version"])):
        print(f"\n{'=' * 100}\n{package['name']} {package['version']}: {package['license'] or 'see below'}")
        print(package["repository"] or f"https://crates.io/crates/{package['name']}")
        folder = pathlib.Path(package["manifest_path"]).parent
        for path in texts(folder):
            text = path.read_text(errors="replace").strip()
            title = f"{package['name']} {package['version']}, {path.relative_to(folder)}"
            if text in known:
                print(f"\n{path.relative_to(folder)}: word for word as of {known[text]}")
            else:
                known[text] = title
                print(f"\n{'-' * 100}\n{path.relative_to(folder)}\n\n{text}")


main()
