#!/usr/bin/env bash
# Adds the C libraries that are linked into the static binary, which no Cargo tool sees, to the
# list of its crates.
#
#   deploy/dev/sbom.sh CRATES.json SBOM.json
set -euo pipefail

openssl=$(pkg-config --modversion openssl)
glibc=$(getconf GNU_LIBC_VERSION)
python3 - "$1" "$2" "$openssl" "${glibc#glibc }" <<'END'
import json
import sys

crates, target, openssl, glibc = sys.argv[1:]
with open(crates) as file:
    sbom = json.load(file)
for name, version in [("openssl", openssl), ("glibc", glibc)]:
    reference = f"pkg:generic/{name}@{version}"
    sbom["components"].append({"type": "library", "bom-ref": reference, "name": name,
                               "version": version, "purl": reference})
with open(target, "w") as file:
    json.dump(sbom, file, indent=2)
END
rm "$1"
