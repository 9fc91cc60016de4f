#!/bin/sh
# Makes two authorities, ca.crt and other.crt, and by the first of them for these names server.crt, and
# expired.crt, whose time is over; pg.key is their key as PostgreSQL's user may read it.
#
#   certificates.sh DIR NAMES
set -e
cd "$1"
for ca in ca other; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$ca" -keyout $ca.key -out $ca.crt
done
openssl req -newkey rsa:2048 -nodes -subj /CN=hub -keyout server.key -out server.csr
printf 'subjectAltName=%s' "$2" >extensions
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out server.crt
# Up to OpenSSL 3.3 only the first can say so, since 3.4 only the second.
for time in '-days -1' '-not_before 20200101000000Z -not_after 20200102000000Z'; do
    # shellcheck disable=SC2086 # two words or four
    ! openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial $time -extfile extensions -out expired.crt || break
done
[ -s expired.crt ]
cp server.key pg.key; chmod 600 server.key pg.key; chmod 755 .
if [ "$(id -u)" = 0 ]; then chown "$(id -un postgres 2>/dev/null || echo nobody)" pg.key; fi
