#!/bin/sh
# Makes a machine's authorities, COUNT of them with DIR/ca.crt among them: as a folder with links
# that are named by hashes, DIR/authorities, and as a bundle, DIR/bundle.crt.
#
#   certificates.sh DIR COUNT
set -e
cd "$1"
mkdir authorities
cp ca.crt authorities/1.crt
for number in $(seq 2 "$2"); do
    openssl req -x509 -key other.key -days 30 -subj "/O=Authority/CN=number $number" -out "authorities/$number.crt"
done
cat authorities/*.crt >bundle.crt
openssl rehash authorities
