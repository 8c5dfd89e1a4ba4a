#!/bin/sh
# Writes the certificates of tests/channels/test_transport_tls.py next to this file, good for a hundred years:
# ca.pem (an authority), server.pem (a key and its certificate for localhost, 127.0.0.1 and ::1, signed by it),
# other.pem (an authority that signed nothing). The keys guard nothing. Needs openssl 3.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

authority() { # key, certificate, name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=$3" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$1" -out "$2"
}

authority "$work/ca.key" ca.pem "dispatcher tests"
authority "$work/other.key" other.pem "dispatcher tests, another"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
    -keyout "$work/server.key" -out "$work/server.csr"
cat > "$work/server.ext" <<EXT
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1
EXT
openssl x509 -req -in "$work/server.csr" -CA ca.pem -CAkey "$work/ca.key" -CAcreateserial -CAserial "$work/serial" \
    -days 36500 -extfile "$work/server.ext" -out "$work/server.crt"
cat "$work/server.key" "$work/server.crt" > server.pem
