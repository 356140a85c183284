#!/usr/bin/env python3
"""What is in each binary and in the pages, as CycloneDX 1.5: scripts/sbom.py [FOLDER]

Writes datahub.cdx.json, twin.cdx.json, rovicli.cdx.json and pages.cdx.json, into target/sbom if no
folder is given. Cargo and npm's lock file tell what there is; nothing is fetched or built.
Libraries of the system, such as libpq and libhdf5, are the images' matter. Needs Python 3.11.
"""

import base64
import json
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ("datahub", "twin", "rovicli")


def crates(binary):
    """Yields depth, name, version and licence of the crates that are linked into a binary, as a
    tree: neither those of tests nor what only runs while building."""
    tree = ["cargo", "tree", "--locked", "--package", binary, "--edges", "normal,no-proc-macro",
            "--prefix", "depth", "--format", " {p} | {l}"]
    lines = subprocess.run(tree, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for line in filter(None, lines.splitlines()):
        depth, name, version, licence = re.match(r"(\d+) (\S+) v(\S+)[^|]*\| ?(.*?)(?: \(\*\))?$", line).groups()
        yield int(depth), name, version, licence


def checksums():
    """SHA-256 of crates by name and version; our own have none."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}


def component(kind, name, version, licence, hashes=()):
    purl = f"pkg:{kind}/{name.replace('@', '%40')}@{version}"
    made = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        # The older form of "either", which SPDX does not know.
        parts = (part.strip() for part in licence.split("/"))
        made["licenses"] = [{"expression": " OR ".join(parts)}]
    if hashes:
        made["hashes"] = [{"alg": algorithm, "content": digest} for algorithm, digest in hashes]
    return made


def bill(root, components, dependencies):
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"component": {**root, "type": "application"}},
        "components": [components[ref] for ref in sorted(components) if ref != root["bom-ref"]],
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in sorted(dependencies.items())],
    }


def of_binary(binary, known):
    components, dependencies, path = {}, {}, []
    for depth, name, version, licence in crates(binary):
        checksum = known.get((name, version))
        made = component("cargo", name, version, licence, [("SHA-256", checksum)] if checksum else ())
        ref = made["bom-ref"]
        components[ref] = made
        dependencies.setdefault(ref, set())
        del path[depth:]
        if path:
            dependencies[path[-1]].add(ref)
        path.append(ref)
    return bill(components[path[0]], components, dependencies)


def of_pages():
    """Packages that the pages are made of, and by."""
    lock = json.loads((ROOT / "web/package-lock.json").read_text())
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    root = component("npm", lock["name"], version, lock["packages"][""]["license"])
    components = {}
    for path, package in lock["packages"].items():
        if not path:
            continue
        algorithm, digest = package["integrity"].split("-", 1)
        hashes = [(algorithm.upper().replace("SHA", "SHA-"), base64.b64decode(digest).hex())]
        name = path.removeprefix("node_modules/")
        made = component("npm", name, package["version"], package.get("license"), hashes)
        components[made["bom-ref"]] = made
    return bill(root, components, {root["bom-ref"]: set(components)})


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/sbom"
    folder.mkdir(parents=True, exist_ok=True)
    known = checksums()
    bills = {binary: of_binary(binary, known) for binary in BINARIES}
    bills["pages"] = of_pages()
    for name, made in bills.items():
        path = folder / f"{name}.cdx.json"
        path.write_text(json.dumps(made, indent=1) + "\n")
        print(f"{path}: {len(made['components'])} components")


if __name__ == "__main__":
    main()
