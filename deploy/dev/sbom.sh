#!/usr/bin/env bash
# Writes what the program is made of, as CycloneDX: its crates, and the C libraries that are linked in,
# which no Cargo tool sees. The same commit and libraries make the same bytes.
#
#   deploy/dev/sbom.sh SBOM.json
set -euo pipefail

libraries=$(deploy/dev/newest.sh)
# For the tool: no time of day, and no random number.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
host=$(rustc -vV | sed -n 's/^host: //p')
trap 'rm -f sbom.json' EXIT
mkdir -p "${1%/*}"
"$TOOLS/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target "$host" --override-filename sbom
python3 - sbom.json "$1" "$libraries" <<'END'
import json
import re
import sys

crates, target, libraries = sys.argv[1:]
with open(crates) as file:
    # It does not tell in which folder it was made.
    sbom = json.loads(re.sub(r'path\+file://[^"#]*', "path+file:///register-trust", file.read()))
for line in libraries.splitlines():
    name, version, package = line.split()
    reference = f"pkg:generic/{name}@{version}"
    component = {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference}
    if package != version:
        # A distribution's package has fixes that the version does not show.
        component["properties"] = [{"name": "package", "value": package}]
    sbom["components"].append(component)
with open(target, "w") as file:
    json.dump(sbom, file, indent=2)
END
